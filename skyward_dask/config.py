"""`Worker`: what a node's slots are, from Python, from the command line or from Dask's configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

import dask.config
import yaml
from dask.utils import parse_bytes, parse_timedelta

from skyward_dask.errors import ConfigurationError

_DEFAULTS: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "skyward.yaml").read_text())
#: What may stand in each section of the configuration.
_SECTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"skyward": _DEFAULTS["skyward"]}
    | {f"skyward.{name}": settings for name, settings in _DEFAULTS["skyward"].items()}
)


def _load_defaults() -> None:
    configured = {name: dask.config.get(name, default=None) for name in (*_SECTIONS, "skyward.worker.env")}
    dask.config.update_defaults(_DEFAULTS)
    for name, value in configured.items():
        if value is not None and not isinstance(value, Mapping):
            # Dask has replaced it in silence; `Worker.from_config` says what is wrong with it
            dask.config.set({name: value})


_load_defaults()

EXECUTORS = ("auto", "thread", "process")
Kind = Literal["thread", "process"]

#: Fields that mean something for process slots only, with what they are when nobody gave them.
_PROCESS_ONLY: Mapping[str, object] = MappingProxyType(
    {
        "timeout": None,
        "memory_limit": None,
        "max_tasks_per_child": None,
        "pre_import": (),
        "initializer": None,
        "env": {},
    }
)


@dataclass(frozen=True)
class Worker:
    """What each node has: how many task slots, of which kind.

    Parameters
    ----------
    concurrency : int, optional
        Task slots of the node; the dask worker's own ``nthreads`` without it.
    executor : str
        ``"thread"``, ``"process"``, or ``"auto"``, which means ``"thread"``.
    timeout : float or str, optional
        Seconds, or text such as ``"30s"``, for one task: wall time from the call of its function.
    memory_limit : int or str, optional
        Bytes, or text such as ``"2GiB"``, of a slot's own: anonymous and written pages of its process and of
        what that started. A slot over it is killed, and its task gets `SlotOutOfMemory`.
    max_tasks_per_child : int, optional
        A slot's process is replaced after so many tasks; 1: a fresh process for each task.
    initializer : callable, optional
        Called once, without arguments, in each slot's process before its first task.
    pre_import : iterable of str
        Modules that a slot's process has imported before its first task.
    env : mapping of str to str
        Environment of the slots' processes, set before their first import; ``"{slot}"`` in a value is the
        slot's index.

    Raises
    ------
    ConfigurationError
        A value can't be meant, or one that only process slots know is given for threads.

    Examples
    --------
    >>> Worker(concurrency=4, executor="process")
    Worker(concurrency=4, executor='process')
    """

    concurrency: int | None = None
    executor: str = "auto"
    timeout: float | None = None
    memory_limit: int | None = None
    max_tasks_per_child: int | None = None
    initializer: Callable[[], object] | None = None
    pre_import: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_executor(self.executor)
        _check_count("concurrency", self.concurrency, "None for the worker's nthreads")
        _check_count("max_tasks_per_child", self.max_tasks_per_child, "None for no limit")
        object.__setattr__(self, "timeout", parse_timeout(self.timeout))
        object.__setattr__(self, "memory_limit", parse_memory_limit(self.memory_limit))
        object.__setattr__(self, "pre_import", _modules(self.pre_import))
        object.__setattr__(self, "env", _environment(self.env))
        if self.initializer is not None and not callable(self.initializer):
            raise _invalid("initializer", self.initializer, "a function without arguments")
        if self.kind == "thread":
            self._refuse_process_only()

    def _refuse_process_only(self) -> None:
        given = [name for name, default in _PROCESS_ONLY.items() if getattr(self, name) != default]
        if given:
            raise ConfigurationError(
                f"{', '.join(given)} can only be had by process slots, and executor={self.executor!r} means "
                "threads. Set executor='process', or leave it out."
            )

    @property
    def kind(self) -> Kind:
        """What a slot is: ``"thread"`` or ``"process"``."""
        return "process" if self.executor == "process" else "thread"

    def __hash__(self) -> int:
        own = (getattr(self, f.name) for f in fields(self) if f.name != "env")
        return hash((*own, tuple(sorted(self.env.items()))))

    def __repr__(self) -> str:
        given = [
            f"{f.name}={value!r}"
            for f in fields(self)
            if (value := getattr(self, f.name)) != (f.default if f.name != "env" else {})
        ]
        return f"Worker({', '.join(given)})"

    @classmethod
    def from_config(cls, **overrides: Any) -> Worker:
        """The worker that Dask's configuration describes (namespace ``skyward.worker``).

        Parameters
        ----------
        **overrides
            Fields that win over the configuration.
        """
        _check_sections()
        # utils_test resets the configuration to what it was before our defaults: they equal the fields'
        configured = dask.config.get("skyward.worker", default=None) or {}
        values = {_plain(key): value for key, value in configured.items()}
        values = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        return cls(**{**_converted(values), **overrides})


def _plain(key: object) -> str:
    return str(key).replace("-", "_")


def _check_sections() -> None:
    """Refuse what nobody would read: a plain value for a section, or a setting that there isn't."""
    for section, defaults in _SECTIONS.items():
        names = ", ".join(defaults)
        configured = dask.config.get(section, default=None) or {}
        if not isinstance(configured, Mapping):
            raise _invalid(section, configured, f"a mapping with some of {names}")
        known = set(map(_plain, defaults))
        if unknown := [repr(key) for key in configured if _plain(key) not in known]:
            raise ConfigurationError(f"{section} has no setting {', '.join(unknown)}; it has {names}.")


