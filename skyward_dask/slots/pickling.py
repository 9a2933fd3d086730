"""User data as opaque parts: pickle protocol 5 with its buffers out of band, cloudpickle where needed.

An exception crosses as itself: its type, its attributes, its chain and the frames of its traceback. A link
of the chain that can't be pickled is replaced; what was raised keeps its type.
"""

from __future__ import annotations

import pickle
import pickletools
import sys
import traceback
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import CodeType, FrameType, TracebackType
from typing import Any

import cloudpickle

from skyward_dask.errors import SerializationError, SkywardError
from skyward_dask.slots.framing import Part


def dumps(value: object) -> list[Part]:
    """Pickle a value into a stream and its out-of-band buffers.

    The C pickler is tried first. It refers to what lives in ``__main__`` by name, which means another
    module at the other end: such a stream is made again by cloudpickle, by value.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        stream = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        if b"__main__" not in stream:
            return [stream, *(buffer.raw() for buffer in buffers)]
    except Exception:
        pass  # cloudpickle has the last word: lambdas, closures and local classes end here
    buffers.clear()
    stream = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [stream, *(buffer.raw() for buffer in buffers)]


def loads(parts: Sequence[Part]) -> Any:
    """The value that `dumps` pickled; its buffers are used in place, and are writable."""
    return pickle.loads(parts[0], buffers=parts[1:])


def unpicklable(what: Iterable[tuple[str, object]], error: BaseException) -> SerializationError:
    """The error that names the first of the things called `what` that can't be pickled."""
    named = "something in it"
    for name, value in what:
        try:
            dumps(value)
        except Exception:  # that is what we are looking for; the caller gets it named
            named = f"{name}, of type {type(value).__module__}.{type(value).__qualname__},"
            break
    return SerializationError(
        f"{named} can't be pickled on its way between a worker and its slot's process: {error!r}. "
        "Pass what it is made from and build it in the task, or run the task with executor='thread'."
    )


def unloadable(stream: Part, error: BaseException) -> SerializationError:
    """The error of a result that can't be unpickled: it names what its pickle is made with first."""
    return SerializationError(
        f"the result, made with {_first_global(bytes(stream))}, can't be unpickled in its worker: {error!r}. "
        "A module may be missing there, or its class can't be built again from its pickle."
    )


def _first_global(stream: bytes) -> str:
    """The first class or function that a pickle refers to: the class of most objects."""
    names: list[str] = []
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name == "STACK_GLOBAL":
            return ".".join(names[-2:])
        if isinstance(argument, str):
            names.append(argument)
    return "nothing but plain values"


@dataclass(frozen=True, slots=True)
class _Link:
    """One exception of a chain: itself in parts, its frames, and where the next ones stand."""

    parts: list[bytes]
    frames: list[tuple[str, str, int]]
    cause: int | None
    context: int | None
    suppress_context: bool


def dump_exception(error: BaseException) -> list[Part]:
    """Pickle an exception with its chain; never fails for what the exception carries."""
    links: list[_Link] = []
    _add_link(error, links, {})
    return [pickle.dumps(links)]


def _add_link(error: BaseException, links: list[_Link], seen: dict[int, int]) -> int:
    if id(error) in seen:
        return seen[id(error)]
    position = seen[id(error)] = len(links)
    links.append(_Link([], [], None, None, False))  # keeps the place while its chain is added
    cause = None if error.__cause__ is None else _add_link(error.__cause__, links, seen)
    context = None if error.__context__ is None else _add_link(error.__context__, links, seen)
    frames = [(f.filename, f.name, f.lineno or 0) for f in traceback.extract_tb(error.__traceback__)]
    links[position] = _Link(_dump_bare(error), frames, cause, context, error.__suppress_context__)
    return position


def _dump_bare(error: BaseException) -> list[bytes]:
    """The exception alone, tried out: some pickle well and then can't be built again."""
    for attempt in (_as_itself, _as_its_type, _as_its_text):
        try:
            parts = [bytes(part) for part in dumps(attempt(error))]
            _rebuild(*loads(list(parts)))
        except Exception:  # the next attempt carries less; the last can't fail
            continue
        return parts
    raise AssertionError("text can always be pickled")


def _as_itself(error: BaseException) -> tuple[Any, ...]:
    return (error,)


def _as_its_type(error: BaseException) -> tuple[Any, ...]:
    return type(error), tuple(map(_or_text, error.args)), {k: _or_text(v) for k, v in vars(error).items()}


def _as_its_text(error: BaseException) -> tuple[Any, ...]:
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    return (SkywardError(f"an exception that can't be pickled: {text}"),)


def _or_text(value: object) -> object:
    try:
        loads(dumps(value))
    except Exception:  # shown as text in the exception that the user gets
        return repr(value)
    return value


def _rebuild(first: Any, args: tuple[Any, ...] = (), attributes: dict[str, Any] | None = None) -> Any:
    if isinstance(first, BaseException):
        return first
    error = _bare(first, args)
    error.args = args
    vars(error).update(attributes or {})
    return error


def _bare(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An exception that is yet to be filled, by the first `__new__` among its bases that takes its class."""
    for base in cls.__mro__:
        if "__new__" in vars(base):
            with suppress(TypeError):  # MemoryError's refuses classes that have another base before it
                return base.__new__(cls, *args)
    raise TypeError(f"{cls} can't be built again")


def load_exception(parts: Sequence[Part]) -> BaseException:
    """The exception that `dump_exception` pickled, with its chain and its remote frames."""
    links: list[_Link] = pickle.loads(parts[0])
    errors = [_load_link(link) for link in links]
    for error, link in zip(errors, links, strict=True):
        error.__cause__ = None if link.cause is None else errors[link.cause]
        error.__context__ = None if link.context is None else errors[link.context]
        error.__suppress_context__ = link.suppress_context
    return errors[0]


def _load_link(link: _Link) -> BaseException:
    try:
        error: BaseException = _rebuild(*loads(list(link.parts)))
    except Exception as reason:  # its class may exist at the other end only; the user reads why
        error = SerializationError(f"a task's exception can't be unpickled here: {reason!r}")
    return error.with_traceback(_traceback_of(link.frames))


def _traceback_of(frames: list[tuple[str, str, int]]) -> TracebackType | None:
    """A traceback that shows frames of another process; its frames hold no variables."""
    result: TracebackType | None = None
    for filename, name, line in reversed(frames):
        # lasti -1: no column is known, so that no caret is drawn under the wrong word
        result = TracebackType(result, _frame_of(filename, name), -1, line)
    return result


_TEMPLATE = compile("frame = _getframe()", "<remote>", "exec")


def _frame_of(filename: str, name: str) -> FrameType:
    code: CodeType = _TEMPLATE.replace(co_filename=filename, co_name=name, co_qualname=name)
    scope: dict[str, Any] = {"_getframe": sys._getframe, "__name__": "remote", "__file__": filename}
    exec(code, scope)  # a frame object can be had in no other way
    frame: FrameType = scope.pop("frame")
    return frame
