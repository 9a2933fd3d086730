"""`Worker`: how a node's slots are configured, in Python, on the command line or in Dask's configuration."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from importlib import import_module
from math import inf
from numbers import Integral
from typing import TYPE_CHECKING, Any, Literal, cast

import dask.config
from dask.utils import parse_bytes, parse_timedelta

from skyward_dask.arguments import takes_only
from skyward_dask.errors import ConfigurationError
from skyward_dask.settings import check_sections, invalid, number, plain

if TYPE_CHECKING:
    from skyward_dask.slots.preparation import Setting

EXECUTORS = ("auto", "thread", "process")
Kind = Literal["thread", "process"]
#: No process has such a large address space.
_MOST_BYTES = 2**63


@dataclass(frozen=True, init=False)
class Worker:
    """The configuration of a node: how many task slots it has, and of which kind.

    Fields that aren't given have the defaults below, whatever Dask's configuration says; `Worker.from_config`
    reads that.

    Parameters
    ----------
    concurrency : int, optional
        Task slots of the node; defaults to the Dask worker's own ``nthreads``.
    executor : str
        ``"thread"``, ``"process"``, or ``"auto"``, which means ``"thread"``.
    timeout : float or str, optional
        Time limit of one task (wall time from the call of its function): seconds, or text such as ``"30s"``.
    memory_limit : int or str, optional
        Bytes, or text such as ``"2GiB"``, for each slot: anonymous and written pages of its process and of
        the processes that it started. A slot above it is killed, and its task gets `SlotOutOfMemory`.
    max_tasks_per_child : int, optional
        A slot's process is replaced after this many tasks; 1: a fresh process for each task.
    initializer : callable, optional
        Called once, without arguments, in each slot's process before its first task.
    pre_import : iterable of str
        Modules that a slot's process imports before its first task.
    env : mapping of str to str or callable
        Environment of the slots' processes, set before their first import. ``"{slot}"`` in a value is the
        slot's index; a function as a value is called with that index.
    health_check : callable, optional
        Called, without arguments, in a slot's process after a task that raised. If it returns False or
        raises, the process is replaced.

    Raises
    ------
    ConfigurationError
        A value is invalid, or an option for process slots was given with threads.

    Examples
    --------
    >>> Worker(concurrency=4, executor="process")
    Worker(concurrency=4, executor='process')
    """

    concurrency: int | None = None
    executor: Literal["auto", "thread", "process"] = "auto"
    timeout: float | None = None
    memory_limit: int | None = None
    max_tasks_per_child: int | None = None
    initializer: Callable[[], object] | None = None
    pre_import: tuple[str, ...] = ()
    env: Mapping[str, Setting] = field(default_factory=dict)
    health_check: Callable[[], object] | None = None

    # written out, as it accepts more types than the fields have
    @takes_only("The number of slots, threads or processes, is concurrency.")
    def __init__(
        self,
        concurrency: int | None = None,
        executor: Literal["auto", "thread", "process"] = "auto",
        timeout: float | str | None = None,
        memory_limit: int | str | None = None,
        max_tasks_per_child: int | None = None,
        initializer: Callable[[], object] | None = None,
        pre_import: Iterable[str] = (),
        env: Mapping[str, str | Callable[[int], str]] = {},
        health_check: Callable[[], object] | None = None,
    ) -> None:
        vars(self).update(
            concurrency=_count("concurrency", concurrency, "None for the worker's own nthreads"),
            executor=_executor(executor),
            timeout=parse_timeout(timeout),
            memory_limit=parse_memory_limit(memory_limit),
            max_tasks_per_child=_count("max_tasks_per_child", max_tasks_per_child, "None for no limit"),
            initializer=_function("initializer", initializer),
            pre_import=_modules(pre_import),
            env=_environment(env),
            health_check=_function("health_check", health_check),
        )
        if self.kind == "thread":
            self._refuse_process_only()

    def _given(self) -> dict[str, object]:
        """What differs from the defaults."""
        defaults: dict[str, object] = {f.name: f.default for f in fields(self)} | {"env": {}}
        return {name: value for name, value in vars(self).items() if value != defaults[name]}

    def _refuse_process_only(self) -> None:
        if given := [name for name in self._given() if name not in ("concurrency", "executor")]:
            names = ", ".join(given)
            raise ConfigurationError(
                f"{names} can only be set for process slots, and executor={self.executor!r} means "
                f"threads. Set executor='process', or leave {names} out."
            )

    @property
    def kind(self) -> Kind:
        """The kind of slots: ``"thread"`` or ``"process"``."""
        return "process" if self.executor == "process" else "thread"

    def __hash__(self) -> int:
        own = (getattr(self, f.name) for f in fields(self) if f.name != "env")
        return hash((*own, tuple(sorted(self.env.items()))))

    def __repr__(self) -> str:
        return f"Worker({', '.join(f'{name}={value!r}' for name, value in self._given().items())})"

    @classmethod
    def from_config(cls, **overrides: Any) -> Worker:
        """The worker that Dask's configuration describes (namespace ``skyward.worker``).

        Parameters
        ----------
        **overrides
            Fields that win over the configuration.
        """
        check_sections()
        # utils_test resets the configuration to what it was before our defaults: they equal the fields'
        configured = dask.config.get("skyward.worker", default=None) or {}
        values = {plain(key): value for key, value in configured.items()}
        values = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        return cls(**{**_converted(values), **overrides})


def check_worker(worker: object) -> None:
    """Refuse what isn't a `Worker`, such as the name of an executor."""
    if not isinstance(worker, Worker):
        raise invalid("worker", worker, "a skyward_dask.Worker, such as Worker(executor='process')")


