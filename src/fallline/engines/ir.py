"""Pieces of LLVM text that several modules are made of."""

from __future__ import annotations

from collections.abc import Mapping

from fallline.engines.compiler import on_x86

__all__ = ["CHUNK", "chunk", "field", "fields", "pinned"]

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
