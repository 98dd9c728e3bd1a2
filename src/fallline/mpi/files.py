"""One file that all ranks write and read: each its own part of every array, with the bytes that one process writes.

A file's digest is one of pieces of 4 MiB. Each piece is put together, hashed and written by the rank that has its first
byte, to which the others send theirs: no two ranks write to one place, whatever the file system makes of that.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedReader
from typing import Any, NamedTuple

import numpy as np
from mpi4py import MPI

from fallline._state.digests import PIECE, in_pieces, of_all
from fallline._state.file import Digest, Path, bytes_of, mapped, opened, permissions, unfinished
from fallline._step.calls.alone import Alone
from fallline.errors import CheckpointError

__all__ = ["Segment", "read", "write"]

PENDING = 4  # pieces that a rank may have on their way to others


class Segment(NamedTuple):
    """Bytes of a file that one rank has: those of an array, "" the header, from `offset` on in what it has of that."""

    rank: int
    start: int
    stop: int
    name: str


def write(others: Alone, comm: MPI.Comm, path: Path, header: bytes, segments: Sequence[Segment],
          arrays: Mapping[str, Any]) -> None:
    """Write a file in place of another; `segments` lie end to end behind the header, which is rank 0's.

    Raises CheckpointError on all ranks if one cannot write; the old file is then untouched.
    """
    target = others.once(os.path.realpath, path)
    temporary, mode = others.once(_begun, path, target)
    try:
        digests, file = _written(comm, path, temporary, [Segment(0, 0, len(header), ""), *segments], header, arrays)
        every = {number: found for own in others.each(_flushed, file, digests) for number, found in own.items()}
        digest = of_all([[every[number] for number in sorted(every)]])
        others.once(_finished, path, target, temporary, mode, digest)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise


def _begun(path: Path, target: str) -> tuple[str, int | None]:
    """A new file to write, and the permission bits of the one that is there."""
    with _telling(path):
        mode, temporary = permissions(target), unfinished(target)
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        return temporary, mode


def _written(comm: MPI.Comm, path: Path, temporary: str, segments: Sequence[Segment], header: bytes,
             arrays: Mapping[str, Any]) -> tuple[dict[int, bytes], Callable[[], None]]:
    """Write this rank's pieces; their digests by number, and what sees to it that they are on disk, or raises what went
    wrong: the others are served first."""
    found: dict[int, bytes] = {}
    sent: deque[tuple[MPI.Request, Any]] = deque()
    own = _Bytes(comm.rank, header, arrays)
    with contextlib.ExitStack() as stack:
        wrong: list[OSError] = []
        try:
            file = stack.enter_context(open(temporary, "r+b", buffering=0))
        except OSError as error:
            wrong.append(error)
        for number, inside in _pieces(segments):
            ranks = list(dict.fromkeys(segment.rank for segment in inside))
            if comm.rank not in ranks:
                continue
            if comm.rank != ranks[0]:
                part = np.concatenate([own.of(segment) for segment in inside if segment.rank == comm.rank])
                sent.append((comm.Isend([part, part.nbytes, MPI.BYTE], ranks[0]), part))
                if len(sent) > PENDING:
                    sent.popleft()[0].Wait()
                continue
            piece = _put_together(comm, inside, ranks[1:], own)
            found[number] = of_all([[piece.data]])
            if not wrong:
                try:
                    file.seek(number * PIECE)
                    _write_all(file, piece)
                except OSError as error:
                    wrong.append(error)
        MPI.Request.Waitall([request for request, _ in sent])
        kept = stack.pop_all()

    def flushed() -> None:
        with kept, _telling(path):
            for error in wrong:
                raise error
            os.fsync(file.fileno())

    return found, flushed


def _flushed(flush: Callable[[], None], digests: dict[int, bytes]) -> dict[int, bytes]:
    flush()
    return digests


def _finished(path: Path, target: str, temporary: str, mode: int | None, digest: bytes) -> None:
    """Put the file in its place, with its digest."""
    with _telling(path), opened(os.path.dirname(target)) as place:
        with open(temporary, "r+b") as file:
            file.seek(0, os.SEEK_END)
            file.write(digest)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
        if place is not None:
            os.fsync(place)


def _write_all(file: Any, piece: np.ndarray) -> None:
    rest = piece.data
    while len(rest):
        rest = rest[file.write(rest) :]


def _put_together(comm: MPI.Comm, inside: Sequence[Segment], senders: Sequence[int], own: _Bytes) -> np.ndarray:
    """A piece of these segments, with the bytes of other ranks."""
    sizes = {r: sum(segment.stop - segment.start for segment in inside if segment.rank == r) for r in senders}
    coming = {r: np.empty(size, np.uint8) for r, size in sizes.items()}
    MPI.Request.Waitall([comm.Irecv([part, part.nbytes, MPI.BYTE], r) for r, part in coming.items()])
    parts = []
    for segment in inside:
        if segment.rank == comm.rank:
            parts.append(own.of(segment))
            continue
        length = segment.stop - segment.start
        parts.append(coming[segment.rank][:length])
        coming[segment.rank] = coming[segment.rank][length:]
    return np.concatenate(parts)


def _pieces(segments: Sequence[Segment]) -> Iterator[tuple[int, list[Segment]]]:
    """The pieces of a file by number, each with the parts of segments that it is made of."""
    number, inside = 0, []
    for segment in segments:
        start = segment.start
        while start < segment.stop:
            end = min(segment.stop, (number + 1) * PIECE)
            inside.append(segment._replace(start=start, stop=end))
            start = end
            if start == (number + 1) * PIECE:
                yield number, inside
                number, inside = number + 1, []
    if inside:
        yield number, inside


class _Bytes:
    """The bytes of this rank's segments, which are asked for in order: those of one array at a time are at hand."""

    def __init__(self, rank: int, header: bytes, arrays: Mapping[str, Any]) -> None:
        self._rank, self._arrays = rank, arrays
        self._name, self._now, self._at = "", np.frombuffer(header, np.uint8), 0

    def of(self, segment: Segment) -> np.ndarray:
        if segment.name != self._name:
            self._name, self._now, self._at = segment.name, bytes_of(self._arrays[segment.name]), 0
        start, self._at = self._at, self._at + segment.stop - segment.start
        return self._now[start : self._at]


@contextlib.contextmanager
def _telling(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{path} could not be written ({error.strerror or error}); nothing there was changed. "
                              "All ranks need to reach the same file.") from error


def read(others: Alone, rank: int, size: int, path: Path) -> tuple[Any, dict[str, np.ndarray]]:
    """The info and the arrays of a file, which lie in it; each rank checks its share of the pieces.

    Raises FileNotFoundError if there is none, CheckpointError for anything else that is wrong with it.
    """

    def digested(file: BufferedReader, length: int, digest: Digest) -> bytes:
        pieces = -(-length // PIECE)
        if digest is of_all:  # of one stream, which nobody can share
            return others.once(_all, file, length)
        mine = range(pieces * rank // size, pieces * (rank + 1) // size)
        shares = others.each(_digests, file, length, mine)
        return of_all([[found] for own in shares for found in own])

    return mapped(path, digested)


def _digests(file: BufferedReader, length: int, numbers: range) -> list[bytes]:
    return [of_all([[_piece(file, length, number)]]) for number in numbers]


def _piece(file: BufferedReader, length: int, number: int) -> bytes:
    file.seek(number * PIECE)
    return file.read(min(PIECE, length - number * PIECE))


def _all(file: BufferedReader, length: int) -> bytes:
    return of_all(in_pieces((_piece(file, length, number) for number in range(-(-length // PIECE))), lambda part: part))
