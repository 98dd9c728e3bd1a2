"""The digests of files, of bytes that come in pieces while they are written or read; by several threads in format 2."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["DIGEST", "PIECE", "in_pieces", "of_all", "of_pieces"]

DIGEST = 32  # bytes that a digest has
PIECE = 1 << 22  # bytes: part of format 2
THREADS = min(4, os.cpu_count() or 1)  # that hash: as many as keep up with a disk


def in_pieces(blocks: Iterable[Any], take: Callable[[memoryview], Any]) -> Iterator[list[Any]]:
    """The bytes of the blocks, end to end, in pieces of PIECE bytes: lists of what `take` returns for each part."""
    piece, room = [], PIECE
    for block in blocks:
        rest = memoryview(block)
        while len(rest):
            piece.append(take(rest[:room]))
            room, rest = room - len(piece[-1]), rest[room:]
            if not room:
                yield piece
                piece, room = [], PIECE
    if piece:
        yield piece


def of_all(pieces: Iterable[list[Any]]) -> bytes:
    """Format 1: the SHA-256 of all bytes."""
    digest = hashlib.sha256()
    for piece in pieces:
        for part in piece:
            digest.update(part)
    return digest.digest()


def of_pieces(pieces: Iterable[list[Any]]) -> bytes:
    """Format 2: the SHA-256 of the SHA-256s of the pieces, end to end; no more than a few are held at a time."""
    digest, hashing = hashlib.sha256(), deque[_Hashing]()
    for piece in pieces:
        hashing.append(_Hashing(piece))
        if len(hashing) > THREADS:
            digest.update(hashing.popleft().digest())
    for last in hashing:
        digest.update(last.digest())
    return digest.digest()


class _Hashing(threading.Thread):
    """The digest of one piece, by a thread that ends with it: none is left at rest, at exit or to a forked child."""

    def __init__(self, piece: list[Any]) -> None:
        super().__init__()
        self._piece, self._found = piece, b""
        if sum(map(len, piece)) == PIECE:  # a small file needs no threads
            with contextlib.suppress(RuntimeError):  # there are none at the interpreter's end, or too many already
                self.start()

    def run(self) -> None:
        self._found = of_all([self._piece])

    def digest(self) -> bytes:
        with contextlib.suppress(RuntimeError):  # it was not started
            self.join()
        return self._found or of_all([self._piece])
