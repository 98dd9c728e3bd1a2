"""Runs that one process and any number of ranks make, and what came of each as digests of files."""

import hashlib
import itertools
import math
import os
import random
import zlib
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np

import fallline as fl

STEPS = 3


@dataclass(frozen=True)
class Case:
    """An optimizer for leaves (shape and dtype by path), and what is done besides.

    `replicated` leaves are on every rank, `whole` ones each on one. A leaf of `absent` has no gradient in step 2. In
    step `bad` one coordinate of the last leaf is NaN. Arrays are views with strides if they are `strided`.
    """

    make: Any
    leaves: dict[str, tuple[tuple[int, ...], Any]]
    replicated: tuple[str, ...] = ()
    whole: bool = False
    absent: tuple[str, ...] = ()
    bad: int | None = None
    strided: bool = False
    rules: tuple[Any, ...] = ()
    given: dict[str, Any] = field(default_factory=dict)  # what a file cannot hold


@fl.rule
def tamed(g, m=0, seen=fl.scalar(0.0, over="leaf"), *, lr=0.1):
    """A rule of one's own, with sums over leaf and tree, and a number of each leaf."""
    seen = seen + fl.norm(g, over="leaf")
    m = 0.9*m + g/(1 + fl.norm(g - m, over="tree"))
    return -lr*m/(1 + seen), m, seen


F4, F8, C8, F2, BF = np.float32, np.float64, np.complex64, np.float16, ml_dtypes.bfloat16
VECTOR = {"": ((20_011,), F4)}
MIXED = {"W": ((37, 301), F4), "b": ((4_097,), F8), "c": ((5_003,), C8), "h": ((4_500,), F2), "k": ((9_001,), BF),
         "none": ((0, 3), F4), "s": ((), F8)}
SMALL = {"W": ((12, 40), F4), "b": ((29,), F8)}
MATRICES = {"U": ((30, 20), F4), "V": ((8, 25), F8), "b": ((40,), F4)}


def clipped(**options: Any) -> Any:
    return fl.chain(fl.clip_norm(1.0), fl.Adam(0.1), fl.weight_decay(0.01), **options)


def divided(**options: Any) -> Any:
    parts = {"a": fl.chain(fl.clip_norm(0.5), fl.Momentum(0.1)), "rest": fl.LAMB(0.1)}
    return fl.chain(fl.clip_norm(1.0), fl.partition(parts, label), fl.weight_decay(0.01), **options)


def label(path: str) -> str:
    return "a" if path in ("W", "b") else "rest"


def masked(path: str) -> bool:
    return path in ("W", "c", "s")


def scheduled() -> Any:
    return fl.chain(fl.clip_norm(1.0), fl.Adam(fl.schedules.cosine(0.1, steps=9)), fl.average(0.9))


CHAINS = {
    "norm": Case(clipped, VECTOR),
    "norm, NumPy": Case(lambda: clipped(engine="reference"), VECTOR),
    "norm, native": Case(lambda: clipped(engine="native"), VECTOR),
    "mixed": Case(clipped, MIXED, ("s",)),
    "mixed, native": Case(lambda: clipped(engine="native"), MIXED, ("s",), absent=("b", "c")),
    "replicated": Case(clipped, MIXED, ("s", "h", "W")),
    "strided": Case(clipped, MIXED, ("s",), strided=True),
    "strided, native": Case(lambda: clipped(engine="native"), MIXED, ("s",), strided=True),
    "partition": Case(divided, MIXED, ("s",), absent=("W", "h"), given={"label": label}),
    "partition, native": Case(lambda: divided(engine="native"), MIXED, ("s",), given={"label": label}),
    "own": Case(lambda: fl.Optimizer(tamed), MIXED, ("s",), rules=(tamed,)),
    "own, native": Case(lambda: fl.Optimizer(tamed, engine="native"), MIXED, ("s",), rules=(tamed,)),
    "scheduled": Case(scheduled, MIXED, ("s",)),
    "skips": Case(lambda: clipped(nonfinite="skip"), MIXED, ("s",), bad=1),
    "skips, native": Case(lambda: clipped(nonfinite="skip", engine="native"), MIXED, ("s",), bad=1),
    "gathers": Case(lambda: fl.accumulate(2, clipped()), MIXED, ("s",), absent=("b",)),
    "mask": Case(lambda: fl.mask(masked, clipped()), MIXED, ("s",), given={"by": masked}),
    "dialect": Case(lambda: fl.dialects.optax.adamw(0.1), SMALL),
    "whole": Case(lambda: fl.chain(fl.clip_norm(1.0), fl.Muon(0.1)), MATRICES, whole=True),
    "factored": Case(fl.Adafactor, MATRICES, whole=True),
}  # fmt: skip
RULES = {name: Case(cls, MATRICES if cls.rule.whole_leaf else SMALL, whole=cls.rule.whole_leaf)
         for name, cls in fl.OPTIMIZERS.items()}
