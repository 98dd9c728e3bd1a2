"""One file of named arrays in the safetensors format, replaced whole or not at all, with a digest over all of it.

The format (github.com/huggingface/safetensors) is a length of 8 bytes, a header of JSON, the arrays end to end. It is
written here and not by its library, which needs all arrays in host memory at once, knows no complex128, cannot read
bfloat16 into NumPy and writes arrays that are not in C order wrongly; complex numbers are stored as pairs of reals.

The header begins with the number of the format. The last array, "digest", is of every byte before it: in format 1 the
SHA-256, in format 2 the SHA-256 of the SHA-256s, end to end, of pieces of 4 MiB, the last of which may be shorter. So
several threads can compute it, and ranks that each know a part of the file.
"""

from __future__ import annotations

import contextlib
import glob
import itertools
import json
import math
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from io import BufferedReader, BufferedWriter
from typing import Any, NamedTuple

import numpy as np

from fallline._arrays.dtypes import COMPLEX, DTYPES, dtype_named
from fallline._arrays.leaves import dtype_name, host
from fallline._state.digests import DIGEST, PIECE, in_pieces, of_all, of_pieces
from fallline.errors import CheckpointError

__all__ = ["CODES", "READERS", "SIZES", "VERSION", "Digest", "Path", "bytes_of", "guarding", "header_of", "mapped",
           "opened", "permissions", "read", "sweep", "unfinished", "write"]  # fmt: skip

VERSION = 2  # of the format that is written
CODES = {name: row.code for name, row in DTYPES.items()} | {
    "int64": "I64", "int32": "I32", "uint8": "U8", "bool": "BOOL"}  # fmt: skip
SIZES = {row.code: row.size for row in DTYPES.values()} | {"I64": 8, "I32": 4, "U8": 1, "BOOL": 1}
LARGEST_HEADER = 100_000_000  # bytes, as in the safetensors library

Path = str | os.PathLike[str]
Digest = Callable[[Iterable[list[Any]]], bytes]  # of pieces, each a list of parts


# ---- writing ---------------------------------------------------------------------------------------------------------


def write(path: Path, info: Any, arrays: Mapping[str, Any]) -> None:
    """Write arrays of any library, and `info`, which JSON must take; the old file stays until the new one is on disk.

    A link is followed, and the old file's permission bits are kept. Arrays go to the file one by one.

    Raises CheckpointError if it cannot be written, from the OSError that says why; the old file is then untouched.
    """
    header, names = header_of(info, {name: (dtype_name(a), np.shape(a)) for name, a in arrays.items()})
    target = os.path.realpath(path)
    try:
        with _replacing(target) as file:
            blocks = itertools.chain([header], (bytes_of(arrays[name]) for name in names))
            file.write(of_pieces(in_pieces(blocks, partial(_written, file))))
    except OSError as error:
        raise CheckpointError(f"{path} could not be written ({error.strerror or error}); nothing there was "
                              "changed.") from error


def header_of(info: Any, arrays: Mapping[str, tuple[str, tuple[int, ...]]]) -> tuple[bytes, list[str]]:
    """The length and the header, which ends at a multiple of 8, for arrays of these dtypes and shapes, and in which
    order these follow, end to end; raises TypeError for dtypes that it cannot hold."""
    for name, (dtype, _) in arrays.items():
        if dtype not in CODES:
            raise TypeError(f"A checkpoint holds arrays of {', '.join(CODES)}. {name!r} is of {dtype}.")
    arrays = dict(sorted(arrays.items(), key=lambda item: -SIZES[CODES[item[1][0]]]))  # so that none lies unaligned
    pairs = {name: dtype for name, (dtype, _) in arrays.items() if dtype in COMPLEX}
    entries: dict[str, Any] = {"__metadata__": {"fallline": str(VERSION), "complex": json.dumps(pairs),
                                                "info": json.dumps(info, allow_nan=False)}}
    start = 0
    for name, (dtype, shape) in arrays.items():
        code, stored = CODES[dtype], [*shape, 2] if name in pairs else list(shape)
        stop = start + math.prod(stored) * SIZES[code]
        entries[name] = {"dtype": code, "shape": stored, "data_offsets": [start, stop]}
        start = stop
    entries["digest"] = {"dtype": "U8", "shape": [DIGEST], "data_offsets": [start, start + DIGEST]}
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise ValueError(f"A checkpoint's header may have {LARGEST_HEADER:,} bytes. So many leaves need {len(text):,}.")
    return len(text).to_bytes(8, "little") + text, list(arrays)


def bytes_of(array: Any) -> Any:
    """The array's bytes in C order, least significant first."""
    plain = host(array)
    if plain.dtype.isnative != (sys.byteorder == "little"):
        plain = plain.byteswap()
    return np.ascontiguousarray(plain).reshape(-1).view(np.uint8)