def _converted(values: dict[str, Any]) -> dict[str, Any]:
    """Configuration holds text, where a `Worker` holds tuples and functions."""
    modules, initializer = values.get("pre_import"), values.get("initializer")
    if isinstance(modules, str):
        values["pre_import"] = [name.strip() for name in modules.split(",") if name.strip()]
    if isinstance(initializer, str):
        values["initializer"] = _imported(initializer)
    # null in yaml means that nothing is set
    return {name: v for name, v in values.items() if v is not None}


def _imported(path: str) -> Callable[[], object]:
    module, _, name = path.partition(":")
    try:
        return cast(Callable[[], object], getattr(import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"initializer={path!r} can't be imported: {error}. It is written 'module:function'."
        ) from error


def _invalid(name: str, value: object, valid: str) -> ConfigurationError:
    return ConfigurationError(f"{name}={value!r} can't be meant: it is {valid}.")


def _check_executor(value: object) -> None:
    if value not in EXECUTORS:
        raise _invalid("executor", value, "one of " + ", ".join(map(repr, EXECUTORS)))
    if value == "process" and sys.platform == "win32":
        raise ConfigurationError("executor='process' needs fork's relatives: on Windows use 'thread'.")


def _check_count(name: str, value: object, otherwise: str) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
        raise _invalid(name, value, f"a whole number from 1, or {otherwise}")


def parsed(parse: Callable[[Any], float], value: object) -> float:
    """What Dask's parser makes of a value; ValueError if that is nothing, or made of nothing."""
    if value is None or isinstance(value, bool) or not str(value).strip():  # Dask: empty text is one byte
        raise ValueError
    try:
        return parse(value)
    except (TypeError, LookupError, AttributeError, OverflowError) as error:
        raise ValueError from error


def parse_timeout(value: Any) -> float | None:
    """Seconds from a number or from text such as ``"30s"``; raises `ConfigurationError`."""
    if value is None:
        return None
    try:
        seconds = float(parsed(parse_timedelta, value))
        if not 0 < seconds < float("inf"):
            raise ValueError
    except ValueError:
        raise _invalid("timeout", value, "seconds above 0, as a number or as text such as '30s'") from None
    return seconds


def parse_memory_limit(value: Any) -> int | None:
    """Bytes from a number or from text such as ``"2GiB"``; raises `ConfigurationError`."""
    if value is None:
        return None
    try:
        limit = int(parsed(parse_bytes, value))
        if limit < 1:
            raise ValueError
    except ValueError:
        raise _invalid("memory_limit", value, "bytes from 1, as a number or as text such as '2GiB'") from None
    return limit


def grace() -> float:
    """Seconds between the interruption of a task that is stopped and its kill (``skyward.worker.grace``)."""
    return _seconds("skyward.worker.grace", "500ms")


def staleness() -> float:
    """Seconds by which an answer may be old with eventual consistency (``skyward.collections.staleness``)."""
    return _seconds("skyward.collections.staleness", "100ms")


def worker_timeout() -> float:
    """Seconds that a new collection waits for a running worker (``skyward.collections.worker-timeout``)."""
    return _seconds("skyward.collections.worker-timeout", "30s")


def _seconds(setting: str, default: str) -> float:
    value = dask.config.get(setting, default=default)
    try:
        seconds = float(parsed(parse_timedelta, value))
        if not 0 <= seconds < float("inf"):
            raise ValueError
    except ValueError:
        raise _invalid(setting, value, f"seconds from 0, or text such as {default!r}") from None
    return seconds


def _modules(value: object) -> tuple[str, ...]:
    valid = "names of modules, such as ('numpy', 'pandas')"
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise _invalid("pre_import", value, valid)
    names = tuple(value)
    if not all(isinstance(name, str) and name for name in names):
        raise _invalid("pre_import", value, valid)
    return names


def _environment(value: object) -> dict[str, str]:
    valid = "a mapping of str to str, such as {'CUDA_VISIBLE_DEVICES': '{slot}'}"
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and isinstance(text, str) for name, text in value.items()
    ):
        raise _invalid("env", value, valid)
    if not all(name and "=" not in name and "\0" not in name + text for name, text in value.items()):
        raise _invalid("env", value, f"{valid}; no system takes an empty name, an '=' in one, or a null byte")
    return dict(value)
