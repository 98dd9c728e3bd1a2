"""The native engine: a program as machine code, by LLVM, in one pass through memory.

The kernel is an inner loop over one contiguous run of coordinates and an outer loop over a table of rows, so one call
steps any number of arrays. No fast-math: every operation is the IEEE one, in the order of the program.
"""

from __future__ import annotations

import ctypes
import os
import threading
from functools import cache
from typing import Any

import llvmlite.binding as llvm
import numpy as np

from fallline.engines.rows import Kernel, Row
from fallline.memory import address
from fallline.trace import Instruction, Program

__all__ = ["native_kernel"]

_FLOATS = {"float32": ("float", "f32"), "float64": ("double", "f64")}
_BINARY = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_COMPARE = {"lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge", "eq": "oeq", "ne": "une"}


@cache  # kernels are never disposed: a fork while one is being compiled must not meet one being freed
def native_kernel(program: Program, dtype: np.dtype, columns: tuple[int, ...] = ()) -> Kernel:
    """The kernel of a program; `columns` are the scalars (by place) that differ by coordinate."""
    return _Native(_Compiler.shared().compile(kernel_ir(program, dtype, columns)))


class _Native:
    def __init__(self, address: int) -> None:
        # CFUNCTYPE, not PYFUNCTYPE: the interpreter's lock is released while the kernel runs
        self._call = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)

    def __call__(self, rows: list[Row]) -> None:
        table = np.array([
            [row.arrays[0].size, *map(address, row.arrays), *map(address, row.columns), address(row.constants)]
            for row in rows
        ], np.int64)  # fmt: skip
        if len(rows):
            self._call(address(table), len(rows))


class _Compiler:
    """The process's one just-in-time compiler, behind a lock that a fork waits for."""

    _lock = threading.RLock()
    _shared: _Compiler | None = None

    def __init__(self) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        self._jit = llvm.create_lljit_compiler(self._machine(jit=True), use_jit_link=False)
        self._libraries: list[Any] = []

    @classmethod
    def shared(cls) -> _Compiler:
        with cls._lock:
            if cls._shared is None:
                cls._shared = cls()
            return cls._shared

    @staticmethod
    def _machine(**options: Any) -> Any:
        # name and features: a virtual machine may mask features of the processor that it names
        return llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, **options)

    def compile(self, ir: str) -> int:
        """The address of the function `step` of a module."""
        with self._lock:
            machine = self._machine()
            module = llvm.parse_assembly(f'target triple = "{llvm.get_default_triple()}"\n'
                                         f'target datalayout = "{machine.target_data}"\n{ir}')
            module.verify()
            tuning = llvm.create_pipeline_tuning_options(speed_level=3)
            builder = llvm.create_pass_builder(machine, tuning)
            builder.getModulePassManager().run(module, builder)
            library = (llvm.JITLibraryBuilder().add_ir(str(module)).export_symbol("step").add_current_process()
                       .link(self._jit, f"fallline{len(self._libraries)}"))
            self._libraries.append(library)
            return library["step"]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_Compiler._lock.acquire, after_in_parent=_Compiler._lock.release,
                        after_in_child=_Compiler._lock.release)


def kernel_ir(program: Program, dtype: np.dtype, columns: tuple[int, ...]) -> str:
    """The program as the text of an LLVM module with a function `step(table, rows)`."""
    real, suffix = _FLOATS[dtype.name]
    pointers = [f"%a{k}" for k in range(len(program.arrays) + len(columns))]
    inner = _inner_loop(program, real, suffix, columns, pointers, dtype.itemsize)
    return f"""
declare {real} @llvm.sqrt.{suffix}({real})
declare {real} @llvm.fabs.{suffix}({real})
{inner}
{_outer_loop(len(pointers))}
{_entry()}
"""


