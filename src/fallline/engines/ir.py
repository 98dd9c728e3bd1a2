"""Pieces of LLVM text that several modules are made of."""

from __future__ import annotations

from collections.abc import Mapping

from fallline.engines.compiler import on_x86

__all__ = ["field", "fields", "pinned"]


def field(name: str, of: str, offset: int, kind: str = "i64") -> str:
    """Load what stands so many bytes behind a pointer into the value %name; its address is %name.p."""
    return (f"%{name}.p = getelementptr inbounds i8, ptr {of}, i64 {offset}\n"
            f"  %{name} = load {kind}, ptr %{name}.p, align {4 if kind == 'i32' else 8}")


def fields(of: str, places: Mapping[str, int], names: str, prefix: str = "") -> str:
    """Load these fields (blank between) of an array of 64-bit numbers; `*name` is one that holds an address."""
    return "\n  ".join(field(prefix + name.lstrip("*"), of, 8 * places[name.lstrip("*")],
                             "ptr" if name[0] == "*" else "i64") for name in names.split())  # fmt: skip


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
