"""How ranks agree: one small message a call, in which each says whether it refuses, and what it is about to do."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import numpy as np
from mpi4py import MPI

from fallline._step.calls.alone import Skipped

__all__ = ["About", "Agreement"]

T = TypeVar("T")
About = tuple[tuple[str, Any], ...]  # what a rank is about to do: what must be the same on all, by name

FINE, SKIPS, REFUSES = range(3)
LEAST = np.iinfo(np.int64).min


class Agreement:
    """The word of one rank among those of a communicator.

    What is acted `together` is a call of all ranks. As long as its word is `open`, others may wait for it: an error
    that arises then is told to them, and all raise it. An agreement is one allreduce (MAX) of three numbers: the worst
    that any rank says, and a digest of what it is about with its negative, which show whether it is the same for all.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        self.comm, self.rank, self.size = comm, comm.rank, comm.size
        self._acting, self.open = False, False

    def together(self, act: Callable[..., T], *given: Any) -> T:
        """act(*given), which all ranks do; within another call it is a part of that."""
        if self._acting:
            return act(*given)
        self._acting = self.open = True
        try:
            result = act(*given)
            if self.open:
                self.agree((("call", "one that is done"),))
            return result
        except Exception as error:
            if not self.open:
                raise
            self._refuse(error)
        finally:
            self._acting = self.open = False

    def each(self, act: Callable[..., T], *given: Any) -> list[T]:
        """What act(*given) returns, of all by rank."""
        if self._acting:
            return self._each(act, *given)

        def whole() -> list[T]:
            found = self._each(act, *given)
            self.open = False
            return found

        return self.together(whole)

    def _each(self, act: Callable[..., T], *given: Any) -> list[T]:
        result = act(*given)
        self.agree((("call", getattr(act, "__qualname__", "")),))
        found = list(self.comm.allgather(result))
        self.open = True
        return found

    def agree(self, about: About, skips: bool = False) -> None:
        """Go on, if no rank refuses; raises what the first did that does, Skipped if one skips, and ValueError if they
        are not about the same. Nobody waits for this rank's word then; if its call goes on, it is to be `open` again
        after what all have agreed to do."""
        worst, same = self._tell(SKIPS if skips else FINE, _digest(about))
        if worst == REFUSES:
            self._raise(None)
        if not same:
            raise ValueError(_difference(self.comm.allgather(about)))
        if worst == SKIPS:
            raise Skipped

    def _tell(self, status: int, digest: int | None) -> tuple[int, bool]:
        """The worst status of all ranks, and whether all that are about something have the same digest."""
        self.open = False  # if this fails there is nobody to tell
        said = np.array([status, *((LEAST, LEAST) if digest is None else (digest, -digest))], np.int64)
        self.comm.Allreduce(MPI.IN_PLACE, said, MPI.MAX)
        worst, high, low = said.tolist()
        return worst, high == -low

    def _refuse(self, error: Exception) -> NoReturn:
        """Have all raise an error."""
        if self.size == 1:
            raise error
        self._tell(REFUSES, None)
        self._raise(error)

    def _raise(self, own: Exception | None) -> NoReturn:
        told = self.comm.allgather(None if own is None else _told(own))
        rank = next(k for k, error in enumerate(told) if error is not None)
        raise _again(rank, *told[rank]) from own


def _digest(about: About) -> int:
    found = hashlib.blake2b(repr(about).encode(), digest_size=8).digest()
    return int.from_bytes(found, "little") >> 2


def _difference(every: list[About]) -> str:
    """How the first rank that is about something else than rank 0 differs."""
    other = next(k for k, about in enumerate(every) if about != every[0])
    first, theirs = dict(every[0]), dict(every[other])
    name = next(name for name in [*first, *theirs] if first.get(name) != theirs.get(name))
    return (f"All ranks must make the same calls, and here they differ in their {name}: {first.get(name, 'none')} on "
            f"rank 0, {theirs.get(name, 'none')} on rank {other}. Nothing was changed.")


def _told(error: Exception) -> tuple[str, str, str, tuple[str, ...]]:
    """An error so that others can make it again: the nearest of its classes that all have, its text, its leaves."""
    kind = next(kind for kind in type(error).__mro__ if kind.__module__ in ("builtins", "fallline.errors"))
    text = str(error) if type(error) is kind and str(error) else f"{type(error).__name__}: {error}"
    return kind.__module__, kind.__name__, text, getattr(error, "paths", ())


def _again(rank: int, module: str, name: str, text: str, paths: tuple[str, ...]) -> Exception:
    kind, text = getattr(importlib.import_module(module), name), f"On rank {rank}: {text}"
    try:
        return kind(text, paths) if paths else kind(text)
    except TypeError:  # of a class that wants more
        return RuntimeError(text)
