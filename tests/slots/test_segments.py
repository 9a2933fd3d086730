"""Ranges of shared memory: given out, taken back, leased to whoever maps them; no children."""

from __future__ import annotations

import gc
import mmap
import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from skyward_dask.errors import SharedMemoryError
from skyward_dask.slots.memory import headroom, segments
from skyward_dask.slots.memory.forms import Piece, form_of
from skyward_dask.slots.memory.leases import anchor, is_leased, lease
from skyward_dask.slots.memory.lending import PrivateViews
from skyward_dask.slots.memory.mappings import address, is_clean, map_private
from skyward_dask.slots.memory.neighbour import open_neighbour, range_of, read_into, whereabouts
from skyward_dask.slots.memory.segment import Range
from skyward_dask.slots.memory.segments import Segments

pytestmark = [
    pytest.mark.skipif(not segments.is_supported(), reason="the platform has no shared memory"),
    # the forked processes here neither take locks nor return
    pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning"),
]

MIB = 1 << 20


@pytest.fixture
def pages() -> Iterator[Segments]:
    pages = Segments(share_from=4096)
    yield pages
    pages.close()


def allocate_again(pages: Segments, start: int, size: int) -> Range:
    """Allocate until it is the range that begins there: the housekeeper may be about to take it back."""
    others = []
    while (taken := pages.allocate(size)).start != start:
        others.append(taken)
    return taken


