"""What Dask's configuration says in the namespace ``skyward``, the defaults included."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.resources import files
from math import inf
from numbers import Integral
from types import MappingProxyType
from typing import Any

import dask.config
import yaml
from dask.utils import parse_bytes, parse_timedelta

from skyward_dask.errors import ConfigurationError
from skyward_dask.streams.credit import Window

_DEFAULTS: dict[str, Any] = yaml.safe_load((files("skyward_dask") / "skyward.yaml").read_text())
#: The settings of each section of the configuration.
_SECTIONS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"skyward": _DEFAULTS["skyward"]}
    | {f"skyward.{name}": settings for name, settings in _DEFAULTS["skyward"].items()}
)


def _load_defaults() -> None:
    configured = {name: dask.config.get(name, default=None) for name in (*_SECTIONS, "skyward.worker.env")}
    dask.config.update_defaults(_DEFAULTS)
    for name, value in configured.items():
        if value is not None and not isinstance(value, Mapping):
            # Dask has silently replaced it; `Worker.from_config` says what is wrong with it
            dask.config.set({name: value})


_load_defaults()


def grace() -> float:
    """Seconds that an interrupted task may take to end before it is killed (``skyward.worker.grace``)."""
    return _seconds("skyward.worker.grace", "500ms")


def stream_window() -> Window:
    """How far a stream's producer may be ahead of its reader (``skyward.streams.items`` and ``.bytes``)."""
    items = dask.config.get("skyward.streams.items", default=256)
    if not isinstance(items, int) or isinstance(items, bool) or items < 1:
        raise invalid("skyward.streams.items", items, "a number of items from 1")
    name = "skyward.streams.bytes"
    size = dask.config.get(name, default="8 MiB")
    valid = "a size from 1 byte, such as '8 MiB'"
    return Window(items, int(number(name, size, parse_bytes, lambda nbytes: nbytes >= 1, valid)))


def standby_timeout() -> float:
    """Seconds after which a silent standby is given up (``skyward.collections.standby-timeout``)."""
    return _seconds("skyward.collections.standby-timeout", "5s")


def staleness() -> float:
    """How many seconds old an answer may be with eventual consistency (``skyward.collections.staleness``)."""
    return _seconds("skyward.collections.staleness", "100ms")


def worker_timeout() -> float:
    """Seconds for which creating a collection waits for a worker (``skyward.collections.worker-timeout``)."""
    return _seconds("skyward.collections.worker-timeout", "30s")


def _seconds(setting: str, default: str) -> float:
    value = dask.config.get(setting, default=default)
    valid = f"a number of seconds from 0, or text such as {default!r}"
    return float(number(setting, value, parse_timedelta, lambda seconds: 0 <= seconds < inf, valid))


def plain(key: object) -> str:
    return str(key).replace("-", "_")


def check_sections() -> None:
    """Refuse what would be ignored: unknown sections and settings, and plain values for sections."""
    if misspelt := [key for key in dask.config.config if plain(key).startswith("skyward_")]:
        raise ConfigurationError(
            f"Dask's configuration has {', '.join(misspelt)}, which would be ignored: the section is called "
            "skyward, and environment variables have two underscores between levels, as in "
            "DASK_SKYWARD__WORKER__EXECUTOR."
        )
    for section, defaults in _SECTIONS.items():
        names = ", ".join(defaults)
        configured = dask.config.get(section, default=None)
        if not isinstance(configured, Mapping | None):
            raise invalid(section, configured, f"a mapping with some of {names}")
        known = set(map(plain, defaults))
        if unknown := [key for key in configured or () if plain(key) not in known]:
            named = ", ".join(map(repr, unknown))
            raise ConfigurationError(f"{section} has no setting {named}; it has {names}.{_meant(unknown)}")


def _meant(unknown: list[str]) -> str:
    """Where settings belong that are in the wrong section."""
    names = set(map(plain, unknown))
    found = [
        f"{section}.{name}" for section, known in _SECTIONS.items() for name in known if plain(name) in names
    ]
    return f" Did you mean {', '.join(found)}?" if found else ""


def invalid(name: str, value: object, valid: str) -> ConfigurationError:
    return ConfigurationError(f"{name} must be {valid}, not {value!r}.")


def number(
    name: str, value: object, parse: Callable[[Any], float], accepts: Callable[[float], bool], valid: str
) -> float:
    """What Dask's parser makes of a value; `ConfigurationError` if that isn't a number that is accepted."""
    try:
        if value is None or isinstance(value, bool) or not str(value).strip():  # Dask: empty text is one byte
            raise ValueError
        found = parse(int(value) if isinstance(value, Integral) else value)
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError):
        raise invalid(name, value, valid) from None
    if not accepts(found):
        raise invalid(name, value, valid)
    return found