SIZES = (0, 1, 2, 5, 100, 4095, 4096, 4097, 8192, 12_289)
MAKERS = {
    "clipped": clipped,
    "native": lambda: clipped(engine="native"),
    "divided": divided,
    "own": lambda: fl.Optimizer(tamed, engine="native"),
    "LAMB": lambda: fl.chain(fl.clip_norm(1.0), fl.LAMB(0.1)),
    "Prodigy": fl.Prodigy,
    "gathers": lambda: fl.accumulate(2, clipped()),
}


def drawn(number: int) -> Case:
    """A case by chance: leaves of sizes about that of a block, of any dtypes."""
    rng = random.Random(number)
    leaves = {path: ((rng.choice(SIZES), *rng.choice([(), (), (3,)])), rng.choice((F4, F8, C8, F2, BF)))
              for path in rng.sample("Wbcde", rng.randint(1, 4))}
    some = [tuple(path for path in leaves if rng.random() < 0.2) for _ in range(2)]
    name = rng.choice(list(MAKERS))
    rules, given = (tamed,) * (name == "own"), {"label": label} if name == "divided" else {}
    return Case(MAKERS[name], leaves, some[0], absent=some[1], strided=rng.random() < 0.3, rules=rules, given=given)


CASES = CHAINS | RULES | {f"drawn {number}": drawn(number) for number in range(8)}


class Ranks:
    """So many ranks, of which this is one; leaves are cut at random, by a seed of the case and their number."""

    def __init__(self, comm: Any, case: str) -> None:
        self.comm, self.case = comm, CASES[case]
        self.rng = np.random.default_rng([zlib.crc32(case.encode()), comm.size])
        self.turned = bool(self.rng.integers(2))  # whether ranges do not lie in the order of ranks
        self.cuts = {path: self._cut(path, k) for k, path in enumerate(self.case.leaves)}

    def _cut(self, path: str, number: int) -> list[tuple[int, int]]:
        """The range of each rank, in coordinates."""
        (shape, _), n = self.case.leaves[path], self.comm.size
        size = math.prod(shape)
        if path in self.case.replicated:
            return [(0, size)] * n
        rows = math.prod(shape[1:])
        ends = np.sort(self.rng.integers(0, shape[0] + 1, n - 1)).tolist()
        if self.case.whole:
            ends = [0] * (number % n) + [shape[0]] * (n - 1 - number % n)
        ends = [0, *ends, shape[0]]
        found = [(a * rows, b * rows) for a, b in itertools.pairwise(ends)]
        return found[::-1] if self.turned else found

    def offsets(self) -> Any:
        return tree({path: cut[self.comm.rank][0] for path, cut in self.cuts.items()}) if self.turned else None

    def ranges(self) -> Any:
        """Others, by coordinates, in the order of ranks."""
        found = {}
        for path, (shape, _) in self.case.leaves.items():
            size = math.prod(shape)
            ends = [0, *np.sort(self.rng.integers(0, size + 1, self.comm.size - 1)).tolist(), size]
            if path not in self.case.replicated:
                found[path] = (ends[self.comm.rank], ends[self.comm.rank + 1])
        return found[""] if [*found] == [""] else found

    def part(self, path: str, whole: np.ndarray) -> np.ndarray:
        start, stop = self.cuts[path][self.comm.rank]
        return of_range(whole, start, stop)


