"""How much memory a rank takes to save and to load, beside its own part: written as JSON, in MB."""

import json
import os
import sys
import tracemalloc

import numpy as np
from mpi4py import MPI

import fallline as fl

SIZE = 16_000_000


def main(folder: str) -> None:
    comm = MPI.COMM_WORLD
    part, file, found = SIZE // comm.size, os.path.join(folder, "run.safetensors"), {}
    w = np.ones(part, np.float32)
    opt = fl.mpi.domain_parallel(fl.Adam())
    opt.step(w, w.copy())
    tracemalloc.start()
    opt.save(file, w)
    found["save"] = tracemalloc.get_traced_memory()[1] / 1e6
    del opt, w
    tracemalloc.reset_peak()
    loaded = fl.mpi.load(file)
    found["load"] = tracemalloc.get_traced_memory()[1] / 1e6
    found["own"] = 3 * loaded[1].nbytes / 1e6
    every = comm.allgather(found)
    if comm.rank == 0:
        with open(os.path.join(folder, "found.json"), "w") as out:
            json.dump(every, out)


if __name__ == "__main__":
    main(sys.argv[1])
