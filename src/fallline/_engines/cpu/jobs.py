"""What kernels run on: a job is a table of leaves cut into chunks, done by one thread or shared with a pool's.

All of it is native code without Python in between, so an interrupt is delivered before a job or after it, never
within. A job lies in an array of 64-bit fields (`JOB`), as does what threads share (`POOL`).
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from fallline._engines.llvm.compiler import compiled, on_x86
from fallline._engines.llvm.function import Function, Value, module
from fallline._engines.llvm.layout import ABSENT, JOB, POOL

__all__ = ["Functions", "functions"]

PATIENCE = 64  # turns of a waiting loop between giving way: on a busy machine the other may need this processor


class Functions(NamedTuple):
    """The functions, callable; all but `epoch` release the interpreter's lock."""

    alone_at: int  # an address, too
    alone: Callable[..., int]  # (job) -> 1 if a gradient is not finite and nothing was done, else 0
    conduct: Callable[..., int]  # (pool, job, workers) -> the same, shared with so many, or alone if the pool is busy
    attend: Callable[..., int]  # (pool, worker, epoch, spins) -> epoch: take shares until none comes for a while
    epoch: Callable[..., int]  # (pool) -> epoch


@cache
def functions() -> Functions:
    """The functions, compiled on first use."""
    alone, conduct, attend, epoch = compiled(_jobs(), "alone", "conduct", "attend", "epoch", passes=0, codegen=0)
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    release = ctypes.CFUNCTYPE
    return Functions(alone, release(number, pointer)(alone), release(number, pointer, pointer, number)(conduct),
                     release(number, pointer, number, number, number)(attend),
                     ctypes.PYFUNCTYPE(number, pointer)(epoch))


def _yield_at() -> int:
    """The address of the system's function that gives way to another thread; 0 where there is none."""
    library, name = (None, "sched_yield") if os.name == "posix" else ("kernel32", "SwitchToThread")
    function = getattr(ctypes.CDLL(library), name, None)
    return ctypes.cast(function, ctypes.c_void_p).value or 0 if function else 0


def _jobs() -> str:
    alone, lead = _do("i64 @alone(ptr)", "pull"), _do("internal i64 @lead(ptr, ptr)", "share")
    return module(_pull(), _done(), alone, _share(), lead, _conduct(), _attend(), _epoch())


def _pull() -> str:
    """Take packets of a job until there are none, and check their gradients (phase 0) or step them (phase 1)."""
    f = Function("internal void @pull(ptr, i64)")
    job, phase = f.arguments
    kernels, checks, row_of, offset_of, packets, n_packets = job.words(
        JOB, "*kernels *checks *row_of *offset_of *packets n_packets")
    following = job.at(JOB["next"])
    with f.loop():
        packet = following.update("add", 1, "monotonic")  # packets are independent of each other: any order will do
        f.stop(packet >= n_packets)
        chunks = row_of, offset_of, packets.load(index=packet), packets.load(index=packet + 1)
        with f.when(phase.equals(1)):
            f.call("void", kernels.load("ptr", packet), *chunks)
            f.skip()
        bad = f.call("i64", checks.load("ptr", packet), *chunks)
        with f.when(bad.differs(0)):
            job.at(JOB["bad"]).store(1, order="monotonic")
            following.store(n_packets, order="monotonic")  # nobody need look further
            f.stop()
    return f.text()


def _done() -> str:
    """What follows the steps of a job: count them, count of each leaf whether it was absent, and copy."""
    f = Function("internal void @done(ptr)")
    rows, missed, n, counts, n_counts, copies, n_copies = f.arguments[0].words(
        JOB, "*rows *missed n *counts n_counts *copies n_copies")
    with f.loop(n_counts) as k:
        _increase(counts.load("ptr", k))
    with f.when(missed.differs(0)), f.loop(n) as k:
        f.skip(rows.load("ptr", k).load().differs(ABSENT))
        _increase(missed.load("ptr", k))
    with f.loop(n_copies) as k:
        to, new, words = copies.at(k * 3).words({"to": 0, "new": 1, "words": 2}, "*to *new words")
        with f.loop(words) as word:
            to.store(new.load(index=word), word)
    return f.text()


