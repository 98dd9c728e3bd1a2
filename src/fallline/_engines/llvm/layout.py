"""How tables that native code reads lie in memory: arrays of 64-bit fields, by name."""

from __future__ import annotations

__all__ = ["ABSENT", "CONSTANTS", "EXTRA", "JOB", "LAYOUT", "POOL", "STRIDES"]

EXTRA = 3  # columns of a table that hold no array's address: the length, and behind the addresses CONSTANTS and LAYOUT
CONSTANTS, LAYOUT = -2, -1
STRIDES = 2  # where in a layout the addresses of strides begin (see `strided`)

JOB = {name: place for place, name in enumerate(
    ("kernels", "checks", "table", "leaf_of", "offset_of", "packets", "n_packets", "width", "column", "next", "bad",
     "count", "missed", "n", "numbers", "fresh", "n_numbers"))}
"""Of each packet, the share that a thread takes at a time, its kernel and its finite check (0: none at all); the table
(a row per leaf: its length, or ABSENT if it has no gradient, addresses, that of the constants, that of the layout if an
array is strided); of each chunk its leaf and its offset; the first chunk of each packet, and their number; the table's
width and the gradient's column; the next packet to take; whether a number is not finite; where to count that all
packets were stepped (0: nowhere), and how often each leaf was absent (0: none is); the number of leaves; the numbers
(float64) that are to be replaced then by fresh ones, these, and how many they are."""

ABSENT = -1

POOL = {name: 8 * place for place, name in enumerate(("epoch", "job", "phase", "open", "active", "limit", "busy"))}
"""Each field on a cache line of its own: how many shares were offered; the job; 0 to check or 1 to step; whether the
share is still to be had; how many threads are at it; how many workers may be; whether a job is being conducted."""
