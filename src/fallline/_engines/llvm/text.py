"""Pieces that several native functions are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fallline._engines.llvm.compiler import on_x86
from fallline._engines.llvm.function import Function, Value
from fallline._engines.llvm.layout import LAYOUT, ROW

__all__ = ["CHUNK", "chunks", "moving", "parts", "pinned"]

CHUNK = 16384  # coordinates that are checked or stepped at a time


@contextmanager
def chunks(f: Function) -> Iterator[tuple[Value, Value, Value]]:
    """The loop of a function (row_of, offset_of, first, last) over chunks of a job: of each its leaf's row, its offset
    in the leaf and its size (≤ 0: nothing)."""
    row_of, offset_of, first, last = f.arguments
    with f.loop(last, start=first) as k:
        row, offset = row_of.load("ptr", k), offset_of.load(index=k)
        yield row, offset, (row.load(index=ROW["length"]) - offset).least(CHUNK)


@contextmanager
def parts(f: Function, offset: Value, n: Value, size: int) -> Iterator[tuple[Value, Value]]:
    """A loop over n coordinates from an offset on, at most so many at a time: the first of them, and how many."""
    with f.loop(n, step=size) as done:
        yield offset + done, (n - done).least(size)


def moving(f: Function, row: Value) -> Callable[..., Value]:
    """What calls `fetch` or `store` of `strided.move` for one of a row's arrays:
    (which, name, base, start, n, buffer)."""
    layout = row.load("ptr", ROW["layout"])
    nd, shape = layout.words(LAYOUT, "nd *shape")
    return lambda which, name, *more: f.call("void", which, nd, shape, layout.load("ptr", LAYOUT[name]), *more)


@contextmanager
def pinned(f: Function) -> Iterator[None]:
    """Round to nearest and keep subnormals meanwhile.

    Another library may have set this thread otherwise (torch.set_flush_denormal); it gets its mode back.
    """
    if not on_x86():
        yield
        return
    found, ours = f.room("i32", align=4), f.room("i32", align=4)
    f.intrinsic("void", "x86.sse.stmxcsr", found)
    ours.store(f.value(0x1F80, "i32"))
    f.intrinsic("void", "x86.sse.ldmxcsr", ours)
    yield
    f.intrinsic("void", "x86.sse.ldmxcsr", found)
