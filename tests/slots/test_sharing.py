"""Large data between a pool and its children: one contract, over shared memory and over the socket."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from skyward_dask.errors import SharedMemoryError, SlotCrashed
from skyward_dask.slots.executor import SlotPool
from skyward_dask.slots.memory import segments

SMALL = 4096
"""Bytes from which these pools share: small, so that the tests are fast."""

MIB = 1 << 20

pytestmark = pytest.mark.platform

needs_sharing = pytest.mark.skipif(not segments.is_supported(), reason="the platform has no shared memory")


@pytest.fixture(scope="module", params=[SMALL, None], ids=["shared", "socket"])
def shared_pool(request: pytest.FixtureRequest) -> Iterator[SlotPool]:
    if request.param and not segments.is_supported():
        pytest.skip("the platform has no shared memory")
    with SlotPool(4, share_from=request.param) as pool:
        yield pool


@pytest.fixture
def pool() -> Iterator[SlotPool]:
    """A pool of two slots that shares whatever is as large as a page."""
    if not segments.is_supported():
        pytest.skip("the platform has no shared memory")
    with SlotPool(2, share_from=SMALL) as pool:
        yield pool


def resident(pool: SlotPool) -> int:
    """Bytes of shared memory that the pool has."""
    assert pool.segments is not None
    return pool.segments.resident()


def wait_for_resident(pool: SlotPool, least: int, most: int) -> None:
    """Memory goes back when nobody has taken any for a second, in the housekeeper's time."""
    deadline = time.monotonic() + 200
    while not least <= resident(pool) <= most:
        assert time.monotonic() < deadline, f"{resident(pool):,} bytes are left"
        time.sleep(0.02)


def increment(x: Any) -> Any:
    x += 1
    return x


# --- descriptors -------------------------------------------------------------------------------------------


def use_up_descriptors() -> int:
    import builtins
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    builtins.held = held = []  # type: ignore[attr-defined]
    with suppress(OSError):
        while True:
            held.append(os.dup(2))
    return os.getpid()


def give_back_descriptors() -> int:
    import builtins

    while builtins.held:  # type: ignore[attr-defined]
        os.close(builtins.held.pop())  # type: ignore[attr-defined]
    return os.getpid()


def add_up(array: Any) -> tuple[float, int]:
    return float(array.sum()), os.getpid()


@needs_sharing
def test_a_call_that_finds_no_descriptors_says_so() -> None:
    """Later ones work: in the same process if it got them back, else in another."""
    ones = np.ones(SMALL)
    with SlotPool(1, share_from=SMALL) as pool:
        pid = pool.submit(use_up_descriptors).result()
        with pytest.raises(SharedMemoryError, match="descriptors in use"):
            pool.submit(add_up, ones).result()
        assert pool.submit(give_back_descriptors).result() == pid
        assert pool.submit(add_up, ones).result() == (SMALL, pid)
    with SlotPool(1, share_from=SMALL) as pool:
        pid = pool.submit(use_up_descriptors).result()
        with pytest.raises(SharedMemoryError, match="descriptors in use"):
            pool.submit(np.ones, SMALL).result()
        total, other = pool.submit(add_up, ones).result()
        assert total == SMALL and other != pid


# --- one contract, both ways -------------------------------------------------------------------------------


