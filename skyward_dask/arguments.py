"""Calls with arguments that don't fit get an error that says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeVar

from skyward_dask.errors import ConfigurationError

P = ParamSpec("P")
T = TypeVar("T")


def takes_only(instead: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Have a function refuse arguments that don't fit, and say what to write instead."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        name, known = function.__qualname__.removesuffix(".__init__"), signature(function)
        takes = ", ".join(parameter for parameter in known.parameters if parameter != "self")

        @wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return function(*args, **kwargs)
            except TypeError:  # only now, as binding takes its time
                try:
                    known.bind(*args, **kwargs)
                except TypeError as error:
                    raise ConfigurationError(f"{name}: {error}; it takes {takes}. {instead}") from None
                raise

        return checked

    return decorate
