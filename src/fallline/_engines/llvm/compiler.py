"""LLVM as a just-in-time compiler: the text of a module in, the addresses of its functions out."""

from __future__ import annotations

import itertools
import os
import platform
import threading
from typing import Any

import llvmlite.binding as llvm

__all__ = ["Compiler", "compiled", "on_x86"]

_LOCK = threading.RLock()  # a fork waits for it: a child must not meet LLVM's own lock held by a thread it lacks


class Compiler:
    """LLVM for a processor of this name and these features, by default the host's."""

    shared: Compiler | None = None

    def __init__(self, cpu: str | None = None, features: str | None = None) -> None:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        # name and features: a virtual machine may mask features of the processor that it names
        self._cpu = llvm.get_host_cpu_name() if cpu is None else cpu
        self._features = llvm.get_host_cpu_features().flatten() if features is None else features
        self._jits = {codegen: llvm.create_lljit_compiler(self._machine(codegen, jit=True), use_jit_link=False)
                      for codegen in (0, 3)}
        self._libraries: list[Any] = []  # never disposed: a fork must not meet one being freed
        self._numbers = itertools.count()  # of names, which an interrupt must not lead to give twice

    def _machine(self, codegen: int, **options: Any) -> Any:
        return llvm.Target.from_default_triple().create_target_machine(
            cpu=self._cpu, features=self._features, opt=codegen, **options)

    def compile(self, ir: str, names: tuple[str, ...], passes: int, codegen: int) -> tuple[int, ...]:
        """The addresses of a module's functions, at these of LLVM's levels (see `compiled`)."""
        machine = self._machine(codegen)
        module = llvm.parse_assembly(f'target triple = "{llvm.get_default_triple()}"\n'
                                     f'target datalayout = "{machine.target_data}"\n{ir}')
        module.verify()
        builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=passes))
        builder.getModulePassManager().run(module, builder)
        library = llvm.JITLibraryBuilder().add_ir(str(module)).add_current_process()
        for name in names:
            library.export_symbol(name)
        linked = library.link(self._jits[codegen], f"fallline{next(self._numbers)}")
        self._libraries.append(linked)
        return tuple(linked[name] for name in names)


def compiled(ir: str, *names: str, passes: int = 3, codegen: int = 3) -> tuple[int, ...]:
    """The addresses of a module's functions, compiled for this processor. They stay valid for the process's life.

    LLVM's levels, for its passes over the text and for making machine code of it: both 3 for loops that it is to
    vectorise, no passes for what is written as it should run, and 0 and 0, in a fifth of the time, for what runs once a
    step.
    """
    with _LOCK:  # around every call into LLVM and every disposal
        if Compiler.shared is None:
            Compiler.shared = Compiler()
        return Compiler.shared.compile(ir, names, passes, codegen)


def on_x86() -> bool:
    """Whether the code is for x86, whose intrinsics the kernels use. (Not asked of LLVM, which is behind the lock.)"""
    return platform.machine().lower() in ("x86_64", "amd64", "i386", "i686")


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)
