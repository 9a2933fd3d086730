"""Mistakes with operators: each is an error that says what to write instead."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NoReturn

from skyward_dask.api.targets import described
from skyward_dask.errors import OperatorError
from skyward_dask.extension.unrun import NotRun


class Uncalled:
    """A function whose calls are values, where a call of it was meant."""

    #: The function's own name.
    name: str

    if not TYPE_CHECKING:  # there, they are errors already

        def _refuse(self, other: object) -> NoReturn:
            raise _uncalled(self)

        __rshift__ = __gt__ = __matmul__ = __and__ = _refuse
        __rrshift__ = __lt__ = __rmatmul__ = __rand__ = _refuse

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"a function of skyward_dask has no {name!r}: write `f(x) >> compute` to run it, "
                "`f(x) > compute` for a future, `gather(*[f(x) for x in items]) >> compute` to map it."
            )


class Unrun(NotRun):
    """A call, or several, that were taken for their results, or combined in a way that has no meaning."""

    __slots__ = ()

    if not TYPE_CHECKING:  # there, they are errors already

        def __bool__(self) -> NoReturn:
            raise OperatorError(
                f"{self!r} hasn't run, so it is neither true nor false: test its result, `f(x) >> compute`."
            )

        def __getattr__(self, name: str) -> NoReturn:
            raise AttributeError(
                f"a call has no {name!r}, as it hasn't run: write `f(x) >> compute` for its result, "
                "`f(x) > compute` for a future."
            )

        def __await__(self) -> NoReturn:
            raise OperatorError("a call can't be awaited: write `await asyncio.wrap_future(f(x) > compute)`.")

        def _reversed(self, other: object) -> NoReturn:
            raise OperatorError(f"the call goes on the left: write `{self!r} >> compute`.")

        __rrshift__ = __lt__ = __rmatmul__ = _reversed

        def __matmul__(self, other: object) -> NoReturn:
            raise OperatorError(
                "@ sends a single call to every node: write `[call @ compute for call in c]`."
            )

        def __gt__(self, other: object) -> NoReturn:
            raise OperatorError("> starts a single call: write `[call > compute for call in calls]`.")

        def __and__(self, other: object) -> NoReturn:
            raise not_joined(self, other)

        def __rand__(self, other: object) -> NoReturn:
            raise not_joined(other, self)


def _uncalled(function: Uncalled) -> OperatorError:
    name = function.name
    return OperatorError(f"{name} is a function, and operators take its calls: write {name}(...).")


def not_joined(left: object, right: object) -> OperatorError:
    for side in (left, right):
        if isinstance(side, Uncalled):
            return _uncalled(side)
    return OperatorError(
        f"& joins calls, not {described(left)} and {described(right)}. >> and > bind differently: write "
        "`(f(x) & g(y)) >> compute`, with the parentheses."
    )


def unrun_in(value: object) -> Unrun | None:
    """This value if it is a call, or a call in it, if it is a list, a tuple, a set or a dict."""
    if isinstance(value, Unrun):
        return value
    values: Iterable[object] = ()
    if isinstance(value, dict):
        values = value.values()
    elif isinstance(value, list | tuple | set):
        values = value
    return next((each for each in values if isinstance(each, Unrun)), None)