def _increase(count: Value) -> None:
    count.store(count.load() + 1)


def _do(signature: str, pull: str) -> str:
    """Check a job and step it, unless a gradient is not finite; `pull` is the function that takes its packets."""
    f = Function(signature)
    job = f.arguments[-1]
    following, bad = job.at(JOB["next"]), job.at(JOB["bad"])
    bad.store(0)
    for phase, functions in enumerate(("checks", "kernels")):
        with f.when(job.load("ptr", JOB[functions]).differs(0)):
            following.store(0)
            f.call("void", pull, *f.arguments, phase)
            if phase == 0:
                f.ret_if(bad.load(order="monotonic").differs(0), 1)
            else:
                f.call("void", "done", job)
    f.ret(0)
    return f.text()


def _share() -> str:
    """Offer a phase of a job to the workers, take part in it, and wait for those that came.

    A worker says that it is there before it looks whether the share is still to be had, and we withdraw that before we
    look who is there; in one order for all (seq_cst), so either it sees that it is late or we see it.
    """
    f = Function("internal void @share(ptr, ptr, i64)")
    pool, job, phase = f.arguments
    pool.store(job, POOL["job"])
    pool.store(phase, POOL["phase"])
    pool.at(POOL["open"]).store(1, order="seq_cst")
    pool.at(POOL["epoch"]).update("add", 1, "seq_cst")
    f.call("void", "pull", job, phase)
    pool.at(POOL["open"]).store(0, order="seq_cst")
    with f.loop(start=1) as turn:
        f.stop(pool.at(POOL["active"]).load(order="seq_cst").equals(0))
        _wait(f, turn)
    return f.text()


def _conduct() -> str:
    """Do a job with so many workers, or alone if the pool is busy with another thread's."""
    f = Function("i64 @conduct(ptr, ptr, i64)")
    pool, job, workers = f.arguments
    busy = pool.at(POOL["busy"])
    taken = f.make("{ i64, i1 }", f"cmpxchg {busy}, i64 0, i64 1 seq_cst seq_cst")
    with f.when(~f.make("i1", f"extractvalue {taken}, 1")):
        f.ret(f.call("i64", "alone", job))
    pool.store(workers, POOL["limit"])
    bad = f.call("i64", "lead", pool, job)
    busy.store(0, order="seq_cst")
    f.ret(bad)
    return f.text()


def _attend() -> str:
    """Take shares of what is offered after an epoch, until nothing came for so many turns; the last epoch seen."""
    f = Function("i64 @attend(ptr, i64, i64, i64)")
    pool, worker, seen, spins = f.arguments
    last, left = f.variable(seen), f.variable(spins)
    active = pool.at(POOL["active"])
    with f.loop():
        epoch = pool.at(POOL["epoch"]).load(order="seq_cst")
        with f.when(epoch.equals(last.now)):
            f.ret_if(left.now <= 0, last.now)
            left.now -= 1
            _wait(f, left.now)
            f.skip()
        active.update("add", 1, "seq_cst")
        is_open = pool.at(POOL["open"]).load(order="seq_cst").differs(0)
        with f.when(is_open & (worker < pool.load(index=POOL["limit"]))):
            f.call("void", "pull", pool.load("ptr", POOL["job"]), pool.load(index=POOL["phase"]))
        active.update("sub", 1, "seq_cst")
        last.now, left.now = epoch, spins
    return f.text()


def _wait(f: Function, turn: Value) -> None:
    """A turn of a waiting loop; every so many give way to a thread that may need this processor."""
    if on_x86():
        f.intrinsic("void", "x86.sse2.pause")
    if give_way := _yield_at():
        with f.when((turn & (PATIENCE - 1)).equals(0)):
            f.call("i32", f.value(give_way, "ptr"))


def _epoch() -> str:
    """How many shares a pool has offered."""
    f = Function("i64 @epoch(ptr)")
    f.ret(f.arguments[0].at(POOL["epoch"]).load(order="seq_cst"))
    return f.text()