def of_range(whole: np.ndarray, start: int, stop: int) -> np.ndarray:
    return whole.reshape(-1)[start:stop].reshape(-1, *whole.shape[1:]) if whole.ndim and whole.size else whole


def tree(leaves: dict[str, Any]) -> Any:
    return leaves[""] if list(leaves) == [""] else leaves


def noise(case: Case, seed: int, path: str) -> np.ndarray:
    shape, dtype = case.leaves[path]
    rng = np.random.default_rng([seed, zlib.crc32(path.encode())])
    found = rng.standard_normal(shape)
    return np.asarray(found + 1j * rng.standard_normal(shape) if dtype is C8 else found).astype(dtype)


def lying(case: Case, array: np.ndarray) -> np.ndarray:
    """An array of the same numbers that lies as the case has it."""
    if not case.strided or array.ndim == 0:
        return array.copy()
    wide = np.zeros((2 * array.shape[0], *array.shape[1:]), array.dtype)
    wide[::2] = array
    return wide[::2]


def walk(case: Case, opt: Any, params: dict[str, np.ndarray], steps: range, part: Any) -> None:
    """Take these steps of the run, with the parameters in place."""
    for t in steps:
        grads = {}
        for path, x in params.items():
            whole = noise(case, t + 1, path)
            if t == case.bad and path == next(iter(params)):
                whole.reshape(-1)[-1] = np.nan
            absent = t == 2 and path in case.absent
            grads[path] = None if absent else lying(case, part(path, whole) + x / x.dtype.type(8))
        if t == 1:
            increment = opt.update(tree(grads), params=tree(params))
            for path, d in ({"": increment} if [*params] == [""] else increment).items():
                params[path][...] = params[path] + d
        else:
            opt.step(tree(params), tree(grads))


def digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:16]


FIRST, THEN = range(STEPS), range(STEPS, STEPS + 2)


def alone(case: Case, file: str) -> list[str]:
    """What comes of a case in one process: the file after some steps, and after more."""
    params, found = {path: lying(case, noise(case, 0, path)) for path in case.leaves}, []
    opt = case.make()
    for steps in (FIRST, THEN):
        walk(case, opt, params, steps, lambda path, whole: whole)
        opt.save(file, tree(params))
        found.append(digest(file))
    return found


def together(name: str, file: str, comm: Any) -> list[str]:
    """The same of ranks, which load the first file with their leaves cut in another way."""
    case, ranks = CASES[name], Ranks(comm, name)
    params = {path: lying(case, ranks.part(path, noise(case, 0, path))) for path in case.leaves}
    opt = fl.mpi.domain_parallel(case.make(), comm, ranks.offsets(), replicated=case.replicated)
    walk(case, opt, params, FIRST, ranks.part)
    opt.save(file, tree(params))
    found = [comm.bcast(digest(file) if comm.rank == 0 else None)]
    ranges = None if case.whole else ranks.ranges()
    opt, parts = fl.mpi.load(file, comm, ranges, replicated=case.replicated, rules=case.rules, **case.given)
    params = {"": parts} if [*params] == [""] else parts
    sizes = comm.allgather({path: part.size for path, part in params.items()})

    def part(path: str, whole: np.ndarray) -> np.ndarray:
        start = 0 if path in case.replicated else sum(of[path] for of in sizes[: comm.rank])
        return whole.reshape(-1)[start : start + params[path].size].reshape(params[path].shape)

    walk(case, opt, params, THEN, part)
    opt.save(file, tree(params))
    return [*found, comm.bcast(digest(file) if comm.rank == 0 else None)]


def compared(folder: str, what: str, comm: Any) -> dict[str, Any]:
    """What one process came to, and ranks, in each case."""
    cases = CASES if what == "all" else CHAINS
    mine = {name: alone(case, os.path.join(folder, f"alone {comm.rank}"))
            for k, (name, case) in enumerate(cases.items()) if k % comm.size == comm.rank}
    of_one = {name: own for found in comm.allgather(mine) for name, own in found.items()}
    return {name: [of_one[name], together(name, os.path.join(folder, "together"), comm)] for name in cases}
