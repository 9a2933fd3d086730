"""Which parameters of a function are streams: `Iterator[T]`, `Iterable[T]` and `AsyncIterator[T]`."""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Iterator, Mapping
from typing import Annotated, Any, Union, get_args, get_origin

#: A name in an annotation that can't be evaluated, because what else it refers to doesn't exist at run time.
_NAMED = re.compile(r"\b(AsyncIterator|Iterator|Iterable)\b")
_STREAMED = (Iterator, Iterable, AsyncIterator)
_SEVERAL = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def streamed(function: Callable[..., Any]) -> dict[str, object]:
    """The parameters that are annotated as streams, and which kind of stream each is."""
    try:
        parameters = inspect.signature(function, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):  # some builtins have none
        return {}
    names = getattr(inspect.unwrap(function), "__globals__", {})
    kinds = {each.name: _kind(each.annotation, names) for each in parameters if each.kind not in _SEVERAL}
    return {name: kind for name, kind in kinds.items() if kind is not None}


def _kind(annotation: object, names: Mapping[str, Any]) -> object:
    if isinstance(annotation, str):
        try:
            annotation = eval(annotation, dict(names))
        except Exception:
            found = _NAMED.search(str(annotation))
            return {each.__name__: each for each in _STREAMED}[found[1]] if found else None
    origin = get_origin(annotation) or annotation
    if origin in _STREAMED:
        return origin
    if origin is Annotated or origin is Union or origin is types.UnionType:
        return next(filter(None, (_kind(each, names) for each in get_args(annotation))), None)
    return None


def is_fed(kind: object, value: object) -> bool:
    """Whether an argument for such a parameter is fed; a list for an `Iterable` is an ordinary argument."""
    if isinstance(value, str | bytes):
        return False
    if kind is AsyncIterator:
        return hasattr(value, "__aiter__") or isinstance(value, Iterable)
    if kind is Iterable:
        return isinstance(value, Iterable) and not isinstance(value, Collection)
    return isinstance(value, Iterable)
