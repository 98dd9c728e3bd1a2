"""What a step over ranks costs, as a row of docs/ranks.md: `mpiexec -n 4 python -m mpi4py -m benchmarks.ranks`.

Milliseconds, medians over steps of the slowest rank's: of Adam and of clip_norm with Adam on 4,000,000 float32 in all,
divided evenly; of one message of 24 bytes (allreduce), and of one that gathers the sums of blocks (allgather); of a
rank's part of the same steps in one process, without others.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from mpi4py import MPI

import fallline as fl
from fallline._engines.blocks import block_count

SIZE, STEPS = 4_000_000, 40


def milliseconds(comm: MPI.Comm, act: Callable[[], Any]) -> float:
    found = []
    for _ in range(STEPS):
        comm.Barrier()
        start = time.perf_counter()
        act()
        found.append(comm.allreduce(time.perf_counter() - start, MPI.MAX))
    return float(np.median(found)) * 1e3


def row(comm: MPI.Comm) -> str:
    start, stop = (SIZE * r // comm.size for r in (comm.rank, comm.rank + 1))
    w, g = np.ones(stop - start, np.float32), np.full(stop - start, 1e-3, np.float32)
    kinds = {"Adam": lambda: fl.Adam(1e-3, threads=1),
             "norm": lambda: fl.chain(fl.clip_norm(1.0), fl.Adam(1e-3), threads=1)}
    cells = []
    for make in kinds.values():
        alone, opt = make(), fl.mpi.domain_parallel(make(), comm)
        cells += [milliseconds(comm, partial(each.step, w, g)) for each in (opt, alone)]
    said = np.zeros(3, np.int64)
    mine, every = np.zeros((block_count(stop - start), 3)), np.zeros((block_count(SIZE) + comm.size, 3))
    counts = [3 * n for n in comm.allgather(len(mine))]
    cells += [milliseconds(comm, lambda: comm.Allreduce(MPI.IN_PLACE, said, MPI.MAX)),
              milliseconds(comm, lambda: comm.Allgatherv(mine, [every, counts]))]
    return f"| {comm.size} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |"


if __name__ == "__main__":
    found = row(MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0:
        print(found)
