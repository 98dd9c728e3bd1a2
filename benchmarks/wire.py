"""The bytes of data_parallel on the wire, TCP's own included, beside those of the best reduce-scatter and all-gather.

It counts what goes through the loopback of a network of its own, where ranks must not use shared memory (Linux, as
root, MPICH):

    export MPIR_CVAR_NOLOCAL=1 MPIR_CVAR_CH4_NETMOD=ofi FI_PROVIDER=tcp
    unshare -n sh -c "ip link set lo up; mpiexec -n 4 python -m mpi4py -m benchmarks.wire"
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from mpi4py import MPI

import fallline as fl

SIZE, STEPS = 4_000_000, 5


def sent() -> int:
    """The bytes that have left by the loopback."""
    line = next(line for line in Path("/proc/net/dev").read_text().splitlines() if line.strip().startswith("lo:"))
    return int(line.split(":")[1].split()[8])


def ratio(comm: MPI.Comm) -> float:
    opt, w, g = fl.mpi.data_parallel(fl.Adam(1e-3), comm), np.ones(SIZE, np.float32), np.full(SIZE, 1e-3, np.float32)
    opt.step(w, (g for _ in opt.mine))
    comm.Barrier()
    time.sleep(0.5)
    before = sent()
    comm.Barrier()
    for _ in range(STEPS):
        opt.step(w, (g for _ in opt.mine))
    comm.Barrier()
    time.sleep(0.5)
    return (sent() - before) / (STEPS * 2 * (comm.size - 1) * w.nbytes)


if __name__ == "__main__":
    found = ratio(MPI.COMM_WORLD)
    if MPI.COMM_WORLD.rank == 0:
        print(f"n={MPI.COMM_WORLD.size}: {found:.3f} times the ideal")
