"""User data as opaque parts: pickle protocol 5 with its buffers out of band, cloudpickle where needed.

An exception crosses as itself: its type, its attributes, its chain and the frames of its traceback. A link
of the chain that can't be pickled is replaced; what was raised keeps its type.
"""

from __future__ import annotations

import io
import pickle
import sys
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import CodeType, FrameType, TracebackType
from typing import Any

import cloudpickle

from skyward_dask.errors import SerializationError, SkywardError
from skyward_dask.slots.framing import Part


def dumps(value: object) -> list[Part]:
    """Pickle a value into a stream and its out-of-band buffers.

    The C pickler is tried first. It refers to what is defined in ``__main__`` by name, and at the other end
    that is another module: such a value is pickled again by cloudpickle, by value.
    """
    buffers: list[pickle.PickleBuffer] = []
    try:
        stream = pickle.dumps(value, protocol=5, buffer_callback=buffers.append)
        if b"__main__" not in stream:
            return [stream, *(buffer.raw() for buffer in buffers)]
    except Exception:
        pass  # cloudpickle has the last word: lambdas, closures and local classes get here
    buffers.clear()
    stream = cloudpickle.dumps(value, protocol=5, buffer_callback=buffers.append)
    return [stream, *(buffer.raw() for buffer in buffers)]


def loads(parts: Sequence[Part]) -> Any:
    """The value that `dumps` pickled; its buffers are used in place, and are writable."""
    return pickle.loads(parts[0], buffers=parts[1:])


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
        f"{named} can't be pickled on its way between a worker and its slot's process: {_text(error)}. "
        "Pass what it is made from and build it in the task, or run the task with executor='thread'."
    )


def unloadable(what: str, where: str, parts: Sequence[Part], error: BaseException) -> SerializationError:
    """The error for something that can't be unpickled: it names what couldn't be built."""
    return SerializationError(
        f"{what} can't be unpickled {where}, at {_culprit(parts)}: {_text(error)}. "
        "A module may be missing there, or the class can't be recreated from its pickle."
    )


def _culprit(parts: Sequence[Part]) -> str:
    """The class or function at which unpickling fails: the frames of Python's own unpickler show it."""
    try:
        pickle._Unpickler(io.BytesIO(parts[0]), buffers=parts[1:]).load()
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


@dataclass(frozen=True, slots=True)
class _Link:
    """One of several connected exceptions: its pickled parts, its frames, and the positions of the others."""

    parts: list[bytes]
    frames: list[tuple[str, str, int]]
    cause: int | None
    context: int | None
    suppress_context: bool
    members: list[int]


def dump_exception(error: BaseException) -> list[Part]:
    """Pickle an exception with its chain; never fails, whatever the exception carries."""
    errors = connected(error)
    positions = {id(each): position for position, each in enumerate(errors)}
    return [pickle.dumps([_link(each, positions) for each in errors])]


def connected(error: BaseException) -> list[BaseException]:
    """The exception and all that it leads to through causes, contexts and groups, however long the chain."""
    found, seen = [error], {id(error)}
    for each in found:  # the list grows meanwhile
        for other in (each.__cause__, each.__context__, *members_of(each)):
            if other is not None and id(other) not in seen:
                seen.add(id(other))
                found.append(other)
    return found


def members_of(error: BaseException) -> tuple[BaseException, ...]:
    return error.exceptions if isinstance(error, BaseExceptionGroup) else ()


def _link(error: BaseException, positions: dict[int, int]) -> _Link:
    trace = traceback.walk_tb(error.__traceback__)
    frames = [(frame.f_code.co_filename, frame.f_code.co_name, line or 0) for frame, line in trace]
    return _Link(
        _dump_bare(error),
        frames,
        positions.get(id(error.__cause__)),
        positions.get(id(error.__context__)),
        error.__suppress_context__,
        [positions[id(member)] for member in members_of(error)],
    )


def _dump_bare(error: BaseException) -> list[bytes]:
    """The exception alone, and tested: some can be pickled, but not rebuilt afterwards."""
    members = members_of(error)
    with _detached(error):
        return _dump_detached(error, members)