def test_a_range_is_used_again_when_its_last_view_is_dead(
    pages: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever was built on it keeps it; then the same bytes are given out, with their pages."""
    monkeypatch.setattr(segments, "IDLE", 3600)
    taken = pages.allocate(MIB)
    first = taken.start
    array = np.frombuffer(taken.view(taken.start, MIB), dtype="u1")
    part = array[10:20]
    taken.write(memoryview(b"x" * MIB))
    del taken, array
    other = pages.allocate(MIB)
    assert other.start != first and bytes(part) == b"x" * 10
    del part
    assert allocate_again(pages, first, MIB).warm


def test_what_its_holder_wrote_is_gone_with_him(pages: Segments) -> None:
    """The next holder sees the file, not the private pages of the last one."""
    taken = pages.allocate(4096)
    start = taken.start
    view = taken.view(start, 4096)
    view[:4] = b"mine"
    del taken, view
    again = allocate_again(pages, start, 4096)
    again.write(memoryview(b"file"))
    assert bytes(again.view(start, 4)) == b"file"


def test_a_leased_range_is_not_used_again(pages: Segments) -> None:
    """As long as anybody has it mapped, and be it a forked process that closed all its descriptors."""
    taken = pages.allocate(4096)
    fd, start = taken.segment.fd, taken.start
    held = anchor(lease(fd, [(start, 4096)]))
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        os.dup2(reader, 3)
        os.closerange(4, 1000)
        os.read(3, 1)
        os._exit(0)
    os.close(reader)
    held.close()
    del taken
    assert is_leased(fd, start, 4096)
    assert pages.allocate(4096).start != start
    os.close(writer)
    os.waitpid(pid, 0)
    assert not is_leased(fd, start, 4096)
    assert allocate_again(pages, start, 4096)


def test_a_lease_that_nobody_received_ends(pages: Segments) -> None:
    """It goes with its descriptor."""
    taken = pages.allocate(4096)
    fd = lease(taken.segment.fd, [(taken.start, 4096)])
    assert is_leased(taken.segment.fd, taken.start, 1)
    os.close(fd)
    assert not is_leased(taken.segment.fd, taken.start, 1)


def test_pages_go_back_when_they_are_free(pages: Segments) -> None:
    """In any order; what is still in use keeps its pages and its bytes."""
    arrays = [pages.copy(memoryview(bytes([n]) * MIB)) for n in range(8)]
    assert pages.resident() == 8 * MIB
    kept = arrays[3].view(arrays[3].start, MIB)
    for n in (5, 0, 7, 1, 6, 2, 4, 3):
        arrays[n] = None  # type: ignore[call-overload]
    deadline = time.monotonic() + 200  # the housekeeper may be about to take one back
    while pages.resident() != MIB and time.monotonic() < deadline:
        pages.trim()
    assert pages.resident() == MIB
    assert bytes(kept[-2:]) == b"\x03\x03"


def test_under_pressure_pages_go_back_at_once() -> None:
    """Spilling reaches its target only if what it frees is free."""
    pages = Segments(share_from=4096, is_pressed=lambda: True)
    taken = pages.copy(memoryview(bytes(MIB)))
    del taken
    assert not pages.allocate(4096).warm
    while pages.resident():  # the housekeeper may be about to take it back
        assert not pages.allocate(4096).warm
    pages.close()


def test_ranges_outlive_the_pool_and_then_give_their_pages_back(pages: Segments) -> None:
    """Results stay when their pool is closed; each gives its pages back by itself."""
    one, two = (pages.copy(memoryview(b"z" * MIB)) for _ in range(2))
    view = one.view(one.start, MIB)
    del one
    pages.close()
    assert bytes(view[:1]) == b"z"
    del view
    assert pages.resident() == MIB
    with pytest.raises(SharedMemoryError, match="shut down"):
        pages.allocate(1)
    del two
    assert pages.resident() == 0


def test_no_room_is_an_error_before_the_kernel_kills(
    pages: Segments, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A memfd has no limit, and pages that can't be had kill."""
    monkeypatch.setattr(headroom, "available", lambda: 100 * MIB)
    with pytest.raises(SharedMemoryError, match="aren't available"):
        pages.allocate(64 * MIB)
    assert pages.allocate(MIB).size == MIB


def test_available_memory_is_less_than_the_machines() -> None:
    """A plausible number."""
    free = headroom.available()
    assert free is not None and 0 < free < os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE


def test_a_limit_of_address_space_is_an_error_that_names_it() -> None:
    """`ulimit -v`: smaller segments first, then the error."""
    pid = os.fork()
    if not pid:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
        resource.setrlimit(resource.RLIMIT_AS, (used + 200 * MIB, -1))
        pages = Segments(share_from=4096)
        fine = pages.copy(memoryview(bytes(MIB))).size == MIB
        try:
            pages.allocate(600 * MIB)
        except SharedMemoryError as error:
            fine = fine and "ulimit -v" in str(error)
        os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_segment_can_not_be_cut_off(pages: Segments) -> None:
    """Else its readers would die of SIGBUS."""
    with pytest.raises(PermissionError):
        os.ftruncate(pages.allocate(1).segment.fd, 0)


def test_clean_pages_are_told_from_written_ones() -> None:
    """Reading leaves a page as it was; one written byte doesn't."""
    fd = os.memfd_create("skyward-test")
    os.ftruncate(fd, 64 * 4096)
    mapping = map_private(fd, 64 * 4096)
    os.close(fd)
    where = address(mapping)
    assert is_clean(where, 64 * 4096)
    assert sum(mapping[:]) == 0 and is_clean(where, 64 * 4096)
    mapping[33 * 4096 + 5] = 1
    assert not is_clean(where, 64 * 4096)
    assert is_clean(where + 100, 32 * 4096) and not is_clean(where + 33 * 4096 + 7, 1)
    assert mapping.madvise(mmap.MADV_DONTNEED) is None and is_clean(where, 64 * 4096)


def test_a_form_refers_to_what_is_shared_and_unwritten(pages: Segments) -> None:
    """An array over a range goes by reference, also a part of it; once written to, it is copied."""
    array = form_of(np.arange(4096.0), pages).load()
    piece = form_of(array, pages).parts[1]
    assert isinstance(piece, Piece) and piece.range is pages.find(address(memoryview(array)), 1)
    part = form_of(array[2048:], pages).parts[1]
    assert isinstance(part, Piece) and part.start == piece.start + 8 * 2048
    array[7] = -1
    other = form_of(array, pages).parts[1]
    assert isinstance(other, Piece) and other.range is not piece.range
    assert form_of(array[2048:], pages).parts[1] == part  # its own pages are as they were


def test_private_views_are_writable_and_seen_by_nobody(pages: Segments) -> None:
    """One after the other and at once; the form stays as it was made."""
    views, form = PrivateViews(), form_of(np.zeros(10_000), pages)
    one, two = views.load(form), views.load(form)
    one += 1
    two += 2
    assert form.load().max() == 0 and one.min() == 1 and two.max() == 2
    del one, two
    assert views.load(form).max() == 0


def test_views_of_a_fork_stay_when_the_range_is_dropped(pages: Segments) -> None:
    """The forked process reads what it was given, though everybody else has let go and others write."""
    form = form_of(np.full(10_000, 7.0), pages)
    array = PrivateViews().load(form)
    go, said = os.pipe(), os.pipe()
    pid = os.fork()
    if not pid:
        os.read(go[0], 1)
        os.write(said[1], b"y" if (array == 7).all() else b"n")
        os.kill(os.getpid(), signal.SIGKILL)
    del form, array
    gc.collect()
    others = [form_of(np.zeros(10_000), pages) for _ in range(10)]
    os.write(go[1], b"!")
    assert os.read(said[0], 1) == b"y" and others
    os.waitpid(pid, 0)
    for fd in (*go, *said):
        os.close(fd)


def test_another_process_of_the_machine_reads_a_range(pages: Segments) -> None:
    """It opens the segment by its whereabouts; what is elsewhere, or is something else, is refused."""
    taken = pages.copy(memoryview(b"what is shared" * MIB))
    boot, pid, fd, device, inode = where = whereabouts(taken.segment)
    found, start = range_of(taken.view(taken.start + 5, 100)) or (None, 0)
    assert (found, start) == (taken, taken.start + 5)
    assert range_of(memoryview(b"private")) is None
    opened = open_neighbour(where)
    assert opened is not None
    buffer = bytearray(9)
    read_into(opened, start, memoryview(buffer))
    assert buffer == b"is shared"
    os.close(opened)
    for other in (
        ("another machine", pid, fd, device, inode),
        (boot, 2**22 + 1, fd, device, inode),  # no process has such an id
        (boot, pid, fd, device, 0),
        (boot, pid, 10**6, device, inode),
    ):
        assert open_neighbour(other) is None
