"""How what native code reads lies in memory: records of 64-bit words, each word by its name.

Python writes these records, and native code reads them by the same names; nothing else says where a word stands.
"""

from __future__ import annotations

from collections.abc import Sequence

from fallline._formula.program import INCREMENT, Program

__all__ = ["ABSENT", "CLASS", "EXPECTED", "JOB", "LAYOUT", "LOOK", "POOL", "ROW", "STRIDED", "pass_columns",
           "row_width"]  # fmt: skip


def _words(*names: str) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}


ROW = _words("length", "layout", "g", "x", INCREMENT)
"""The beginning of a row, one for each leaf of a plan: how many reals it has, or ABSENT if it has no gradient; the
address of its layout (0: its arrays lie contiguously, all in the same order); the addresses of its gradient, parameter
and output. Behind stand the addresses of its state, slot by slot, and then, for each pass, that of the scalars, that of
the sums if the pass reads, and those of the scalars that differ by coordinate (see `pass_columns`)."""

ABSENT = -1
STRIDED = ("g", "x", INCREMENT)
"""The arrays that come from the caller and may lie in any way; the state lies as a row needs it."""

LAYOUT = _words("nd", "shape", *STRIDED, *(f"expected {name}" for name in STRIDED))
"""Of a leaf whose arrays are not all C-contiguous: the number of dimensions and the address of the shape; for each
array from outside the address of its strides, where kernels read them, and that of the strides which it must have
(0: any, and they are copied to where kernels read them, as an array's own may be freed while a step runs)."""

JOB = _words("kernels", "checks", "row_of", "offset_of", "packets", "n_packets", "next", "bad", "rows", "missed", "n",
             "counts", "n_counts", "copies", "n_copies")  # fmt: skip
"""Of each packet, the share that a thread takes at a time, its kernel and its finite check (0: none at all); of each
chunk the address of its row and its offset; the first chunk of each packet, and their number; the next packet to take;
whether a number is not finite. And once all packets were stepped: of each leaf the address of its row and of the number
that counts how often it was absent (0: not counted), and their number; the addresses of the numbers that count steps,
and how many they are; what is copied then (to, from, the number of words), and how many times."""

POOL = {name: 8 * place for place, name in enumerate(("epoch", "job", "phase", "open", "active", "limit", "busy"))}
"""Each field on a cache line of its own: how many shares were offered; the job; 0 to check or 1 to step; whether the
share is still to be had; how many threads are at it; how many workers may be; whether a job is being conducted."""

LOOK = _words("n", "single", "type", "expected", "x", "x_flags", "g", "out", "out_flags", "out_taken", "may_miss",
              "starts", "furthest", "ranges", "classes", "n_classes", "job", "at_once", "busy")  # fmt: skip
"""What a call's arrays are compared with: the number of leaves, and whether they come as one array and not as a list;
the id of ndarray; what is expected of each leaf (`EXPECTED`); of parameters, gradients and outputs whether there are
any, the flags that they must have, and whether outputs are taken as they come or must lie where they lay; whether a
gradient may be None; where the step writes: ranges sorted by start, the running maximum of their ends, their number;
the leaves that share their scalars (`CLASS`), their number; the job, and whether to do it at once; the address of a
number that must be 0 (0: none)."""

EXPECTED = _words("row", "begun", "dtype", "scalar", "nd", "shape", "size", "itemsize", "flags", "layout")
"""Of each leaf: the address of its row, 0 if it may be anything; whether its state has begun, else it may only be
without a gradient; the ids of its dtype and of the type of that dtype's scalars (arrays that were pickled have dtype
objects of their own), its number of dimensions, the address of its shape, the number of its reals (a complex number has
two) and the size of one, more flags that its arrays must have, and the address of its layout (0: they are
C-contiguous)."""

CLASS = _words("scalars", "count", "missed", "tiny", "hyper", "constants")
"""Leaves that share their scalars: the function of these; the addresses of the number of completed steps and of how
many of them the leaves did not take; the smallest normal number; the addresses of the values that the scalars are made
of, and of the scalars."""


def pass_columns(programs: Sequence[Program], slots: Sequence[str], by_coordinate: Sequence[Sequence[int]]
                 ) -> list[dict[str, int]]:
    """For each pass of a row, in order: the columns of its arrays by name, of its "constants" and "sums", and of the
    scalars that differ by coordinate, as "scalar 3".

    `slots` are all state slots of the chain; `by_coordinate` are those scalars of each pass, by place.
    """
    given = {**ROW, **{slot: len(ROW) + k for k, slot in enumerate(slots)}}
    width, found = len(given), []
    for program, columns in zip(programs, by_coordinate):
        own = ["constants", *["sums"] * bool(program.totals), *(f"scalar {place}" for place in columns)]
        found.append({**{name: given[name] for name in program.arrays},
                      **{name: width + k for k, name in enumerate(own)}})
        width += len(own)
    return found


def row_width(columns: Sequence[dict[str, int]], slots: Sequence[str]) -> int:
    """How many words such a row has."""
    return max([len(ROW) + len(slots) - 1, *(place for own in columns for place in own.values())]) + 1
