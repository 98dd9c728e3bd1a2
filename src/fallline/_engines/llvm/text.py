"""Pieces of LLVM text that several modules are made of."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from fallline._engines.llvm.compiler import on_x86

__all__ = ["CHUNK", "chunk", "field", "fields", "in_parts", "literal", "pinned"]

CHUNK = 16384  # coordinates that are checked or stepped at a time


def field(name: str, of: str, offset: int, kind: str = "i64") -> str:
    """Load what stands so many bytes behind a pointer into the value %name; its address is %name.p."""
    return (f"%{name}.p = getelementptr inbounds i8, ptr {of}, i64 {offset}\n"
            f"  %{name} = load {kind}, ptr %{name}.p, align {4 if kind == 'i32' else 8}")


def fields(of: str, places: Mapping[str, int], names: str, prefix: str = "") -> str:
    """Load these fields (blank between) of an array of 64-bit numbers; `*name` is one that holds an address."""
    return "\n  ".join(field(prefix + name.lstrip("*"), of, 8 * places[name.lstrip("*")],
                             "ptr" if name[0] == "*" else "i64") for name in names.split())  # fmt: skip


def chunk(width: int | str) -> str:
    """Of chunk %c of a job: its leaf's %row of a table so wide, its %offset in the leaf, its size %n (≤ 0: nothing)."""
    return f"""%pl = getelementptr inbounds i64, ptr %leaf_of, i64 %c
  %leaf = load i64, ptr %pl, align 8
  %po = getelementptr inbounds i64, ptr %offset_of, i64 %c
  %offset = load i64, ptr %po, align 8
  %at = mul i64 %leaf, {width}
  %row = getelementptr inbounds i64, ptr %table, i64 %at
  %length = load i64, ptr %row, align 8
  %rest = sub i64 %length, %offset
  %short = icmp slt i64 %rest, {CHUNK}
  %n = select i1 %short, i64 %rest, i64 {CHUNK}"""


def in_parts(size: int, head: Sequence[str], body: Sequence[str]) -> str:
    """The function `part`, which runs %n coordinates of a %row from an %offset on, at most so many at a time: the lines
    of `head` once, and those of `body` for every %m coordinates from %start on."""
    join = "\n  ".join
    return f"""
define internal void @part(ptr %row, i64 %offset, i64 %n) {{
entry:
  {join(head)}
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %end
loop:
  %done = phi i64 [ 0, %entry ], [ %next, %loop ]
  %left = sub i64 %n, %done
  %few = icmp slt i64 %left, {size}
  %m = select i1 %few, i64 %left, i64 {size}
  %start = add i64 %offset, %done
  {join(body)}
  %next = add i64 %done, %m
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}}"""


def literal(value: float) -> str:
    """A double, to the bit."""
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"


def pinned() -> tuple[str, str, str]:
    """Declarations, and lines for a function's start and end that round to nearest and keep subnormals in between.

    Another library may have set this thread otherwise (torch.set_flush_denormal); it gets its mode back.
    """
    if not on_x86():
        return "", "", ""
    return ("""
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)""", """
  %found = alloca i32
  %ours = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %found)
  store i32 8064, ptr %ours
  call void @llvm.x86.sse.ldmxcsr(ptr %ours)""", """
  call void @llvm.x86.sse.ldmxcsr(ptr %found)""")
