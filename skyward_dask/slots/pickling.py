"""User data as opaque parts: pickle protocol 5 with its buffers out of band, cloudpickle where needed."""

from __future__ import annotations

import ctypes
import io
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import cloudpickle

from skyward_dask.errors import SerializationError
from skyward_dask.slots.framing import Part

#: Bytes that take as long to copy as it takes to make the type of a ctypes array.
_WORTH_AN_ARRAY = 64 * 1024


def dumps(value: object) -> list[Part]:
    """Pickle a value into a stream and its out-of-band buffers.

    The C pickler is tried first. It refers to what is defined in ``__main__`` by name, and at the other end
    that is another module: such a value is pickled again by cloudpickle, by value.
    """
    buffers: list[pickle.PickleBuffer] = []
    stream = _stream(value, buffers.append, buffers.clear)
    return [stream, *(buffer.raw() for buffer in buffers)]


class LargeBuffer(BaseException):
    """A value has a buffer that isn't to be copied. Not an `Exception`, which calls for another pickler."""


def dumps_whole(value: object, largest: int) -> bytes:
    """Pickle a value into a stream, buffers of up to that many bytes included.

    Raises
    ------
    LargeBuffer
        It has a larger one.
    """

    def copy(buffer: pickle.PickleBuffer) -> bool:
        if buffer.raw().nbytes > largest:
            raise LargeBuffer
        return True

    return _stream(value, copy, lambda: None)


def _stream(value: object, take: Callable[[pickle.PickleBuffer], Any], restart: Callable[[], None]) -> bytes:
    try:
        stream = pickle.dumps(value, protocol=5, buffer_callback=take)
        if b"__main__" not in stream:
            return stream
    except Exception:
        pass  # cloudpickle has the last word: lambdas, closures and local classes get here
    restart()
    pickled: bytes = cloudpickle.dumps(value, protocol=5, buffer_callback=take)
    return pickled


def loads(parts: Sequence[Part]) -> Any:
    """The value that `dumps` pickled; its buffers are used in place, and are writable."""
    return pickle.loads(parts[0], buffers=parts[1:])


def as_buffer(part: Part) -> pickle.PickleBuffer:
    """A part as something that is pickled out of band; a small or read-only one is copied.

    It doesn't hold the buffer of a memoryview: up to 3.12.6, Python crashes when its garbage collector finds
    the two in a cycle, such as the buffers of a broken-off connection (python/cpython#77894).
    """
    if not isinstance(part, memoryview):
        return pickle.PickleBuffer(part)
    if part.readonly:
        return pickle.PickleBuffer(bytes(part))
    if part.nbytes < _WORTH_AN_ARRAY:
        return pickle.PickleBuffer(bytearray(part))
    array: Any = ctypes.c_ubyte * part.nbytes
    return pickle.PickleBuffer(array.from_buffer(part))


def named_arguments(args: Iterable[object], kwargs: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """The arguments of a call, with their names for an error message."""
    yield from ((f"argument {number}", value) for number, value in enumerate(args))
    yield from ((f"argument {name!r}", value) for name, value in kwargs.items())


def unpicklable(what: Iterable[tuple[str, object]], error: BaseException) -> SerializationError:
    """The error that names the first of the values in `what` that can't be pickled."""
    named = "something in it"
    for name, value in what:
        try:
            dumps(value)
        except BaseException:  # that is what we are looking for; the caller gets it named
            named = f"{name}, of type {type(value).__module__}.{type(value).__qualname__},"
            break
    return SerializationError(
        f"{named} can't be pickled on its way between a worker and its slot's process: {text_of(error)}. "
        "Pass what it is made from and build it in the task, or run the task with executor='thread'."
    )


def unloadable(what: str, where: str, parts: Sequence[Part], error: BaseException) -> SerializationError:
    """The error for something that can't be unpickled: it names what couldn't be built."""
    return SerializationError(
        f"{what} can't be unpickled {where}, at {_culprit(parts)}: {text_of(error)}. "
        "A module may be missing there, or the class can't be recreated from its pickle."
    )


class _Slow(pickle._Unpickler):
    """Python's own unpickler; what a pickle only refers to is left out."""

    def persistent_load(self, _: Any) -> None:
        return None


def _culprit(parts: Sequence[Part]) -> str:
    """The class or function at which unpickling fails: the frames of Python's own unpickler show it."""
    try:
        _Slow(io.BytesIO(parts[0]), buffers=parts[1:]).load()
    except BaseException as error:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        names = (_built(frame.f_code.co_name, frame.f_locals) for frame in reversed(frames))
        return next((name for name in names if name), "an object")
    return "an object"  # it failed for a reason that no longer exists


def _built(step: str, scope: dict[str, Any]) -> str:
    """What a frame of the unpickler is about to build; empty for a frame that builds nothing."""
    match step, scope:
        case "find_class", {"module": module, "name": name}:
            return f"{module}.{name}"
        case "load_reduce", {"func": function, "args": arguments}:
            return _named(function, arguments)
        case "load_newobj" | "load_newobj_ex", {"cls": built}:
            return _name(built)
        case "load_build", {"inst": instance}:
            return _name(type(instance))
    return ""


def _named(function: Any, arguments: tuple[Any, ...]) -> str:
    if getattr(function, "__module__", "") not in ("cloudpickle.cloudpickle", "copyreg"):
        return _name(function)
    # these make classes, and their instances, out of the class or its name
    own = (each for each in arguments if isinstance(each, type) and each.__module__ != "builtins")
    return next(map(_name, own), "") or next((each for each in arguments if isinstance(each, str)), "")


def _name(built: Any) -> str:
    return f"{getattr(built, '__module__', '?')}.{getattr(built, '__qualname__', built)}"


def text_of(value: object) -> str:
    try:
        return repr(value)
    except BaseException:
        return object.__repr__(value)