@contextmanager
def _detached(error: BaseException) -> Iterator[None]:
    """Take an exception out of its chain: tblib's reducers would pickle all of it each time."""
    chain = error.__cause__, error.__context__, error.__suppress_context__, error.__traceback__
    error.__cause__ = error.__context__ = error.__traceback__ = None
    try:
        yield
    finally:
        error.__cause__, error.__context__, error.__suppress_context__, error.__traceback__ = chain


def _dump_detached(error: BaseException, members: tuple[BaseException, ...]) -> list[bytes]:
    for attempt in (_as_itself, _as_its_type, _as_a_group, _as_its_text):
        try:
            parts = [bytes(part) for part in dumps(attempt(error))]
            _rebuild(members, *loads(list(parts)))
        except BaseException:  # what it carries may raise anything; the next attempt carries less
            continue
        return parts
    raise AssertionError("text can always be pickled")


def _as_itself(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, BaseExceptionGroup):
        raise TypeError("its members go by themselves")
    return (error,)


def _as_its_type(error: BaseException) -> tuple[Any, ...]:
    args = (error.message,) if isinstance(error, BaseExceptionGroup) else error.args
    return type(error), tuple(map(_or_text, args)), {k: _or_text(v) for k, v in vars(error).items()}


def _as_a_group(error: BaseException) -> tuple[Any, ...]:
    if not isinstance(error, BaseExceptionGroup):
        raise TypeError("it has no members")
    return BaseExceptionGroup, (error.message,)


def _as_its_text(error: BaseException) -> tuple[Any, ...]:
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    return (SkywardError(f"an exception that can't be pickled: {text}"),)


def _or_text(value: object) -> object:
    try:
        loads(dumps(value))
    except BaseException:  # shown as text in the exception that the user gets
        return _text(value)
    return value


def _text(value: object) -> str:
    try:
        return repr(value)
    except BaseException:
        return object.__repr__(value)


def _rebuild(
    members: Sequence[BaseException],
    first: Any,
    args: tuple[Any, ...] = (),
    attributes: dict[str, Any] | None = None,
) -> BaseException:
    if isinstance(first, BaseException):
        return first
    if members:
        args = args[0], list(members)
    error = _bare(first, args)
    error.args = args
    vars(error).update(attributes or {})
    return error


def _bare(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """An exception without its contents, made by the first `__new__` among its bases that takes its class."""
    for base in cls.__mro__:
        if "__new__" in vars(base):
            with suppress(TypeError):  # MemoryError's refuses classes that have another base before it
                return base.__new__(cls, *args)
    raise TypeError(f"{cls} can't be built again")


def load_exception(parts: Sequence[Part]) -> BaseException:
    """The exception that `dump_exception` pickled, with its chain and its remote frames."""
    links: list[_Link] = pickle.loads(parts[0])
    errors = _load_links(links)
    for position, link in enumerate(links):
        error = errors[position]
        error.__cause__ = None if link.cause is None else errors[link.cause]
        error.__context__ = None if link.context is None else errors[link.context]
        error.__suppress_context__ = link.suppress_context
    return errors[0]


def _load_links(links: list[_Link]) -> dict[int, BaseException]:
    """The exceptions by their position, members before the groups that hold them."""
    errors: dict[int, BaseException] = {}
    left = list(range(len(links)))
    while left:
        link = links[left[-1]]
        if missing := [member for member in link.members if member not in errors]:
            left += missing
        elif (position := left.pop()) not in errors:
            errors[position] = _load_link(link, [errors[member] for member in link.members])
    return errors


def _load_link(link: _Link, members: list[BaseException]) -> BaseException:
    try:
        error = _rebuild(members, *loads(list(link.parts)))
    except BaseException as reason:  # its class may exist at the other end only; the user reads why
        error = unloadable("a task's exception", "here", link.parts, reason)
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
    exec(code, scope)  # there is no other way to get a frame object
    frame: FrameType = scope.pop("frame")
    return frame