def _written(file: BufferedWriter, part: memoryview) -> bytes:
    """A copy of what was written to the file, so that it is hashed whoever writes to the arrays meanwhile."""
    copy = bytes(part)
    file.write(copy)
    return copy


@contextlib.contextmanager
def _replacing(target: str) -> Iterator[BufferedWriter]:
    """A new file that takes the place of `target` once it is written and on disk; removed if anything goes wrong."""
    folder, temporary = os.path.dirname(target), unfinished(target)
    mode = permissions(target)
    with opened(folder) as place:
        handle, nameless = _new_file(folder, temporary)
        try:
            with os.fdopen(handle, "wb") as file:
                if mode is not None:
                    os.chmod(handle if nameless else temporary, mode)
                yield file
                file.flush()
                os.fsync(handle)
                if nameless:
                    _give_name(handle, place, temporary)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if place is not None:
            os.fsync(place)


def _new_file(folder: str, name: str) -> tuple[int, bool]:
    """A new file to write, and whether it is nameless: one that leaves nothing behind should the process be killed."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # not every file system has them
            return os.open(folder, os.O_RDWR | os.O_TMPFILE, 0o666), True
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666), False


def _give_name(handle: int, place: int | None, name: str) -> None:
    """Give a nameless file a name, or copy it to one where the system does not allow that."""
    try:  # (Python follows the link only where a folder's handle is given)
        os.link(f"/proc/self/fd/{handle}", name, dst_dir_fd=place, follow_symlinks=True)
    except OSError:
        with open(name, "xb") as copy:
            os.chmod(copy.fileno(), stat.S_IMODE(os.fstat(handle).st_mode))
            at = 0
            while piece := os.pread(handle, PIECE, at):
                at += copy.write(piece)
            copy.flush()
            os.fsync(copy.fileno())


@contextlib.contextmanager
def opened(folder: str) -> Iterator[int | None]:
    """The folder's handle, to write its entries to disk; opened first, so that this cannot fail in the end."""
    if os.name == "nt":  # where folders cannot be opened
        yield None
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


_UNFINISHED = ".unfinished"


def unfinished(target: str) -> str:
    """A name for a file that is to take the place of a target."""
    return f"{_start_of(target)}{os.urandom(8).hex()}{_UNFINISHED}"


def _start_of(target: str) -> str:
    """How the names of a target's unfinished files begin."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{name}.")


def sweep(path: Path) -> None:
    """Remove what writers of this file left unfinished that were killed; for its only writer."""
    start = _start_of(os.path.realpath(path))
    for left in glob.glob(f"{glob.escape(start)}*{_UNFINISHED}"):
        with contextlib.suppress(OSError):
            os.unlink(left)


def permissions(target: str) -> int | None:
    """The permission bits of the file that is there."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return None
    _check_regular(target, mode)
    return stat.S_IMODE(mode)


def _check_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise CheckpointError(f"{path} is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'} and no checkpoint.")


# ---- reading ---------------------------------------------------------------------------------------------------------


class _Entry(NamedTuple):
    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def read(path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """The info and the arrays of a file that `write` wrote; nothing of it is given out unless its digest fits.

    Raises FileNotFoundError if there is none, CheckpointError for anything else that is wrong with it. Memory is
    bounded by the size of the file.
    """
    try:
        with _found(path) as file:
            header, size = _head(path, file)
            digest = _digest_of(path, header[8:])
            return _read_checked(path, file, header, size, digest)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} could not be read ({error.strerror or error}).") from error


def mapped(path: Path, shared: Callable[[BufferedReader, int, Digest], bytes]) -> tuple[Any, dict[str, np.ndarray]]:
    """As `read`, with arrays that lie in the file, read when they are looked at. The digest of its first bytes is what
    `shared` finds, given the file, how many they are, and the function of pieces that makes it."""
    try:
        with _found(path) as file:
            header, size = _head(path, file)
            found = shared(file, size - DIGEST, _digest_of(path, header[8:]))
            every = np.memmap(file, np.uint8, "r")
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CheckpointError(f"{path} could not be read ({error.strerror or error}).") from error
    if found != every[size - DIGEST :].tobytes():
        raise _altered(path)
    with guarding(path):
        info, table = _laid_out(header, size)
        arrays = {e.name: np.asarray(every[len(header) + e.start : len(header) + e.stop]) for e in table}
        return info, {e.name: _native(arrays[e.name].view(e.dtype).reshape(e.shape)) for e in table}


def _native(array: np.ndarray) -> np.ndarray:
    return array if sys.byteorder == "little" else array.byteswap()


def _found(path: Path) -> BufferedReader:
    _check_regular(path, os.stat(path).st_mode)
    return open(path, "rb")


