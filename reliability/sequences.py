"""Random sequences of calls, here and in another checkout, side by side: python -m reliability.sequences PATH

Each sequence makes an optimizer and calls it in ways that are drawn: steps, updates, settings, copies, pickles, files,
parts, arrays of other layouts, and what is refused. What came, to the bit, and every message must be the same in the
checkout at PATH. It uses public names only.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import os
import pickle
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import fallline as fl
from reliability.chains import CHAINS, DTYPES, WHOLE, Hash

CALLS = 14  # in a sequence
ROOT = Path(__file__).parents[1]


def _part(path: str) -> str:
    return "x" if path < "b" else "y"


MORE: dict[str, Callable[..., Any]] = {
    "parts that gather": lambda **o: fl.partition(
        {"x": fl.accumulate(2, fl.SGD(0.1)), "y": fl.Rprop(0.1)}, _part, **o),
    "gathering for parts": lambda **o: fl.accumulate(
        3, fl.clip_norm(0.5), fl.partition({"x": fl.Adam(0.1), "y": fl.LARS(0.1)}, _part), **o),
    "a part that is left": lambda **o: fl.chain(fl.clip_norm(0.7), fl.partition(
        {"x": fl.Adam(0.1), "y": None}, _part), fl.average(0.5), **o),
    "averages of a part": lambda **o: fl.partition(
        {"x": fl.Adam(0.1), "y": fl.chain(fl.Nesterov(0.1), fl.average(0.5))}, _part, **o),
    "a mask that gathers": lambda **o: fl.mask(
        {"a": True, "b": False, "c": True}, fl.accumulate(2, fl.Adam(0.1)), **o),
    "a schedule that goes wrong": lambda **o: fl.Momentum(lambda t: 0.1 / (1 + t) if t < 6 else -1.0, **o),
    "by coordinate": lambda **o: fl.Adam({"a": 0.1, "b": 0.2, "c": np.full((2, 2), 0.1)}, **o),
    "skips": lambda **o: fl.Adam(0.1, nonfinite="skip", **o),
    "propagates": lambda **o: fl.Momentum(0.1, nonfinite="propagate", **o),
}  # fmt: skip
KINDS = {**CHAINS, **MORE}


def _spread(leaf: Any) -> Any:
    if isinstance(leaf, float) or not leaf.ndim:
        return leaf
    room = np.zeros((*leaf.shape, 2), leaf.dtype)[..., 0]
    room[...] = leaf
    return room


def _fortran(leaf: Any) -> Any:
    return leaf if isinstance(leaf, float) else np.array(leaf, order="F")


class Sequence:
    """An optimizer, those that come of it by copies and files, each with parameters of its own, and what is drawn."""

    def __init__(self, seed: int, folder: str) -> None:
        self.rng, self.folder = np.random.default_rng(seed), folder
        self.name = str(self.rng.choice(list(KINDS)))
        engine = self.rng.choice(["native", "reference", "auto", "auto", "eager"])
        self.engine = "auto" if engine == "eager" and self.name in WHOLE else str(engine)
        kinds = [k for k in DTYPES if self.name not in WHOLE or "complex" not in k]
        self.dtypes = [np.dtype(DTYPES[k]) for k in self.rng.choice(kinds, 3)]
        self.shapes = [(3,), [(2, 3), (), (0,)][self.rng.integers(3)], (2, 2)]
        self.floats = self.rng.random() < 0.1
        self.runs = [(KINDS[self.name](engine=self.engine), self.tree())]
        self.opt, self.w = self.runs[0]

    def leaf(self, k: int) -> Any:
        numbers: Any = self.rng.standard_normal((2, *self.shapes[k]))
        if self.floats:
            return float(numbers.sum())
        numbers = numbers[0] + 1j * numbers[1] if self.dtypes[k].kind == "c" else numbers[0]
        return np.array(numbers).astype(self.dtypes[k])

    def tree(self) -> dict[str, Any]:
        return {name: self.leaf(k) for k, name in enumerate("abc")}

    def one_of(self, *things: Any) -> Any:
        return things[self.rng.integers(len(things))]

    def lines(self) -> list[str]:
        """What comes of each call, and of all in the end."""
        found = [f"{self.name}, {self.engine}"]
        for _ in range(CALLS):
            k = int(self.rng.integers(len(self.runs)))
            self.opt, self.w = self.runs[k]
            name = self.one_of(*["step"] * 6, *ACTIONS)
            found.append(f"{name}: {self._told(ACTIONS[name])}")
            self.runs[k] = self.opt, self.w
        return [*found, *(self._told(lambda _, opt=opt, w=w: [opt.t, opt.state_dict(), w]) for opt, w in self.runs)]

    def _told(self, act: Callable[[Sequence], Any]) -> str:
        try:
            what = act(self)
        except Exception as error:  # whatever it is, it must be the same there
            return f"{type(error).__name__}: {error}".replace(self.folder, "")
        hashed = Hash()
        hashed.add(what)
        return hashed.text()

    def step(self, grads: Any) -> Any:
        self.w = self.opt.step(self.w, grads)
        return self.w

    def laid(self, how: Callable[[Any], Any]) -> Any:
        self.w = {name: how(leaf) for name, leaf in self.w.items()}
        return self.step({name: how(leaf) for name, leaf in self.tree().items()})

    def goes_on(self, opt: Any) -> Any:
        self.runs.append((opt, copy.deepcopy(self.w)))
        return self.opt.state_dict()


def _update_to(s: Sequence) -> Any:
    out = s.tree()
    return [s.opt.update(s.tree(), params=s.w, out=out), out]


def _spoiled(s: Sequence) -> Any:
    grads = s.tree()
    grads[s.one_of(*"abc")] = s.one_of(np.ones(7), "no", np.ones((2, 2), int), [1.0], None)
    return s.step(grads)


def _not_finite(s: Sequence) -> Any:
    grads = s.tree()
    name = s.one_of(*"abc")
    grads[name] = grads[name] * float("nan")
    return [s.step(grads), s.opt.skipped]


def _other_parameters(s: Sequence) -> Any:
    params = dict(s.w)
    params[s.one_of(*"abc")] = s.one_of(np.ones(7), np.ones((2, 2), np.float32), 3, "x", None)
    return s.opt.step(params, s.tree())


def _moved(s: Sequence) -> Any:
    s.w = copy.deepcopy(s.w)
    return s.step(s.tree())


def _set(s: Sequence, name: str, *values: Any) -> None:
    setattr(s.opt, name, s.one_of(*values))


def _loaded_copy(s: Sequence) -> Any:
    other = s.opt.fresh()
    other.load_state_dict(s.opt.state_dict())
    return s.goes_on(other)


def _saved(s: Sequence) -> Any:
    path, other = os.path.join(s.folder, "saved"), s.opt.fresh()
    s.opt.save(path, s.w)
    s.runs.append((other, other.load(path)))
    return s.runs[-1][1]


def _adapted(s: Sequence) -> Any:
    params = dict(s.w)
    if params.pop(s.one_of("b", "d"), None) is None:
        params["d"] = np.ones(2)
    s.opt.adapt(params)
    stepped = s.opt.step(params, {name: leaf * 0.5 for name, leaf in params.items()})
    s.opt.adapt(s.w)
    return stepped


def _a_part(s: Sequence) -> Any:
    part = next(iter(s.opt.parts.values()))
    here = {name: leaf if _part(name) == "x" else None for name, leaf in s.w.items()}
    alone = copy.deepcopy(part)
    return [part.state, part.t, part.rest(here), alone.state_dict(), alone.step(copy.deepcopy(here), here)]


def _busy(s: Sequence) -> Any:
    s.opt.lr = lambda t: s.opt.t and 0.1
    try:
        return s.step(s.tree())
    finally:
        s.opt.lr = 0.1


ACTIONS: dict[str, Callable[[Sequence], Any]] = {
    "step": lambda s: s.step(s.tree()),
    "step by the parameters": lambda s: s.step(s.w),
    "step elsewhere": _moved,
    "step in Fortran's order": lambda s: s.laid(_fortran),
    "step with strides": lambda s: s.laid(_spread),
    "step in another order of keys": lambda s: s.step(dict(reversed(s.tree().items()))),
    "step without one": lambda s: s.step({**s.tree(), s.one_of(*"abc"): None}),
    "step spoiled": _spoiled,
    "step not finite": _not_finite,
    "step other parameters": _other_parameters,
    "step without parameters": lambda s: s.opt.step(None, s.tree()),
    "step another structure": lambda s: s.opt.step([s.w], [s.tree()]),
    "step while busy": _busy,
    "update": lambda s: s.opt.update(s.tree()),
    "update twice": lambda s: [s.opt.update(s.tree(), params=s.w) for _ in range(2)],
    "update to outputs": _update_to,
    "set lr": lambda s: _set(s, "lr", 0.05, 0.3, -1.0, np.float32(0.2)),
    "set momentum": lambda s: _set(s, "momentum", -0.5, 0.5),
    "set a schedule": lambda s: _set(s, "lr", fl.schedules.linear(0.2, steps=20)),
    "set t": lambda s: _set(s, "t", 0, 3, 7, -1),
    "reset": lambda s: s.opt.reset(),
    "copy": lambda s: s.goes_on(copy.deepcopy(s.opt)),
    "pickle": lambda s: s.goes_on(pickle.loads(pickle.dumps(s.opt))),
    "load a state": _loaded_copy,
    "load a state into the first": lambda s: s.runs[0][0].load_state_dict(s.opt.state_dict()),
    "save and load": _saved,
    "adapt": _adapted,
    "look": lambda s: [s.opt.state, s.opt.t, s.opt.calls, s.opt.skipped, str(s.opt), str(s.opt.hyper)],
    "rest": lambda s: s.opt.rest(s.w),
    "averaged": lambda s: s.opt.averaged,
    "a part": _a_part,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", nargs="?", help="another checkout; without it, what came here is printed")
    parser.add_argument("--times", type=int, default=1000, help="how many sequences")
    parser.add_argument("--seed", type=int, default=0, help="of the first; the others follow")
    asked = parser.parse_args()
    if asked.path is None:
        warnings.simplefilter("ignore")
        with tempfile.TemporaryDirectory() as folder, np.errstate(all="ignore"):
            for seed in range(asked.seed, asked.seed + asked.times):
                print(f"== {seed}", *Sequence(seed, folder).lines(), sep="\n")
        return
    command = [sys.executable, "-m", "reliability.sequences", "--times", str(asked.times), "--seed", str(asked.seed)]
    runs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True,
                             env={**os.environ, "PYTHONPATH": f"{Path(root).resolve() / 'src'}{os.pathsep}{ROOT}"})
            for root in (ROOT, asked.path)]  # fmt: skip
    here, there = (run.communicate()[0].split("\n== ") for run in runs)
    apart = [(a, b) for a, b in itertools.zip_longest(here, there, fillvalue="nothing") if a != b]
    for a, b in apart[:5]:
        print(a, *(f"{one}\n  there: {other}" for one, other in itertools.zip_longest(
            a.split("\n"), b.split("\n"), fillvalue="nothing") if one != other), sep="\n")
    print(f"{len(here)} sequences of {CALLS} calls, {len(apart)} of which differ.")
    raise SystemExit(bool(apart) or any(run.returncode for run in runs))


if __name__ == "__main__":
    main()