def _inner_loop(program: Program, real: str, suffix: str, columns: tuple[int, ...], pointers: list[str],
                size: int) -> str:
    name_of = dict(zip(program.arrays, pointers))
    values: list[str] = []
    head, body = [], []
    for k, name in enumerate(program.inputs):
        body.append(f"%i{k} = load {real}, ptr {name_of[name]}.i, align {size}")
        values.append(f"%i{k}")
    for k in range(len(program.scalars)):
        if k in columns:
            place = pointers[len(program.arrays) + columns.index(k)]
            body.append(f"%s{k} = load {real}, ptr {place}.i, align {size}")
        else:
            head.append(f"%s{k}.p = getelementptr inbounds {real}, ptr %constants, i64 {k}")
            head.append(f"%s{k} = load {real}, ptr %s{k}.p, align {size}")
        values.append(f"%s{k}")
    for k, instruction in enumerate(program.code):
        lines, result = _instruction(instruction, [values[v] for v in instruction.operands], f"%v{k}", real, suffix)
        body += lines
        values.append(result)
    body += [f"store {real} {values[v]}, ptr {name_of[name]}.i, align {size}" for name, v in program.outputs]
    addresses = [f"{p}.i = getelementptr inbounds {real}, ptr {p}, i64 %k" for p in pointers]
    arguments = ", ".join([*(f"ptr noalias {p}" for p in pointers), "ptr noalias %constants", "i64 %n"])
    join = "\n  ".join
    return f"""
define internal void @run({arguments}) noinline {{
entry:
  {join(head)}
  %some = icmp sgt i64 %n, 0
  br i1 %some, label %loop, label %end
loop:
  %k = phi i64 [ 0, %entry ], [ %next, %loop ]
  {join(addresses)}
  {join(body)}
  %next = add nuw nsw i64 %k, 1
  %more = icmp slt i64 %next, %n
  br i1 %more, label %loop, label %end
end:
  ret void
}}"""


def _instruction(instruction: Instruction, operands: list[str], result: str, real: str,
                 suffix: str) -> tuple[list[str], str]:
    """The lines that compute one instruction, and the name of its value."""
    op, (a, *rest) = instruction.op, operands
    if op == "fill":
        return [], a
    if op in _BINARY:
        return [f"{result} = {_BINARY[op]} {real} {a}, {rest[0]}"], result
    if op in _COMPARE:
        return [f"{result} = fcmp {_COMPARE[op]} {real} {a}, {rest[0]}"], result
    if op == "neg":
        return [f"{result} = fneg {real} {a}"], result
    if op in ("sqrt", "abs"):
        intrinsic = {"sqrt": "sqrt", "abs": "fabs"}[op]
        return [f"{result} = call {real} @llvm.{intrinsic}.{suffix}({real} {a})"], result
    if op == "choose":
        return [f"{result}.c = fcmp une {real} {a}, 0.0",
                f"{result} = select i1 {result}.c, {real} {rest[0]}, {real} {rest[1]}"], result
    return [f"{result} = select i1 {a}, {real} {rest[0]}, {real} {rest[1]}"], result  # where


def _outer_loop(pointers: int) -> str:
    """A loop over the rows of the table: length, addresses of arrays and columns, address of the constants."""
    width = pointers + 2
    loads = []
    for k in range(width):
        loads.append(f"%p{k} = getelementptr inbounds i64, ptr %row, i64 {k}")
        loads.append(f"%c{k} = load {'i64' if k == 0 else 'ptr'}, ptr %p{k}, align 8")
    arguments = ", ".join([*(f"ptr %c{k}" for k in range(1, width)), "i64 %c0"])
    lines = "\n  ".join(loads)
    return f"""
define internal void @all(ptr %table, i64 %rows) noinline {{
entry:
  br label %loop
loop:
  %r = phi i64 [ 0, %entry ], [ %next, %loop ]
  %offset = mul i64 %r, {width}
  %row = getelementptr inbounds i64, ptr %table, i64 %offset
  {lines}
  call void @run({arguments})
  %next = add i64 %r, 1
  %more = icmp slt i64 %next, %rows
  br i1 %more, label %loop, label %end
end:
  ret void
}}"""


def _entry() -> str:
    """The function called from outside. On x86 it pins rounding to nearest and subnormals on, whatever another library
    set, and puts things back (0.3 us)."""
    if not llvm.get_default_triple().startswith(("x86_64", "i686")):
        return "define void @step(ptr %table, i64 %rows) {\n  call void @all(ptr %table, i64 %rows)\n  ret void\n}"
    return """
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
define void @step(ptr %table, i64 %rows) {
  %found = alloca i32
  %ours = alloca i32
  call void @llvm.x86.sse.stmxcsr(ptr %found)
  store i32 8064, ptr %ours
  call void @llvm.x86.sse.ldmxcsr(ptr %ours)
  call void @all(ptr %table, i64 %rows)
  call void @llvm.x86.sse.ldmxcsr(ptr %found)
  ret void
}"""
