"""User data and exceptions across processes: what arrives is what was sent, or an error that names it."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import traceback
from typing import Any

import numpy as np
import pytest
import tblib.pickling_support

from skyward_dask.slots.exceptions import dump_exception, load_exception
from skyward_dask.slots.pickling import as_buffer, dumps, loads, unloadable, unpicklable


class NeedsTwo(Exception):
    """Pickles well and can't be built again: the classic."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} {second}")
        self.second = second


class Own(Exception):
    """A user's family of errors."""


class OutOfRoom(Own, MemoryError):
    """One with a built-in base besides, whose `__new__` refuses it."""

    def __init__(self, what: str, size: int) -> None:
        super().__init__(what)
        self.size = size


def cross(error: BaseException) -> BaseException:
    return load_exception(dump_exception(error))


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


@pytest.mark.parametrize("value", [None, 1, "text", b"\0" * 100_000, {"a": [1, (2, 3)]}, lambda x: x + 1])
def test_values_cross(value: Any) -> None:
    """Plain values, and what only cloudpickle can."""
    got = loads(dumps(value))
    assert got(1) == 2 if callable(value) else got == value


def test_arrays_travel_out_of_band_and_arrive_writable() -> None:
    """A buffer is a part of its own, and used in place at the other end."""
    array = np.arange(1000.0)
    parts = dumps(array)
    assert len(parts) == 2
    got = loads([parts[0], bytearray(parts[1])])
    got += 1
    assert got[0] == 1 and array[0] == 0


def test_an_exception_keeps_type_attributes_and_frames() -> None:
    """What the user catches is what was raised, with the frames of where it was."""
    error = raised(NeedsTwo("a", "b"))
    got = cross(error)
    assert type(got) is NeedsTwo and got.second == "b" and str(got) == "a b"
    assert "in raised" in "".join(traceback.format_exception(got))


def test_an_exception_with_a_built_in_base_keeps_its_type() -> None:
    """Though it can't be built again as it is, nor by the first `__new__` among its bases."""
    got = cross(raised(OutOfRoom("shelf", 5)))
    assert type(got) is OutOfRoom and got.size == 5 and str(got) == "shelf"


def test_a_chain_crosses_and_a_bad_link_is_replaced() -> None:
    """A link that can't be pickled shows as text; what was raised keeps its type."""
    bad = LookupError(threading.Lock())
    try:
        try:
            raise bad
        except LookupError as cause:
            raise KeyError("outer") from cause
    except KeyError as error:
        got = cross(error)
    assert type(got) is KeyError
    assert type(got.__cause__) is LookupError and "lock" in str(got.__cause__)


def test_a_cycle_of_causes_crosses() -> None:
    """Chains may bite their own tail."""
    first, second = ValueError(1), ValueError(2)
    first.__context__, second.__context__ = second, first
    got = cross(first)
    assert got.__context__ is not None and got.__context__.__context__ is got


def test_a_long_chain_crosses() -> None:
    """A retry loop may have made it: far longer than the interpreter's stack is deep."""
    error: BaseException | None = None
    for number in range(1500):
        try:
            raise ValueError(number, error) from error
        except ValueError as caught:
            error = caught
    assert error is not None
    parts = dump_exception(error)
    assert len(parts[0]) < 1500 * 1000  # none of the links has taken the others along
    got: BaseException | None = load_exception(parts)
    for number in reversed(range(1500)):
        assert type(got) is ValueError and got.args[0] == number
        assert "test_a_long_chain" in "".join(traceback.format_tb(got.__traceback__))
        assert got.args[1] is got.__cause__
        got = got.__cause__
    assert got is None


def test_a_long_chain_is_pickled_once() -> None:
    """Not once for each link, as tblib's reducers do: twice the links, twice the size."""
    tblib.pickling_support.install(ValueError)

    def size(links: int) -> int:
        error = ValueError(0)
        for number in range(1, links):
            error, error.__cause__ = ValueError(number), error
        got = dump_exception(raised(error))
        assert error.__cause__ is not None and error.__traceback__ is not None
        return sum(map(len, got))

    assert size(200) < 3 * size(100)


def test_exceptions_may_carry_each_other() -> None:
    """In circles, and through groups: they arrive, each with its type."""
    first, second = ValueError(1), KeyError(2)
    group = ExceptionGroup("both", [first, second])
    first.__cause__, first.other, second.other = group, second, first  # type: ignore[attr-defined]
    first.group, group.first = group, first  # type: ignore[attr-defined]
    got: Any = cross(first)
    assert type(got) is ValueError and got.other is got.__cause__.exceptions[1]
    assert got.__cause__.exceptions[0] is got and got.other.other.args == (1,)
    assert got.group.message == "both" and got.__cause__.first.args == (1,)


class Several(ExceptionGroup):
    """A group with more than a group has."""

    def __new__(cls, text: str, errors: list[Exception], code: int) -> Several:
        made = super().__new__(cls, text, errors)
        made.code = code  # type: ignore[attr-defined]
        return made

    def __init__(self, text: str, errors: list[Exception], code: int) -> None:
        pass


