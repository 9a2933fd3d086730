"""Pages of mappings: views that keep an object alive, detection of writes, and holes.

Nothing here knows what the pages mean.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import pickle
import struct
from typing import Any

PAGE = mmap.PAGESIZE
#: Not in the mmap module: no swap is set aside for a private mapping that may never be written to.
_MAP_NORESERVE = 0x4000
#: Most bytes that one system call writes, on Linux.
_LONGEST_WRITE = 0x7FFFF000
_KEEP_SIZE, _PUNCH_HOLE = 1, 2
#: Map the pages that the file has, without writing to them (Linux 5.14).
_MADV_POPULATE_READ = 22

#: ioctl of /proc/self/pagemap (Linux 6.7): which pages are of which kinds.
_PAGEMAP_SCAN = 0xC0606610
_SCAN_ARGUMENT = struct.Struct("<12Q")
_SCAN_RESULT = 24  # bytes of one struct page_region
_FILE, _PRESENT, _SWAPPED = 1 << 2, 1 << 3, 1 << 4
#: Values of the highest byte of a pagemap entry if the page isn't the process's own: neither present (bit 7)
#: nor swapped (bit 6), or of a file (bit 5).
_CLEAN = bytes(top for top in range(256) if not top & 0xC0 or top & 0x20)


def rounded(size: int) -> int:
    """The size in whole pages, in bytes; at least one."""
    return max(1, -(-size // PAGE)) * PAGE


def map_private(fd: int, size: int, offset: int = 0) -> mmap.mmap:
    """Map a file readable and writable: nobody else sees what is written."""
    flags = mmap.MAP_PRIVATE | _MAP_NORESERVE
    return mmap.mmap(fd, size, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)


def view(mapping: mmap.mmap, start: int, size: int, keep: object) -> memoryview:
    """A writable view; what is built on it keeps `keep` alive.

    A slice of a memoryview would not: whatever takes its buffer holds on to the mapping instead.
    """
    if not size:
        return memoryview(bytearray())
    exporter: Any = (ctypes.c_ubyte * size).from_buffer(mapping, start)
    exporter.keep = keep
    return pickle.PickleBuffer(exporter).raw()


class _Buffer(ctypes.Structure):
    """Py_buffer."""

    _fields_ = [
        ("buf", ctypes.c_void_p),
        ("obj", ctypes.py_object),
        ("len", ctypes.c_ssize_t),
        ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int),
        ("ndim", ctypes.c_int),
        ("format", ctypes.c_char_p),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("suboffsets", ctypes.c_void_p),
        ("internal", ctypes.c_void_p),
    ]


def address(buffer: Any) -> int:
    """The address of a buffer's bytes; the buffer may be read-only."""
    found = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(buffer), ctypes.byref(found), 0)
    where = found.buf or 0
    ctypes.pythonapi.PyBuffer_Release(ctypes.byref(found))
    return where


def is_clean(where: int, size: int) -> bool:
    """Whether no page of the private mapping there has been written to; False if that can't be found out."""
    first = where - where % PAGE
    length = rounded(where + size - first)
    try:
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return _scan(pagemap, first, length)
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):  # this kernel has no such call
            raise
        return _read(pagemap, first, length)
    finally:
        os.close(pagemap)


def _scan(pagemap: int, first: int, length: int) -> bool:
    """Whether no page that is present or swapped is the process's own; stops at the first that is."""
    result = ctypes.create_string_buffer(_SCAN_RESULT)
    # struct pm_scan_arg: size, flags, start, end, walk_end, vec, vec_len, max_pages, category_inverted,
    # category_mask, category_anyof_mask, return_mask
    argument = _SCAN_ARGUMENT.pack(
        _SCAN_ARGUMENT.size,
        0,
        first,
        first + length,
        0,
        ctypes.addressof(result),
        1,
        1,
        _FILE,
        _FILE,
        _PRESENT | _SWAPPED,
        _FILE,
    )
    found: int = fcntl.ioctl(pagemap, _PAGEMAP_SCAN, bytearray(argument))
    return not found


def _read(pagemap: int, first: int, length: int) -> bool:
    wanted = length // PAGE * 8
    entries = os.pread(pagemap, wanted, first // PAGE * 8)
    return len(entries) == wanted and not entries[7::8].translate(None, _CLEAN)


def forget_writes(mapping: mmap.mmap, start: int, size: int) -> None:
    """Have a private mapping show the file's pages again."""
    mapping.madvise(mmap.MADV_DONTNEED, start, size)


def populate(mapping: mmap.mmap, start: int, size: int) -> None:
    """Map pages that exist, all at once: a fault for each would cost several times as much."""
    try:
        mapping.madvise(_MADV_POPULATE_READ, start, size)
    except OSError:
        return  # an older kernel: they are mapped one by one


def write_all(fd: int, start: int, data: memoryview) -> None:
    """Write into a file; other threads run meanwhile."""
    position = 0
    while position < data.nbytes:
        piece = data[position : position + _LONGEST_WRITE]
        position += os.pwrite(fd, piece, start + position)


def punch(fd: int, start: int, size: int) -> None:
    """Give pages of a file back to the system; they read as zeros from now on."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = ctypes.c_long(start), ctypes.c_long(size)
    if libc.fallocate(fd, _PUNCH_HOLE | _KEEP_SIZE, *arguments):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