def _converted(values: dict[str, Any]) -> dict[str, Any]:
    """Configuration holds text, where a `Worker` holds tuples and functions."""
    modules = values.get("pre_import")
    if isinstance(modules, str):
        values["pre_import"] = [name.strip() for name in modules.split(",") if name.strip()]
    for name in ("initializer", "health_check"):
        if isinstance(path := values.get(name), str):
            values[name] = _imported(name, path)
    # null in yaml means that nothing is set
    return {name: v for name, v in values.items() if v is not None}


def _imported(setting: str, path: str) -> Callable[[], object]:
    module, _, name = path.partition(":")
    try:
        return cast(Callable[[], object], getattr(import_module(module), name))
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"{setting} must be written 'module:function', and {path!r} can't be imported: {error}."
        ) from error


def _executor(value: object) -> object:
    if value not in EXECUTORS:
        raise invalid("executor", value, "one of " + ", ".join(map(repr, EXECUTORS)))
    if value == "process" and sys.platform == "win32":
        raise ConfigurationError("executor='process' doesn't work on Windows: use 'thread'.")
    return value


def _count(name: str, value: Any, otherwise: str) -> int | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise invalid(name, value, f"a positive integer, or {otherwise}")
    return int(value)  # NumPy's can't be sent


def _function(name: str, value: Callable[[], object] | None) -> Callable[[], object] | None:
    if value is not None and not callable(value):
        raise invalid(name, value, "a function that takes no arguments")
    return value


def parse_timeout(value: Any) -> float | None:
    """Seconds from a number or from text such as ``"30s"``; raises `ConfigurationError`."""
    if value is None:
        return None
    valid = "a positive number of seconds, or text such as '30s'"
    return float(number("timeout", value, parse_timedelta, lambda seconds: 0 < seconds < inf, valid))


def parse_memory_limit(value: Any) -> int | None:
    """Bytes from a number or from text such as ``"2GiB"``; raises `ConfigurationError`."""
    if value is None:
        return None
    valid = "a positive number of bytes, or text such as '2GiB'"
    return int(number("memory_limit", value, parse_bytes, lambda nbytes: 1 <= nbytes < _MOST_BYTES, valid))


def _modules(value: object) -> tuple[str, ...]:
    names = tuple(value) if isinstance(value, Iterable) and not isinstance(value, str) else (None,)
    if not all(isinstance(name, str) and name for name in names):
        raise invalid("pre_import", value, "a sequence of module names, such as ('numpy', 'pandas')")
    return cast(tuple[str, ...], names)


def _environment(value: object) -> dict[str, Setting]:
    valid = (
        "a mapping of names to strings, or to functions of the slot's index, such as "
        "{'CUDA_VISIBLE_DEVICES': '{slot}'}"
    )
    if not isinstance(value, Mapping) or not all(
        isinstance(name, str) and (isinstance(text, str) or callable(text)) for name, text in value.items()
    ):
        raise invalid("env", value, valid)
    texts = [*value, *(text for text in value.values() if isinstance(text, str))]
    if not all(name and "=" not in name for name in value) or any("\0" in text for text in texts):
        raise invalid("env", value, f"{valid}, without empty names, '=' in a name, or null bytes")
    return dict(value)