def test_a_group_keeps_its_members() -> None:
    """As themselves, each with its cause, frames and notes; groups in groups too."""
    member = raised(NeedsTwo("a", "b"))
    member.__cause__, member.__notes__ = KeyError("cause"), ["a note"]  # type: ignore[attr-defined]
    got = cross(raised(Several("outer", [ExceptionGroup("inner", [member, OSError(2, "no")])], 7)))
    assert type(got) is Several and (got.message, got.code) == ("outer", 7)  # type: ignore[attr-defined]
    (inner,) = got.exceptions
    first, second = inner.exceptions  # type: ignore[attr-defined]
    assert type(first) is NeedsTwo and first.second == "b" and type(first.__cause__) is KeyError
    assert first.__notes__ == ["a note"] and "in raised" in "".join(traceback.format_exception(got))
    assert type(second) is FileNotFoundError and second.errno == 2
    assert type(cross(BaseExceptionGroup("x", [GeneratorExit()]))) is BaseExceptionGroup


class Refused(OSError):
    """Takes other arguments than its base."""

    def __init__(self, code: int, reason: str, host: str) -> None:
        super().__init__(code, reason, f"on {host}")
        self.host = host


class Enough(StopIteration):
    def __init__(self, count: int, value: str) -> None:
        super().__init__(value)


def test_an_exception_keeps_what_its_base_made_of_its_arguments() -> None:
    """Its own `__init__` isn't called with them."""
    error = raised(Refused(111, "no", "host"))
    got = cross(error)
    assert isinstance(got, Refused) and (got.errno, got.filename, got.host) == (111, "on host", "host")
    assert (str(got), got.args) == (str(error), error.args)
    last = cross(Enough(1, "value"))
    assert isinstance(last, Enough) and last.value == "value"
    lost = cross(ImportError("gone", name="module"))
    assert isinstance(lost, ImportError) and lost.name == "module"


class Nasty:
    """Whatever is asked of it, it raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error

    def __repr__(self) -> str:
        raise self.error


class Endless:
    """Asks itself for ever."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self, name + "_")

    def __repr__(self) -> str:
        return repr(self)


def test_an_exception_may_carry_anything() -> None:
    """It keeps its type, and harms nobody on its way."""
    for carried in (Nasty(ValueError()), Nasty(SystemExit()), Nasty(KeyboardInterrupt()), Endless()):
        error = raised(ValueError("reason", carried))
        error.carried = carried  # type: ignore[attr-defined]
        got = cross(error)
        assert type(got) is ValueError and got.args[0] == "reason"


def by_value(name: str, **methods: Any) -> Any:
    """An instance of a class that no module has."""
    made = type(name, (), methods | {"__module__": "__main__"})
    return made()


def fails(*args: Any) -> Any:
    raise ZeroDivisionError


def test_what_cannot_be_built_again_is_named() -> None:
    """Not what cloudpickle or copyreg would have built it with."""
    for value, name in (
        (by_value("Mine", __setstate__=fails, __getstate__=lambda self: 1), "__main__.Mine"),
        (by_value("Mine", __reduce__=lambda self: (fails, ())), "tests.slots.test_pickling.fails"),
        ([by_value("Outer"), by_value("Mine", __setstate__=fails, __getstate__=lambda self: 1)], "Mine"),
    ):
        parts = dumps(value)
        with pytest.raises(ZeroDivisionError) as caught:
            loads(list(parts))
        assert f"{name}: ZeroDivisionError()" in str(unloadable("it", "here", parts, caught.value))
    gone = [b"\x80\x04\x8c\x07no_such\x8c\x05Thing\x93."]
    with pytest.raises(ImportError) as missing:
        loads(list(gone))
    assert "no_such.Thing" in str(unloadable("it", "here", gone, missing.value))


def test_what_cannot_be_pickled_is_named() -> None:
    """The error names the culprit among what was sent."""
    error = unpicklable([("argument 0", 1), ("argument 'x'", threading.Lock())], TypeError("no"))
    assert "argument 'x', of type _thread.lock," in str(error)


@pytest.mark.parametrize("size", [0, 1, 2**10, 2**20])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_a_part_is_pickled_out_of_band_and_can_be_collected(kind: type[bytes | bytearray], size: int) -> None:
    part = memoryview(bytes(1) + kind(b"x" * size))[1:] if kind is bytes else memoryview(kind(b"x" * size))
    found = as_buffer(part)
    assert found.raw() == part and memoryview(found).readonly is part.readonly
    # Python may crash if the collector finds a view, and something that has its buffer, in one cycle
    assert not any(isinstance(each, memoryview) for each in gc.get_referents(found))


def test_buffers_in_a_cycle_with_what_they_belong_to_are_collected() -> None:
    """In a process of its own: it is the interpreter that would crash."""
    cycle = """
import gc, pickle
from skyward_dask.extension.parcel import Foreign
view = memoryview(bytearray(2**20))
frames = []
pickle.dumps(Foreign("x", 8, [view]), 5, buffer_callback=lambda sent: frames.append(memoryview(sent)))
everything = [view, frames]
everything.append(everything)
del view, frames, everything
print(gc.collect() > 0)
"""
    done = subprocess.run([sys.executable, "-c", cycle], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "True", "")