def _head(path: Path, file: BufferedReader) -> tuple[bytes, int]:
    """The length and the header of a file, and the size of the file."""
    size = os.fstat(file.fileno()).st_size
    prefix = file.read(8)
    length = int.from_bytes(prefix, "little")
    if size < 8 + DIGEST or length > min(size - 8 - DIGEST, LARGEST_HEADER):
        raise CheckpointError(f"{path} is no checkpoint, or a truncated one: in {size:,} bytes there is no room for "
                              "its header.")
    return prefix + file.read(length), size


def _digest_of(path: Path, header: bytes) -> Digest:
    """What makes the digest of files of the format that the header tells; were that altered, none would fit."""
    found = re.match(rb'\{"__metadata__":\{"fallline":"([0-9]{1,9})",', header)
    if not found:
        what = "a safetensors file of another program" if header[:1] == b"{" else "no checkpoint"
        raise CheckpointError(f"{path} is {what}: its header does not begin as fallline's do.")
    if int(found[1]) not in READERS:
        raise CheckpointError(f"{path} has the format {int(found[1])}; this version of fallline reads "
                              f"{' and '.join(map(str, READERS))}.")
    return READERS[int(found[1])]


def _read_checked(path: Path, file: BufferedReader, header: bytes, size: int, digest: Digest
                  ) -> tuple[Any, dict[str, np.ndarray]]:
    """The content behind a header, which was read, if the digest fits; read once: what is returned was hashed."""
    with guarding(path):
        wrong = None
        try:
            info, table = _laid_out(header, size)
            arrays = {entry.name: _array(entry) for entry in table}
            blocks: Iterable[Any] = (array.reshape(-1).view(np.uint8) for array in arrays.values())
        except Exception as error:  # which is only told of a file that is as it was written
            wrong, blocks = error, _scratch(size - len(header) - DIGEST)
        if digest(in_pieces(itertools.chain([header], blocks), partial(_filled, file))) != file.read():
            raise _altered(path)
        if wrong is not None:
            raise wrong
    return info, {name: _native(array) for name, array in arrays.items()}


def _altered(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} was altered or cut short: its content does not fit its digest. Take an older one.")


def _laid_out(header: bytes, size: int) -> tuple[Any, list[_Entry]]:
    """The info, and what lies behind the header, in that order, but the digest."""
    entries = json.loads(header[8:])
    metadata = entries.pop("__metadata__")
    table = _table(entries, json.loads(metadata["complex"]), size - len(header))
    last = table.pop()
    if (last.name, last.stop - last.start) != ("digest", DIGEST):
        raise ValueError("its digest does not lie at its end")
    return json.loads(metadata["info"]), table


def _scratch(size: int) -> Iterator[bytearray]:
    """So much memory, piece by piece."""
    for start in range(0, size, PIECE):
        yield bytearray(min(PIECE, size - start))


def _filled(file: BufferedReader, part: memoryview) -> memoryview:
    """Memory with what comes next in the file, unless it is the header."""
    if not part.readonly:
        file.readinto(part)
    return part


# By the number of the format. One that was ever written stays here: there may be such files.
READERS: dict[int, Digest] = {1: of_all, 2: of_pieces}


def _table(entries: Mapping[str, Any], pairs: Mapping[str, str], size: int) -> list[_Entry]:
    """Where the arrays lie, in order, end to end."""
    table = []
    for name, entry in entries.items():
        start, stop = entry["data_offsets"]
        shape = tuple(entry["shape"])
        if not all(type(n) is int and n >= 0 for n in (start, stop, *shape)):
            raise ValueError(f"{name!r} has no proper shape or place")
        if stop - start != math.prod(shape) * SIZES[entry["dtype"]]:
            raise ValueError(f"the size of {name!r} does not fit its shape")
        dtype = dtype_named(pairs.get(name) or next(n for n, code in CODES.items() if code == entry["dtype"]))
        if name in pairs and shape[-1:] != (2,):
            raise ValueError(f"{name!r} holds no pairs")
        table.append(_Entry(name, dtype, shape[:-1] if name in pairs else shape, start, stop))
    table.sort(key=lambda e: (e.start, e.stop))
    if [e.start for e in table] + [size] != [0, *(e.stop for e in table)]:
        raise ValueError("the arrays do not lie end to end")
    return table


def _array(entry: _Entry) -> np.ndarray:
    array = np.empty(entry.shape, entry.dtype)
    if array.nbytes != entry.stop - entry.start:
        raise ValueError(f"{entry.name!r} does not have the size of its dtype")
    return array


@contextlib.contextmanager
def guarding(path: Path) -> Iterator[None]:
    """Turn whatever comes of content that makes no sense into a CheckpointError."""
    try:
        yield
    except CheckpointError:
        raise
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (ArithmeticError, AttributeError, LookupError, RecursionError, StopIteration) as error:
        raise CheckpointError(f"{path} is not as fallline writes it ({type(error).__name__}: {error}).") from error
