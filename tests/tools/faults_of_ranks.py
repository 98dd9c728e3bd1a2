"""What one rank does wrong, which all must refuse alike, and go on from; what ranks do differently; files that fail.
Writes what went otherwise, as lines, to the file that it is given."""

import copy
import errno
import faulthandler
import math
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from mpi4py import MPI

import fallline as fl

COMM = MPI.COMM_WORLD
RANK, SIZE = COMM.rank, COMM.size
LAST = SIZE - 1


class OwnError(ValueError):
    """An error of a caller's own."""

    def __init__(self, wanted: str, besides: str) -> None:
        super().__init__(f"{wanted} and {besides}")


@fl.rule(whole_leaf=True)
def strict(g, *, lr=0.1):
    """A rule of whole leaves that refuses what is large."""
    if np.abs(g).max() > 100:
        raise OwnError("this", "that")
    return -lr*g


def tree(seed: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    """This rank's part of numbers."""
    rng = np.random.default_rng([seed, RANK])
    return {"W": scale * rng.standard_normal((3 + RANK, 5)), "b": scale * rng.standard_normal(2000 + RANK)}


def unwritable(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


def nan_in(grads: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    grads["b"][-1] = math.nan
    return grads


def twice(params: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**params, "b": params["W"].reshape(-1)}


# What is passed in the place of (params, grads), and what all ranks must raise.
BAD: dict[str, tuple[Callable[..., Any], type[Exception]]] = {
    "not finite": (lambda x, g: (x, nan_in(g)), fl.NonFiniteGradient),
    "a shape": (lambda x, g: (x, {**g, "b": g["b"][:-1]}), ValueError),
    "a parameter's shape": (lambda x, g: ({**x, "b": x["b"][:-1].copy()}, g), ValueError),
    "complex": (lambda x, g: (x, {**g, "b": g["b"] + 1j}), TypeError),
    "integers": (lambda x, g: ({**x, "b": x["b"].astype(int)}, g), TypeError),
    "a missing leaf": (lambda x, g: (x, {"W": g["W"]}), ValueError),
    "nothing": (lambda x, g: (None, g), TypeError),
    "no gradient of a leaf": (lambda x, g: (x, {**g, "b": None}), ValueError),
    "read-only": (lambda x, g: ({**x, "b": unwritable(x["b"].copy())}, g), ValueError),
    "one memory": (lambda x, g: (twice(x), g), ValueError),
    "text": (lambda x, g: (x, {**g, "b": "text"}), TypeError),
}  # fmt: skip


OPTIMIZERS = {
    "Adam": lambda **o: fl.Adam(0.1, **o),
    "norm": lambda **o: fl.chain(fl.clip_norm(1.0), fl.Adam(0.1), **o),
    "norm, native": lambda **o: fl.chain(fl.clip_norm(1.0), fl.Adam(0.1), engine="native", **o),
    "partition": lambda **o: fl.chain(fl.clip_norm(1.0), fl.partition({"W": fl.LAMB(0.1), "b": fl.SGD(0.1)}, str), **o),
}
WRONG: list[str] = []


def expect(what: str, kind: type[Exception], text: str, act: Callable[..., Any], *given: Any) -> None:
    """All ranks must raise that, with that text in it, and the same."""
    try:
        act(*given)
        said = "no error"
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        if type(error) is not kind or text not in said:
            WRONG.append(f"{what}, on rank {RANK}: {said}")
    every = COMM.allgather(said)
    if "no error" in every or len(set(every)) > 1:
        WRONG.append(f"{what}: {every}")


def same(tree: Any, other: Any) -> bool:
    return all(np.array_equal(tree[path], other[path], equal_nan=True) for path in other)


def refused() -> None:
    """Whatever one rank passes that is wrong, all refuse, whichever rank it is, before the first step and after."""
    for name, make in OPTIMIZERS.items():
        good, bad = fl.mpi.domain_parallel(make()), fl.mpi.domain_parallel(make())
        x, y = tree(0), tree(0)
        for k, (what, (wrong, kind)) in enumerate(BAD.items()):
            culprit, before = k % SIZE, {path: leaf.copy() for path, leaf in y.items()}
            given = wrong(y, tree(k)) if culprit == RANK else (y, tree(k))
            differs = what == "no gradient of a leaf"
            expect(f"{name}: {what}", kind, "leaves without a gradient" if differs else f"On rank {culprit}:", bad.step,
                   *given)
            if not same(y, before) or bad.t != k:
                WRONG.append(f"{name}: {what} changed something on rank {RANK}")
            good.step(x, tree(k))
            bad.step(y, tree(k))
        if not same(y, x):
            WRONG.append(f"{name}: not the same bits after refusals on rank {RANK}")


def skipped() -> None:
    for name, make in OPTIMIZERS.items():
        plain, opt = fl.mpi.domain_parallel(make()), fl.mpi.domain_parallel(make(nonfinite="skip"))
        x, y = tree(0), tree(0)
        for k in range(4):
            opt.step(y, nan_in(tree(9)) if k % SIZE == RANK else tree(9))
            increment = opt.update(nan_in(tree(9)) if RANK == LAST else tree(9), params=y)
            if any(map(np.any, increment.values())):
                WRONG.append(f"{name}: an increment of a skipped call")
            plain.step(x, tree(k))
            opt.step(y, tree(k))
        if not same(y, x) or (opt.t, opt.skipped) != (4, 8):
            WRONG.append(f"{name}: t {opt.t}, skipped {opt.skipped} on rank {RANK}")


def by_coordinate(folder: str) -> None:
    """Settings by coordinate are parts as the leaves are, and whole in the file."""
    files = [os.path.join(folder, name) for name in ("ranks", "one")]
    rates, w, g = (np.random.default_rng(k).uniform(0.1, 1.0, 5001) for k in range(3))
    part = slice(*(len(w) * r // SIZE for r in (RANK, RANK + 1)))
    plain, opt = fl.Adam(rates), fl.mpi.domain_parallel(fl.Adam(rates[part]))
    x = w[part].copy()
    for _ in range(2):
        plain.step(w, g)
        opt.step(x, g[part].copy())
    opt.save(files[0], x)
    again, y = fl.mpi.load(files[0])
    again.step(y, y.copy())
    opt.step(x, x.copy())
    if not np.array_equal(x, y):
        WRONG.append("rates by coordinate, loaded")
    if RANK == 0:
        plain.save(files[1], w)
        if len({Path(file).read_bytes() for file in files}) > 1:
            WRONG.append("the file of rates by coordinate")
    COMM.Barrier()


def differing() -> None:
    """Calls that differ by rank."""
    opt, x = fl.mpi.domain_parallel(fl.Adam(0.1)), tree(0)
    opt.step(x, tree(1))
    last = RANK == LAST
    if last:
        opt.lr = 0.2
    expect("rates", ValueError, "adam.lr: 0.1 on rank 0" if SIZE > 1 else "", opt.step, x, tree(1))
    opt.lr = 0.1
    opt.t = 5 if last else 1
    expect("counts", ValueError, "step count t: 1 on rank 0", opt.step, x, tree(1))
    opt.t = 5
    expect("calls", ValueError, "their call", *((opt.update, tree(1)) if last else (opt.step, x, tree(1))))
    if last:
        opt.reset()
    expect("a reset", ValueError, "on rank 0", opt.step, x, tree(1))
    opt.reset()
    expect("leaves", ValueError, "the same leaves", opt.step, *([{"W": x["W"], "c" if last else "b": x["b"]}] * 2))
    more = {**x, "z": x["b"][:1].copy()}
    expect("more leaves", ValueError, "the same leaves", opt.step, *([more if last else x] * 2))
    expect("dtypes", ValueError, "the same on all ranks", opt.step, *([{**x, "b": np.float32([1])} if last else x] * 2))
    opt = fl.mpi.domain_parallel(fl.Adam(lambda t: 0.1 if t < 1 or not last else -1.0))
    opt.step(x, tree(1))
    expect("a schedule", ValueError, f"On rank {LAST}: lr of Adam must be ≥ 0. Got -1", opt.step, x, tree(1))
    opt = fl.mpi.domain_parallel(fl.accumulate(3, fl.Adam(0.1)))
    opt.step(x, tree(1))
    expect("a flush", TypeError, f"On rank {LAST}: flush of", opt.flush, None if last else x)
    opt.flush(x)
    expect("a flush of nothing", TypeError, f"On rank {LAST}: flush of", opt.flush, None if last else x)


def parts() -> None:
    """Parts that are none of one leaf."""
    x = np.ones(4)
    place = 4 * RANK

    def at(start: Any, make: Any = fl.SGD, **named: Any) -> Any:
        return fl.mpi.domain_parallel(make(), None, start, **named).step

    expect("a gap", ValueError, "without gap or overlap", at(place + (RANK == LAST)), x, x)
    expect("an overlap", ValueError, "without gap or overlap", at(place - (RANK == LAST)), x, x)
    expect("no start", ValueError, "On rank 0: offsets", at("here"), x, x)
    expect("a start below 0", ValueError, "On rank 0: offsets", at(-1), x, x)
    expect("no tree of starts", ValueError, "On rank 0: offsets", at([1, 2]), x, x)
    expect("unknown names", ValueError, "replicated of domain_parallel", at(None, replicated=["W"]), x, x)
    expect("numbers", ValueError, "replicated=['']", at(None), 1.0, 1.0)
    expect("replicated shapes", ValueError, "one shape on all ranks", at(None, replicated=[""]), np.ones(4 + RANK),
           np.ones(4 + RANK))
    expect("whole leaves", ValueError, "whole on one rank", at(None, fl.Muon), np.ones((2, 2)), np.ones((2, 2)))
    mine = RANK == 0
    leaf = np.ones((2, 2) if mine else (0, 2))
    step = at(None, lambda: fl.Optimizer(strict))
    expect("a whole leaf", ValueError, "On rank 0: OwnError: this and that", step, leaf, leaf * 1000)
    step = at([place], fl.Adam)
    y = [np.zeros(4)]
    step(y, [np.ones(4)])
    if not np.array_equal(y[0], np.full(4, y[0][0])):
        WRONG.append("offsets in a tree")


def full(handle: int) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def files(folder: str) -> None:
    opt, x, file = fl.mpi.domain_parallel(fl.Adam(0.1)), tree(0), os.path.join(folder, "run.safetensors")
    opt.step(x, tree(1))
    opt.save(file, x)
    with open(file, "rb") as found:
        before = found.read()
    y, t = {path: leaf.copy() for path, leaf in x.items()}, opt.t
    other = fl.mpi.domain_parallel(fl.Adam(0.5))
    other.step(tree(5), tree(6))
    z = other.load(file)
    if not same(z, x) or (other.t, other.lr) != (t, 0.1):
        WRONG.append("what opt.load gives")
    twin = copy.deepcopy(other)
    for each, leaves in ((opt, y), (other, z), (twin, x)):
        each.step(leaves, tree(2))
    if not same(y, z) or not same(y, x):
        WRONG.append("a step after opt.load, or of a copy")
    expect("a pickle", TypeError, "cannot be pickled", pickle.dumps, opt)
    expect("unknown leaves", ValueError, "must know their parts", fl.mpi.domain_parallel(fl.Adam()).load, file)
    expect("parameters", ValueError, f"On rank {LAST}: ", opt.save, file, {"W": x["W"]} if RANK == LAST else x)
    expect("a folder that is none", fl.CheckpointError, "On rank 0: ", opt.save, os.path.join(folder, "no", "run"), x)
    expect("a folder", fl.CheckpointError, "On rank 0: ", opt.save, folder, x)
    with patch("os.fsync", full if RANK == LAST else os.fsync):
        text = f"On rank {LAST}: {file} could not be written (No space"
        expect("a full disk", fl.CheckpointError, text, opt.save, file, x)
    parted = fl.mpi.domain_parallel(fl.partition({"W": fl.SGD(), "b": fl.Adam()}, str))
    parted.step(x, tree(1))
    for each in (parted, parted.fresh(), copy.deepcopy(parted)):
        each.step(x, tree(1))
        expect("a part", ValueError, "is saved with the others", each.parts["b"].save, os.path.join(folder, "part"))
    with open(file, "rb") as found:
        if found.read() != before:
            WRONG.append("a refused save changed the file")
    expect("no file", FileNotFoundError, "On rank 0: ", fl.mpi.load, file + ".none")
    expect("ranges", ValueError, "(start, stop)", fl.mpi.load, file, None, {"W": 3})
    expect("unknown ranges", ValueError, "ranges of load", fl.mpi.load, file, None, {"c": (0, 1)})
    expect("one range", ValueError, "dict by path", fl.mpi.load, file, None, (0, 1))
    COMM.Barrier()
    if RANK == 0:
        with open(file, "r+b") as found:
            found.seek(len(before) // 2)
            found.write(bytes([before[len(before) // 2] ^ 1]))
    COMM.Barrier()
    expect("a damaged file", fl.CheckpointError, "On rank 0: ", fl.mpi.load, file)
    expect("a damaged file", fl.CheckpointError, "On rank 0: ", opt.load, file)
    if RANK == 0 and os.listdir(folder) != ["run.safetensors"]:
        WRONG.append(f"left over: {os.listdir(folder)}")


def loops() -> None:
    """descend ends on all ranks where it ends on one."""
    def stops(point: Any) -> None:
        if RANK == LAST and point.t == 3:
            raise StopIteration

    def breaks(kind: type[Exception]) -> Any:
        def value_and_grad(x: np.ndarray) -> Any:
            if RANK == LAST:
                raise kind("too large")
            return 1.0, x
        return value_and_grad

    def descend(function: Any, **given: Any) -> Any:
        return fl.descend(function, np.ones(3 + RANK), fl.mpi.domain_parallel(fl.SGD(0.1)), steps=9, **given)

    def bowl(x: np.ndarray) -> tuple[float, np.ndarray]:
        return float(RANK), 2 * x

    found = {"a callback": (descend(lambda x: (None, x), callback=stops), "after 3 steps"),
             "too large": (descend(breaks(OverflowError)), f"OverflowError (On rank {LAST}: too large)"),
             "a target": (descend(bowl, target=(SIZE - 1) / 2), "reached the target"),
             "patience": (descend(bowl, patience=2), "no value below"),
             "NaN": (descend(lambda x: (1.0, 2 * x * (np.nan if RANK == 0 else 1))), "the gradient is not finite"),
             "parameters": (descend(lambda x: (1.0, 2 * x - (np.inf if RANK == LAST else 0))), "not finite")}
    WRONG.extend(f"{what}: {run.message}" for what, (run, text) in found.items() if text not in run.message)
    if found["a target"][0].values.tolist() != [(SIZE - 1) / 2]:
        WRONG.append("the mean of values")
    expect("an error", KeyError, f"On rank {LAST}: ", descend, breaks(KeyError))
    expect("values of some", TypeError, "All ranks must return a value", descend,
           lambda x: (None if RANK == LAST else 1.0, x))
    expect("minimize", TypeError, "one process", fl.minimize, bowl, np.ones(3), (), fl.mpi.domain_parallel(fl.SGD))


class Counted:
    """A communicator that notes the bytes that this rank gives to each of its calls."""

    def __init__(self, comm: Any) -> None:
        self._comm, self.given = comm, []

    def __getattr__(self, name: str) -> Any:
        def counted(*given: Any) -> Any:
            mine = given[1] if name == "Allreduce" else given[0]
            self.given.append((name, (mine[0] if isinstance(mine, list) else mine).nbytes))
            return whole(*given)
        whole = getattr(self._comm, name)
        return counted if callable(whole) else whole


def sent() -> None:
    """A step sends one status; with a norm two, and 24 bytes for each block that begins here."""
    n = 50_000
    w = np.ones(n, np.float32)
    blocks = -(-n * (RANK + 1) // 4096) - -(-n * RANK // 4096)
    status = ("Allreduce", 24)
    for make, wanted in ((lambda: fl.Adam(0.1), [status]),
                         (lambda: fl.chain(fl.clip_norm(1.0), fl.Adam(0.1)),
                          [status, ("Allgatherv", 24 * blocks), status])):
        opt = fl.mpi.domain_parallel(make())
        opt.step(w, w.copy())
        others: Any = opt._stepper.others
        others.comm = others._word.comm = counted = Counted(others.comm)
        opt.step(w, w.copy())
        found = [call for call in counted.given if call[0] not in ("Isend", "Irecv")]
        if found != wanted or sum(size for name, size in counted.given if name == "Isend") > 4 * 4096:
            WRONG.append(f"sent on rank {RANK}: {counted.given}, and not {wanted}")


def busy() -> None:
    """A schedule that steps the optimizer it is asked by."""
    x = np.ones(3)
    opt = fl.mpi.domain_parallel(fl.SGD(lambda t: opt.step(x, x) if t and RANK == LAST else 0.1))
    opt.step(x, x.copy())
    expect("a schedule that steps", fl.BusyOptimizer, f"On rank {LAST}: ", opt.step, x, x.copy())


def main(folder: str, out: str) -> None:
    faulthandler.dump_traceback_later(100, exit=True)  # who waits for whom
    refused()
    skipped()
    differing()
    parts()
    files(folder)
    by_coordinate(folder)
    loops()
    sent()
    busy()
    every = [line for lines in COMM.allgather(WRONG) for line in lines]
    if RANK == 0:
        with open(out, "w", encoding="utf-8") as file:
            file.write("\n".join(every))


if __name__ == "__main__":
    main(*sys.argv[1:])
