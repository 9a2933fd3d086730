"""Exceptions as opaque parts: each crosses as itself, with its attributes, its chain and its frames.

A link of the chain that can't be pickled is replaced; what was raised keeps its type.
"""

from __future__ import annotations

import io
import pickle
import sys
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import CodeType, FrameType, TracebackType
from typing import Any

import cloudpickle

from skyward_dask.errors import SkywardError
from skyward_dask.slots.framing import Part
from skyward_dask.slots.pickling import text_of, unloadable


@dataclass(frozen=True, slots=True)
class _Link:
    """One of several connected exceptions: its pickle, its frames, and the positions of the others."""

    pickled: bytes
    frames: list[tuple[str, str, int]]
    cause: int | None
    context: int | None
    suppress_context: bool
    members: list[int]
    #: Those that its arguments and attributes refer to. They come later and aren't groups: no circle closes.
    carried: list[int]


def dump_exception(error: BaseException) -> list[Part]:
    """Pickle an exception with its chain; never fails, whatever the exception carries."""
    errors = dict(enumerate(connected(error)))
    positions = {id(each): position for position, each in errors.items()}
    return [pickle.dumps([_Single(position, errors, positions).link() for position in errors])]


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


class _Single:
    """One of several connected exceptions, to be pickled without the others."""

    def __init__(self, position: int, errors: dict[int, BaseException], positions: dict[int, int]) -> None:
        self.position, self.errors, self.positions = position, errors, positions
        self.error = errors[position]

    def link(self) -> _Link:
        error = self.error
        trace = traceback.walk_tb(error.__traceback__)
        pickled, carried = self._pickled()
        return _Link(
            pickled,
            [(frame.f_code.co_filename, frame.f_code.co_name, line or 0) for frame, line in trace],
            self.positions.get(id(error.__cause__)),
            self.positions.get(id(error.__context__)),
            error.__suppress_context__,
            [self.positions[id(member)] for member in members_of(error)],
            carried,
        )

    def _pickled(self) -> tuple[bytes, list[int]]:
        """The exception alone, and tested: some can be pickled, but not rebuilt afterwards."""
        for attempt in (_as_itself, _as_its_type, self._with_text, _as_a_group, _as_its_text):
            try:
                pickled, carried = self._dump(attempt(self.error))
                _rebuild(members_of(self.error), *_load(pickled, self.errors))
            except BaseException:  # what it carries may raise anything; the next attempt carries less
                continue
            return pickled, carried
        raise AssertionError("text can always be pickled")

    def _dump(self, value: object) -> tuple[bytes, list[int]]:
        file = io.BytesIO()
        pickler = _Pickler(file, self.position, self.positions)
        pickler.dump(value)
        return file.getvalue(), list(pickler.carried)

    def _with_text(self, error: BaseException) -> tuple[Any, ...]:
        cls, args, attributes = _as_its_type(error)
        return cls, tuple(map(self._or_text, args)), {k: self._or_text(v) for k, v in attributes.items()}

    def _or_text(self, value: object) -> object:
        try:
            _load(self._dump(value)[0], self.errors)
        except BaseException:  # shown as text in the exception that the user gets
            return text_of(value)
        return value


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """Pickles one of several connected exceptions without the others: later ones are referred to.

    Where distributed is imported, tblib has told `copyreg` that exceptions take their causes along: each of a
    thousand links would take all that follow.
    """

    def __init__(self, file: io.BytesIO, own: int, positions: Mapping[int, int]) -> None:
        super().__init__(file, protocol=5)
        self.own, self.positions = own, positions
        self.carried: set[int] = set()

    def persistent_id(self, value: object) -> int | None:
        if not issubclass(type(value), BaseException) or issubclass(type(value), BaseExceptionGroup):
            return None
        position = self.positions.get(id(value), 0)
        if position <= self.own:
            return None
        self.carried.add(position)
        return position

    def reducer_override(self, value: Any) -> Any:
        return value.__reduce_ex__(5) if id(value) in self.positions else super().reducer_override(value)


class _Unpickler(pickle.Unpickler):
    def __init__(self, pickled: bytes, errors: Mapping[int, BaseException]) -> None:
        super().__init__(io.BytesIO(pickled))
        self.errors = errors

    def persistent_load(self, position: int) -> BaseException:
        return self.errors[position]


def _load(pickled: bytes, errors: Mapping[int, BaseException]) -> Any:
    return _Unpickler(pickled, errors).load()


def _as_itself(error: BaseException) -> tuple[Any, ...]:
    cls, base = type(error), _built_in(type(error))
    if isinstance(error, BaseExceptionGroup):
        raise TypeError("its members go by themselves")
    says_how = cls.__reduce__ is not base.__reduce__ or cls.__reduce_ex__ is not base.__reduce_ex__
    if cls.__init__ is not base.__init__ and not says_how:
        raise TypeError("its __init__ would be given what it has made of its arguments")
    return (error,)


def _built_in(cls: type[BaseException]) -> type[BaseException]:
    return next(base for base in cls.__mro__ if base.__module__ == "builtins")


def _as_its_type(error: BaseException) -> tuple[Any, ...]:
    if isinstance(error, BaseExceptionGroup):
        return type(error), (error.message,), vars(error)
    reduced: Any = _built_in(type(error)).__reduce__(error)  # type, arguments and maybe the attributes
    return type(error), reduced[1], *(reduced[2:] or ({},))


def _as_a_group(error: BaseException) -> tuple[Any, ...]:
    if not isinstance(error, BaseExceptionGroup):
        raise TypeError("it has no members")
    return BaseExceptionGroup, (error.message,)


def _as_its_text(error: BaseException) -> tuple[Any, ...]:
    text = "".join(traceback.format_exception_only(type(error), error)).strip()
    return (SkywardError(f"an exception that can't be pickled: {text}"),)


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
    with suppress(TypeError):  # what it was made of may not be what its base takes
        _built_in(first).__init__(error, *args)  # sets errno, value and the like
    error.__setstate__(attributes or {})
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
    """The exceptions by their position, those that others hold before these."""
    errors: dict[int, BaseException] = {}
    left = list(range(len(links)))
    while left:
        link = links[left[-1]]
        if missing := [other for other in (*link.members, *link.carried) if other not in errors]:
            left += missing
        elif (position := left.pop()) not in errors:
            errors[position] = _load_link(link, errors)
    return errors


def _load_link(link: _Link, errors: Mapping[int, BaseException]) -> BaseException:
    try:
        error = _rebuild([errors[member] for member in link.members], *_load(link.pickled, errors))
    except BaseException as reason:  # its class may exist at the other end only; the user reads why
        error = unloadable("a task's exception", "here", [link.pickled], reason)
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