def test_every_task_may_write_to_its_input(shared_pool: SlotPool) -> None:
    """Four at once, twice over: each sees the original, each result is right, and so is the caller's."""
    original = np.arange(MIB // 2, dtype="f8")
    known = shared_pool.submit(increment, original).result()
    for array in (original, known, original[::2], known[1000:]):
        futures = [shared_pool.submit(increment, array) for _ in range(8)]
        for future in futures:
            np.testing.assert_array_equal(future.result(), array + 1)
    np.testing.assert_array_equal(original + 1, known)


def test_results_are_ordinary_writable_arrays(shared_pool: SlotPool) -> None:
    """What its holder writes travels on, and stays his own."""
    array = shared_pool.submit(np.zeros, 10_000).result()
    assert type(array) is np.ndarray and array.flags.writeable
    array[5000] = 3
    assert shared_pool.submit(np.sum, array).result() == 3
    other = shared_pool.submit(increment, array).result()
    assert (array.sum(), other.sum()) == (3, 10_003)


VALUES = {
    "frame": pd.DataFrame(
        {"a": np.arange(5000.0), "b": np.arange(5000), "c": [f"text {n}" for n in range(5000)]}
    ),
    "series": pd.Series(np.arange(9000), index=pd.date_range("2000", periods=9000, freq="h")),
    "table": pa.table({"x": np.arange(7000), "s": [str(n) for n in range(7000)]}),
    "fortran": np.asfortranarray(np.arange(10_000.0).reshape(100, 100)),
    "strided": np.arange(40_000.0)[::3],
    "empty": np.empty((0, 5000)),
    "nested": {"a": [np.ones(6000), {"b": (np.zeros(3), np.full(8000, 2))}], "text": "x" * 100_000},
    "many": [np.full(1024, n) for n in range(300)],
    "bytes": bytes(range(256)) * 100,
    "readonly": np.frombuffer(b"abcdefgh" * 10_000, dtype="u1"),
}


@pytest.mark.parametrize("name", VALUES)
def test_values_cross_both_ways(shared_pool: SlotPool, name: str) -> None:
    """Whatever their buffers look like; what came goes again."""
    value = VALUES[name]
    for _ in range(2):
        value = shared_pool.submit(lambda given: given, value).result()
        assert shared_pool.submit(lambda: None).result() is None
    compare(value, VALUES[name])


def compare(value: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert value.keys() == expected.keys()
        for key in expected:
            compare(value[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(value) == len(expected)
        for one, other in zip(value, expected, strict=True):
            compare(one, other)
    elif isinstance(expected, pd.DataFrame | pd.Series):
        assert value.equals(expected)
    else:
        assert type(value) is type(expected) and np.array_equal(value, expected)


def test_one_array_twice_is_two_arguments(shared_pool: SlotPool) -> None:
    """Views of one array are told apart in a task, as their pickles are."""

    def write(one: Any, other: Any) -> tuple[float, float]:
        one += 1
        return one.sum(), other.sum()

    array = shared_pool.submit(np.zeros, 10_000).result()
    assert shared_pool.submit(write, array, array[:]).result() == (10_000, 0)


def test_an_exception_may_carry_an_array(shared_pool: SlotPool) -> None:
    """It arrives as itself."""

    def fail(x: Any) -> None:
        raise ValueError(x * 2)

    array = np.arange(10_000)
    with pytest.raises(ValueError) as caught:  # noqa: PT011  # its argument is an array
        shared_pool.submit(fail, array).result()
    np.testing.assert_array_equal(caught.value.args[0], array * 2)


# --- who still reads ---------------------------------------------------------------------------------------


def test_an_input_that_a_task_keeps_stays_as_it_is(pool: SlotPool) -> None:
    """In a global of the child, written to there, while its range is dropped, used again and lent again."""

    def keep(x: Any) -> int:
        import builtins

        x[0] = -1
        builtins.kept = x  # type: ignore[attr-defined]
        return os.getpid()

    def look() -> Any:
        import builtins

        return os.getpid(), getattr(builtins, "kept", None)  # the other child has nothing

    array = pool.submit(np.full, 10_000, 7).result()
    keeper = pool.submit(keep, array).result()
    assert pool.submit(lambda x: x.min(), array).result() == 7
    del array
    for _ in range(20):
        assert pool.submit(np.zeros, 10_000).result().max() == 0
    while (found := pool.submit(look).result())[0] != keeper:
        pass
    assert found[1][0] == -1 and (found[1][1:] == 7).all()


def fork_keeper(x: Any, go: str, said: str) -> int:
    """Leave a process behind that reads its input when it is told to."""
    pid = os.fork()
    if not pid:
        os.closerange(0, 1000)
        Path(go).read_text()
        Path(said).write_text(repr((x.min(), x.max())))
        os._exit(0)
    return pid


def test_a_grandchild_reads_its_input_after_all_others_let_go(pool: SlotPool, tmp_path: Path) -> None:
    """Its range is used again only when it is gone."""
    go, said = str(tmp_path / "go"), str(tmp_path / "said")
    os.mkfifo(go), os.mkfifo(said)
    array = pool.submit(np.full, 100_000, 7.0).result()
    assert pool.segments is not None
    pool.submit(fork_keeper, array, go, said).result()
    del array
    for _ in range(20):
        zeros = pool.submit(np.zeros, 100_000).result()
        assert zeros.max() == 0
    Path(go).write_text("")
    assert Path(said).read_text() == repr((np.float64(7), np.float64(7)))
    del zeros
    wait_for_resident(pool, 0, 0)


# --- deaths ------------------------------------------------------------------------------------------------


class DiesWhenPickled:
    """Killed between the two halves of a result."""

    def __reduce__(self) -> tuple[Any, ...]:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


@pytest.mark.crash
def test_a_child_killed_at_its_result_harms_nothing(pool: SlotPool) -> None:
    """Its ranges come back when it is gone."""
    array = pool.submit(np.ones, 100_000).result()
    for _ in range(3):
        with pytest.raises(SlotCrashed):
            pool.submit(lambda x: [x + 1, DiesWhenPickled()], array).result()
    assert pool.submit(np.sum, array).result() == 100_000
    del array
    wait_for_resident(pool, 0, 0)


@needs_sharing
@pytest.mark.crash
def test_a_child_killed_while_it_writes_harms_nothing() -> None:
    """At any moment of the copy: the worker owns the ranges."""

    def dies(delay: float) -> Any:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        array = np.ones(4 * MIB)
        signal.setitimer(signal.ITIMER_REAL, delay)
        return array

    with SlotPool(1, share_from=SMALL) as pool:
        for step in range(6):
            with suppress(SlotCrashed):  # unless it came too late
                assert pool.submit(dies, 0.001 + step * 0.004).result().sum() == 4 * MIB
            with suppress(SlotCrashed):  # it came still later
                pool.submit(signal.setitimer, signal.ITIMER_REAL, 0).result()
        assert pool.submit(np.ones, 4 * MIB).result().sum() == 4 * MIB
        wait_for_resident(pool, 0, 0)


def test_no_room_fails_that_task_alone(pool: SlotPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an argument and as a result; the slot works on."""
    assert pool.submit(np.ones, 10).result().sum() == 10
    before = {slot.pid for slot in pool.snapshots()}
    monkeypatch.setattr(segments.headroom, "available", lambda: 0)
    with pytest.raises(SharedMemoryError, match="aren't available"):
        pool.submit(np.ones, 16 * MIB).result()
    with pytest.raises(SharedMemoryError, match="aren't available"):
        pool.submit(len, np.ones(16 * MIB)).result()
    assert pool.submit(np.ones, 10).result().sum() == 10
    assert {slot.pid for slot in pool.snapshots()} == before


GROUPS = (
    (Path("/sys/fs/cgroup"), "memory.max"),
    (Path("/sys/fs/cgroup/memory"), "memory.limit_in_bytes"),
)


@pytest.fixture
def full_group() -> Iterator[Path]:
    """A control group of 512 MiB, where one can be made."""
    for root, limit in GROUPS:
        group = root / f"skyward-test-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            if (group / limit).exists():
                (group / limit).write_text(str(512 * MIB))
                yield group
                group.rmdir()
                return
            group.rmdir()
    pytest.skip("no control group with a limit of memory can be made here")


FULL = """
import os, sys
from pathlib import Path

Path(sys.argv[1], "cgroup.procs").write_text(str(os.getpid()))

import numpy as np
from skyward_dask.errors import SharedMemoryError
from skyward_dask.slots.executor import SlotPool

with SlotPool(1) as pool:
    pid = pool.submit(os.getpid).result()
    held = []
    try:
        while True:
            held.append(pool.submit(np.full, 4 << 20, len(held)).result())
    except SharedMemoryError as error:
        assert "control group" in str(error)
    assert len(held) >= 5
    assert all((array == n).all() for n, array in enumerate(held))
    del held[1:]
    assert pool.submit(lambda x: x + 1, held[0]).result().max() == 1
    assert pool.submit(os.getpid).result() == pid
print("fine")
"""


@needs_sharing
@pytest.mark.crash
def test_a_full_control_group_is_an_error_of_that_task(full_group: Path) -> None:
    """The kernel, which kills where memory can't be had, isn't asked for it."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(full_group)], capture_output=True, text=True, timeout=200
    )
    assert done.stdout.strip() == "fine", f"{done.returncode} {done.stderr}"


# --- memory ------------------------------------------------------------------------------------------------


def test_memory_goes_back_in_any_order(pool: SlotPool) -> None:
    """What is dropped frees its own bytes, to a page."""
    arrays: list[Any] = [pool.submit(np.full, MIB // 8 * (1 + n % 3), n).result() for n in range(12)]
    sizes = [array.nbytes for array in arrays]
    assert sum(sizes) <= resident(pool) <= sum(sizes) * 1.05
    for n in (3, 0, 11, 7, 5, 9, 1, 10):
        arrays[n] = None
        sizes[n] = 0
    wait_for_resident(pool, sum(sizes), int(sum(sizes) * 1.05))
    assert all((array == n).all() for n, array in enumerate(arrays) if array is not None)
    arrays.clear()
    wait_for_resident(pool, 0, 0)


def test_an_argument_costs_one_copy_for_all_slots(pool: SlotPool) -> None:
    """What is shared already is not copied at all."""
    array = pool.submit(np.ones, MIB).result()
    before = resident(pool)
    assert pool.submit(np.sum, array).result() == MIB
    assert pool.submit(np.sum, array).result() == MIB
    assert resident(pool) == before


MANY = """
import resource

import numpy as np
from skyward_dask.slots.executor import SlotPool

resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))

def make(first):
    return [np.full(2048, first + n) for n in range(1000)]

with SlotPool(2, share_from=16384) as pool:
    arrays = [array for some in pool.map(make, range(0, 100_000, 1000)) for array in some]
    assert len(arrays) == 100_000
    assert all(array[0] == n and array[-1] == n for n, array in enumerate(arrays))
    assert pool.segments.resident() >= 100_000 * 16384
    assert pool.submit(lambda some: sum(int(each[7]) for each in some), arrays[::-7]).result() == sum(
        range(99_999, -1, -7)
    )
print("fine")
"""


@needs_sharing
@pytest.mark.slow
def test_a_hundred_thousand_live_arrays_under_256_descriptors() -> None:
    """Few segments, so few descriptors and few mappings."""
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, timeout=200)
    assert done.stdout.strip() == "fine", done.stderr
