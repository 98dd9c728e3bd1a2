"""Runs of ranks beside those of one process, as JSON: with leaves that are divided (`of_ranks`), and with batches that
are (what differs from a run with the mean gradients); and the bytes sent for these, beside the best."""

import faulthandler
import json
import os
import sys
from typing import Any

import ml_dtypes
import numpy as np
from mpi4py import MPI

import fallline as fl
import of_ranks
from of_ranks import clipped, digest, label, tamed

COMM, BATCHES, STEPS = MPI.COMM_WORLD, 8, 3
LEAVES = {"W": ((31, 301), np.float32), "b": ((4_097,), np.float64), "c": ((503,), np.complex64),
          "h": ((450,), np.float16), "k": ((901,), ml_dtypes.bfloat16), "none": ((0, 3), np.float32)}
MAKERS: dict[str, Any] = {
    "Adam": lambda **o: fl.Adam(0.1, **o),
    "clipped": clipped,
    "native": lambda **o: clipped(engine="native", **o),
    "own": lambda **o: fl.Optimizer(tamed, **o),
    "partition": lambda **o: fl.chain(fl.clip_norm(1.0), fl.partition({"a": fl.LAMB(0.1), "rest": fl.Adam(0.1)}, label),
                                      **o),
    "gathers": lambda **o: fl.accumulate(2, clipped(), **o),
    "scheduled": lambda **o: fl.chain(fl.clip_norm(1.0), fl.SGD(fl.schedules.cosine(0.1, steps=9)), **o),
}


class Counted:
    """A communicator that counts the bytes that this rank sends."""

    def __init__(self, comm: Any) -> None:
        self.comm, self.sent = comm, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.comm, name)

    def Isend(self, buffer: Any, to: int) -> Any:
        self.sent += buffer[0].nbytes
        return self.comm.Isend(buffer, to)

    def Allgatherv(self, mine: Any, every: Any) -> None:
        self.sent += mine[0].nbytes * (self.comm.size - 1)
        self.comm.Allgatherv(mine, every)


def gradient(batch: int, t: int, w: dict[str, np.ndarray]) -> dict[str, Any]:
    rng = np.random.default_rng([batch, t])
    found = {path: np.asarray(rng.standard_normal(x.shape) + 0.1).astype(x.dtype) for path, x in w.items()}
    return {**found, "b": None} if t == 1 else found


def mean(found: list[Any]) -> Any:
    """As the page says: pairs of neighbours, and pairs of these, up to one; 16 bits are summed in float32."""
    if found[0] is None:
        return None
    wide = [g.astype(np.float32) if g.dtype.itemsize == 2 else g for g in found]
    while len(wide) > 1:
        wide = [a + b for a, b in zip(wide[::2], wide[1::2])]
    return wide[0] / wide[0].dtype.type(BATCHES)


def start() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {path: np.asarray(rng.standard_normal(shape)).astype(dtype) for path, (shape, dtype) in LEAVES.items()}


def compared(name: str, make: Any, folder: str) -> list[str]:
    """What differs from one process, in the parameters or in the file, and after that was loaded."""
    w, x, file = start(), start(), os.path.join(folder, "run.safetensors")
    plain, opt = make(), fl.mpi.data_parallel(make(), batches=BATCHES)
    wrong = []
    for t in range(2 * STEPS):
        every = [gradient(batch, t, w) for batch in range(BATCHES)]
        plain.step(w, {path: mean([g[path] for g in every]) for path in w})
        opt.step(x, (every[batch] for batch in opt.mine))
        if t == STEPS - 1:
            opt.save(file, x)
            if COMM.rank == 0:
                plain.save(file + ".plain", w)
                wrong += [f"{name}: the file"] * (digest(file) != digest(file + ".plain"))
            opt = fl.mpi.data_parallel(make(), batches=BATCHES)
            x = opt.load(file)
    return wrong + [f"{name}: {path}" for path in w if w[path].tobytes() != x[path].tobytes()]


def refused() -> list[str]:
    w, wrong = start(), []
    opt = fl.mpi.data_parallel(fl.Adam(), batches=BATCHES)
    last = COMM.rank == COMM.size - 1

    def grads(change: Any) -> Any:
        return (change(gradient(batch, 0, w)) if batch == BATCHES - 1 else gradient(batch, 0, w) for batch in opt.mine)

    changes = {"not finite": (lambda g: {**g, "W": g["W"] * np.nan}, "W has "),
               "a leaf": (lambda g: {"W": g["W"]}, ""), "None": (lambda g: {**g, "W": None}, ""),
               "a shape": (lambda g: {**g, "b": g["b"][1:]}, "must be an array")}
    for what, (change, text) in changes.items():
        try:
            opt.step(w, grads(change))
            wrong.append(what)
        except ValueError as error:
            wrong += [f"{what}: {error}"] * (text not in str(error))
    try:
        opt.step(w, list(grads(lambda g: g))[1:] if last else grads(lambda g: g))
        wrong.append("too few")
    except ValueError as error:
        wrong += [f"too few: {error}"] * ("this rank's" not in str(error))
    wrong += [f"{path} has changed" for path, x in start().items() if x.tobytes() != w[path].tobytes()]
    return wrong


def ratio() -> float:
    """The bytes that all send in a step, beside the best."""
    opt, w = fl.mpi.data_parallel(fl.Adam(), batches=BATCHES), np.ones(1_000_003, np.float32)
    counted = opt._comm = Counted(opt._comm)
    opt.step(w, (w.copy() for _ in opt.mine))
    sent = COMM.allreduce(counted.sent)
    return sent / (2 * (COMM.size - 1) * w.nbytes) if COMM.size > 1 else 1.0


def main(folder: str, what: str) -> None:
    faulthandler.dump_traceback_later(350, exit=True)  # who waits for whom
    of_domains = of_ranks.compared(folder, what, COMM)
    wrong = [line for name, make in MAKERS.items() for line in compared(name, make, folder)]
    wrong += refused()
    every = [line for lines in COMM.allgather(wrong) for line in lines]
    found = {"domains": of_domains, "batches": every, "ratio": ratio()}
    if COMM.rank == 0:
        with open(os.path.join(folder, "found.json"), "w") as file:
            json.dump(found, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
