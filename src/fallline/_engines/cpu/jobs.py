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
from fallline._engines.llvm.layout import ABSENT, JOB, POOL
from fallline._engines.llvm.text import fields

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
    alone, conduct, attend, epoch = compiled(_jobs(), "alone", "conduct", "attend", "epoch", passes=0)
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
    pause = "call void @llvm.x86.sse2.pause()" if on_x86() else ""
    declare = "declare void @llvm.x86.sse2.pause()" if on_x86() else ""
    give_way = f"call i32 inttoptr (i64 {_yield_at()} to ptr)()" if _yield_at() else ""
    loads = fields("%job", JOB, "*kernels *checks *table *leaf_of *offset_of *packets n_packets width column")

    def of_pool(name: str) -> str:
        return f"%{name}.p = getelementptr inbounds i64, ptr %pool, i64 {POOL[name]}"

    def of_turn(name: str, of: str, now: str, else_: str, op: str = "add") -> str:
        """Count a turn of a waiting loop; every so many give way to a thread that may need this processor."""
        return f"""%{name} = {op} i64 {of}, 1
  %{name}.few = and i64 %{name}, {PATIENCE - 1}
  %{name}.now = icmp eq i64 %{name}.few, 0
  br i1 %{name}.now, label %{now}, label %{else_}"""

    return f"""
{declare}
define internal void @pull(ptr %job, i64 %phase) {{
entry:
  {loads}
  %next.p = getelementptr inbounds i64, ptr %job, i64 {JOB["next"]}
  %bad.p = getelementptr inbounds i64, ptr %job, i64 {JOB["bad"]}
  %checking = icmp eq i64 %phase, 0
  br label %loop
loop:
  %packet = atomicrmw add ptr %next.p, i64 1 monotonic
  %more = icmp slt i64 %packet, %n_packets
  br i1 %more, label %take, label %end
take:
  %first.p = getelementptr inbounds i64, ptr %packets, i64 %packet
  %first = load i64, ptr %first.p
  %last.p = getelementptr inbounds i64, ptr %first.p, i64 1
  %last = load i64, ptr %last.p
  br i1 %checking, label %check, label %step
check:
  %check.p = getelementptr inbounds ptr, ptr %checks, i64 %packet
  %finite = load ptr, ptr %check.p
  %bad = call i64 %finite(ptr %table, ptr %leaf_of, ptr %offset_of, i64 %first, i64 %last, i64 %width, i64 %column)
  %is_bad = icmp ne i64 %bad, 0
  br i1 %is_bad, label %found, label %loop
found:
  store atomic i64 1, ptr %bad.p monotonic, align 8
  store atomic i64 %n_packets, ptr %next.p monotonic, align 8
  br label %end
step:
  %kernel.p = getelementptr inbounds ptr, ptr %kernels, i64 %packet
  %kernel = load ptr, ptr %kernel.p
  call void %kernel(ptr %table, ptr %leaf_of, ptr %offset_of, i64 %first, i64 %last)
  br label %loop
end:
  ret void
}}
define internal void @done(ptr %job) {{
entry:
  {fields("%job", JOB, "count")}
  %counted = icmp ne i64 %count, 0
  br i1 %counted, label %increment, label %end
increment:
  %place = inttoptr i64 %count to ptr
  %before = load i64, ptr %place
  %after = add i64 %before, 1
  store i64 %after, ptr %place
  br label %end
end:
  {fields("%job", JOB, "*table *missed n width")}
  %may = icmp ne ptr %missed, null
  br i1 %may, label %leaves, label %over
leaves:
  %k = phi i64 [ 0, %end ], [ %next, %leaf_end ]
  %more = icmp slt i64 %k, %n
  br i1 %more, label %leaf, label %over
leaf:
  %at = mul i64 %k, %width
  %row = getelementptr inbounds i64, ptr %table, i64 %at
  %length = load i64, ptr %row
  %absent = icmp eq i64 %length, {ABSENT}
  br i1 %absent, label %miss, label %leaf_end
miss:
  %its.p = getelementptr inbounds i64, ptr %missed, i64 %k
  %times = load i64, ptr %its.p
  %times1 = add i64 %times, 1
  store i64 %times1, ptr %its.p
  br label %leaf_end
leaf_end:
  %next = add i64 %k, 1
  br label %leaves
over:
  {fields("%job", JOB, "*numbers *fresh n_numbers")}
  br label %numbers_loop
numbers_loop:
  %i = phi i64 [ 0, %over ], [ %i1, %renew ]
  %further = icmp slt i64 %i, %n_numbers
  br i1 %further, label %renew, label %out
renew:
  %from = getelementptr inbounds double, ptr %fresh, i64 %i
  %new = load double, ptr %from
  %to = getelementptr inbounds double, ptr %numbers, i64 %i
  store double %new, ptr %to
  %i1 = add i64 %i, 1
  br label %numbers_loop
out:
  ret void
}}
define i64 @alone(ptr %job) {{
entry:
  %next.p = getelementptr inbounds i64, ptr %job, i64 {JOB["next"]}
  %bad.p = getelementptr inbounds i64, ptr %job, i64 {JOB["bad"]}
  store i64 0, ptr %bad.p
  {fields("%job", JOB, "checks kernels")}
  %unchecked = icmp eq i64 %checks, 0
  br i1 %unchecked, label %step, label %check
check:
  store i64 0, ptr %next.p
  call void @pull(ptr %job, i64 0)
  %bad = load i64, ptr %bad.p
  %is_bad = icmp ne i64 %bad, 0
  br i1 %is_bad, label %refuse, label %step
step:
  %idle = icmp eq i64 %kernels, 0
  br i1 %idle, label %end, label %go
go:
  store i64 0, ptr %next.p
  call void @pull(ptr %job, i64 1)
  call void @done(ptr %job)
  br label %end
end:
  ret i64 0
refuse:
  ret i64 1
}}
define internal void @share(ptr %pool, ptr %job, i64 %phase) {{
entry:
  {of_pool("job")}
  {of_pool("phase")}
  {of_pool("open")}
  {of_pool("epoch")}
  {of_pool("active")}
  %next.p = getelementptr inbounds i64, ptr %job, i64 {JOB["next"]}
  store i64 0, ptr %next.p
  store ptr %job, ptr %job.p
  store i64 %phase, ptr %phase.p
  store atomic i64 1, ptr %open.p seq_cst, align 8
  %old = atomicrmw add ptr %epoch.p, i64 1 seq_cst
  call void @pull(ptr %job, i64 %phase)
  store atomic i64 0, ptr %open.p seq_cst, align 8
  br label %wait
wait:
  %turn = phi i64 [ 1, %entry ], [ %turn1, %again ], [ %turn1, %give ]
  %active = load atomic i64, ptr %active.p seq_cst, align 8
  %done = icmp eq i64 %active, 0
  br i1 %done, label %end, label %again
again:
  {pause}
  {of_turn("turn1", "%turn", "give", "wait")}
give:
  {give_way}
  br label %wait
end:
  ret void
}}
define i64 @conduct(ptr %pool, ptr %job, i64 %workers) {{
entry:
  {of_pool("busy")}
  {of_pool("limit")}
  %found = cmpxchg ptr %busy.p, i64 0, i64 1 seq_cst seq_cst
  %free = extractvalue {{ i64, i1 }} %found, 1
  br i1 %free, label %lead, label %other
other:
  %by_myself = call i64 @alone(ptr %job)
  ret i64 %by_myself
lead:
  store i64 %workers, ptr %limit.p
  %bad = call i64 @lead(ptr %pool, ptr %job)
  store atomic i64 0, ptr %busy.p seq_cst, align 8
  ret i64 %bad
}}
define internal i64 @lead(ptr %pool, ptr %job) {{
entry:
  %bad.p = getelementptr inbounds i64, ptr %job, i64 {JOB["bad"]}
  store i64 0, ptr %bad.p
  {fields("%job", JOB, "checks kernels")}
  %unchecked = icmp eq i64 %checks, 0
  br i1 %unchecked, label %step, label %check
check:
  call void @share(ptr %pool, ptr %job, i64 0)
  %bad = load atomic i64, ptr %bad.p monotonic, align 8
  %is_bad = icmp ne i64 %bad, 0
  br i1 %is_bad, label %refuse, label %step
step:
  %idle = icmp eq i64 %kernels, 0
  br i1 %idle, label %end, label %go
go:
  call void @share(ptr %pool, ptr %job, i64 1)
  call void @done(ptr %job)
  br label %end
end:
  ret i64 0
refuse:
  ret i64 1
}}
define i64 @attend(ptr %pool, i64 %worker, i64 %seen, i64 %spins) {{
entry:
  {of_pool("job")}
  {of_pool("phase")}
  {of_pool("open")}
  {of_pool("epoch")}
  {of_pool("active")}
  {of_pool("limit")}
  br label %loop
loop:
  %last = phi i64 [ %seen, %entry ], [ %last, %wait ], [ %last, %give ], [ %epoch, %left ]
  %left_to_spin = phi i64 [ %spins, %entry ], [ %fewer, %wait ], [ %fewer, %give ], [ %spins, %left ]
  %epoch = load atomic i64, ptr %epoch.p seq_cst, align 8
  %new = icmp ne i64 %epoch, %last
  br i1 %new, label %enter, label %idle
idle:
  %tired = icmp sle i64 %left_to_spin, 0
  br i1 %tired, label %end, label %wait
wait:
  {pause}
  {of_turn("fewer", "%left_to_spin", "give", "loop", "sub")}
give:
  {give_way}
  br label %loop
enter:
  %before = atomicrmw add ptr %active.p, i64 1 seq_cst
  %open = load atomic i64, ptr %open.p seq_cst, align 8
  %limit = load i64, ptr %limit.p
  %is_open = icmp ne i64 %open, 0
  %within = icmp slt i64 %worker, %limit
  %mine = and i1 %is_open, %within
  br i1 %mine, label %work, label %leave
work:
  %job = load ptr, ptr %job.p
  %phase = load i64, ptr %phase.p
  call void @pull(ptr %job, i64 %phase)
  br label %leave
leave:
  %after = atomicrmw sub ptr %active.p, i64 1 seq_cst
  br label %left
left:
  br label %loop
end:
  ret i64 %last
}}
define i64 @epoch(ptr %pool) {{
  {of_pool("epoch")}
  %epoch = load atomic i64, ptr %epoch.p seq_cst, align 8
  ret i64 %epoch
}}"""
