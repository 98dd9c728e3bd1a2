"""Where arrays lie in memory, and whether they share any of it."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np

__all__ = ["address", "arena", "byte_range", "check_disjoint", "empty", "is_direct", "overlapping", "places",
           "self_overlapping"]  # fmt: skip

def is_direct(array: np.ndarray) -> bool:
    """Whether a kernel can run on the array's memory as it lies."""
    flags = array.flags
    return flags.c_contiguous and flags.aligned and array.dtype.isnative


def empty(shape: tuple[int, ...], dtype: np.dtype, order: Sequence[int] | None = None) -> np.ndarray:
    """A new array whose axes lie in memory in this order, outermost first; C's if none is given."""
    if order is None:
        return np.empty(shape, dtype)
    return np.empty([shape[j] for j in order], dtype).transpose(np.argsort(order))


# The data pointer is the first member of NumPy's public array struct, behind the object's header. Reading it there
# costs a tenth of `array.ctypes.data`; it is read anew for every call, as arrays can be resized.
_HEADER = object.__basicsize__


def _read_pointer(array: np.ndarray) -> int:
    return ctypes.c_void_p.from_address(id(array) + _HEADER).value or 0


def _ask_numpy(array: np.ndarray) -> int:
    return array.ctypes.data


_PROBE = np.arange(2.0)
_READABLE = sys.implementation.name == "cpython" and _read_pointer(_PROBE) == _PROBE.ctypes.data
address: Callable[[np.ndarray], int] = _read_pointer if _READABLE else _ask_numpy
"""Where an array's first element lies."""


def places(leaves: Sequence[Any]) -> list[tuple[int, tuple[int, ...]]]:
    """Where those leaves that are NumPy's arrays lie, and their shapes: both change when one is resized in place."""
    return [(address(leaf), leaf.shape) for leaf in leaves if isinstance(leaf, np.ndarray)]


_LINE = 64  # bytes of a cache line, where each array of an arena starts


def arena(shapes: Sequence[tuple[int, ...]], dtypes: Sequence[np.dtype],
          directory: Any = None) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """One flat array for each dtype, and in these the arrays of the given shapes and dtypes, all zero.

    They lie in memory, or in files of that directory that vanish with them; raises OSError if it has no room.
    """
    taken: dict[np.dtype, int] = {}
    places = []
    for shape, dtype in zip(shapes, dtypes):
        start = taken.get(dtype, 0)
        size = math.prod(shape)
        places.append((start, start + size))
        line = _LINE // dtype.itemsize
        taken[dtype] = start + -(-size // line) * line
    zeros = np.zeros if directory is None else partial(_in_file, directory)
    flat = {dtype: zeros(size, dtype) for dtype, size in taken.items()}
    return list(flat.values()), [flat[dtype][start:stop].reshape(shape)
                                 for (start, stop), shape, dtype in zip(places, shapes, dtypes)]


def _in_file(directory: Any, size: int, dtype: np.dtype) -> np.ndarray:
    """A flat array of zeros in a file without a name; its room is taken now, as a full disk would later be a signal."""
    import mmap
    import tempfile

    length = max(size * dtype.itemsize, 1)  # of which no mapping can be empty
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            _take_room(file, length)
            return np.frombuffer(mmap.mmap(file.fileno(), length), dtype, size)
    except OSError as error:
        raise OSError(error.errno, f"No {length:,} bytes of state could be put into the folder {str(directory)!r} "
                                   f"(state_dir): {error.strerror}") from error


def _take_room(file: Any, length: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, length)
        return
    for start in range(0, length, _BLOCK):
        file.write(bytes(min(_BLOCK, length - start)))
    file.flush()


_BLOCK = 1 << 20  # bytes that are written at a time


def byte_range(array: np.ndarray) -> tuple[int, int]:
    """The addresses of an array's first byte and of the byte behind its last."""
    start = address(array)
    if array.flags.c_contiguous:
        return start, start + array.nbytes
    from numpy.lib.array_utils import byte_bounds

    low, high = byte_bounds(array)
    return int(low), int(high)


def overlapping(array: np.ndarray, others: Sequence[tuple[int, int, np.ndarray]]) -> bool:
    """Whether an array shares an element with one of `others` (byte range and array)."""
    low, high = byte_range(array)
    return any(start < high and low < stop and _share(array, other) for start, stop, other in others)


def _share(a: np.ndarray, b: np.ndarray) -> bool:
    if a.flags.c_contiguous and b.flags.c_contiguous:
        return a.size > 0 and b.size > 0
    try:
        return bool(np.shares_memory(a, b, max_work=cast(Any, 100_000)))
    except np.exceptions.TooHardError:
        return True  # rather refuse two arrays that may be disjoint than tear one


def check_disjoint(arrays: Sequence[np.ndarray], names: Sequence[str], written: int | None = None) -> None:
    """Refuse arrays that share an element, with each other or within one array.

    `w[:, 0]` and `w[:, 1]` share none, though their byte ranges overlap. Only the first so many are `written` (None:
    all); those behind them, which are read, may share among themselves.
    """
    written = len(arrays) if written is None else written
    for array, name in zip(arrays[:written], names):
        if self_overlapping(array):
            raise ValueError(f"{name} overlaps itself (indices share an element, as in a broadcast view): pass a copy.")
    ranges = sorted((*byte_range(a), k) for k, a in enumerate(arrays))
    open_: list[tuple[int, int, int]] = []
    for low, high, k in ranges:
        open_ = [r for r in open_ if r[1] > low]
        for _, _, other in open_:
            if min(k, other) < written and _share(arrays[k], arrays[other]):
                first, second = sorted((k, other))
                same = address(arrays[k]) == address(arrays[other]) and arrays[k].size == arrays[other].size
                raise ValueError(f"{names[first]} and {names[second]} "
                                 f"{'are the same memory' if same else 'overlap in memory'}: a step would apply twice. "
                                 "Pass each parameter once.")
        open_.append((low, high, k))


def self_overlapping(array: np.ndarray) -> bool:
    """Whether two indices of one array may mean the same element."""
    if array.flags.c_contiguous or array.size == 0:
        return False
    reach = array.itemsize
    for stride, length in sorted((abs(s), n) for s, n in zip(array.strides, array.shape) if n > 1):
        if stride < reach:
            return True
        reach += stride * (length - 1)
    return False
