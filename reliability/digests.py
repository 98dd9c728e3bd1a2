"""Digests of what many optimizers come to, over dtypes, layouts and ways of calling: equal if not a bit has changed.

It uses public names only, so that any two checkouts can be compared: `PYTHONPATH=../other/src:. python -m reliability
digests`. What comes of a library's own functions (BLAS in Muon, log and exp in schedules) may differ by machine.
"""

from __future__ import annotations

import hashlib
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

import fallline as fl

__all__ = ["CHAINS", "DTYPES", "LIBRARIES", "WHOLE", "Hash", "digests"]

DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16,
          "complex128": np.complex128, "complex64": np.complex64}  # fmt: skip
WHOLE = ("Muon", "Adafactor")  # which refuse complex numbers
LIBRARIES = ("Muon", "cosine", "inverse_sqrt", "partition", "around a partition", "polynomial")
"""Parts of names of cases whose bits a library's functions have a part in."""


@fl.rule
def mixed(g, x, t, m=0, start="x", last="g", n=fl.scalar(0.5), k=fl.scalar("lr", over="leaf"), *,
          lr: fl.NonNegative = 1e-2, beta: fl.Fraction = 0.9):
    """All that a formula may be made of: sums over leaf and tree, numbers as state, state from parameter or g."""
    m = beta * m + (1 - beta) * g
    u = m / (1 + fl.norm(m, "leaf")) + (g - last) * fl.total(g * (x - start)) / (1 + fl.total(g * g))
    k = k + fl.norm(x, "leaf") * lr
    n = n * beta + fl.total(fl.abs(g)) * t
    return -lr * u / k / (1 + fl.norm(u)), m, start + 0, g + 0, n, k


def _by_rank(path: str, shape: tuple[int, ...]) -> str:
    return "matrices" if len(shape) == 2 else "rest"


def _parts(**options: Any) -> Any:
    return fl.partition({"matrices": fl.Nadam(0.01), "rest": fl.chain(fl.clip_norm(0.5), fl.Momentum(0.02))}, _by_rank,
                        **options)


CHAINS: dict[str, Callable[..., Any]] = {
    **fl.OPTIMIZERS,
    "clip_value, l2, Nadam, weight_decay": lambda **o: fl.chain(
        fl.clip_value(0.5), fl.l2(0.1), fl.Nadam(0.01), fl.weight_decay(0.01), **o),
    "clip_norm, Momentum, average": lambda **o: fl.chain(fl.clip_norm(0.5), fl.Momentum(0.01), fl.average(0.9), **o),
    "maximize, Adam": lambda **o: fl.chain(fl.maximize(), fl.Adam(0.01), **o),
    "accumulate 3, AdamW": lambda **o: fl.accumulate(3, fl.AdamW(0.01), **o),
    "accumulate 2, clip_norm, Lion": lambda **o: fl.accumulate(2, fl.chain(fl.clip_norm(1.0), fl.Lion(0.01)), **o),
    "all that a formula may be": lambda **o: fl.Optimizer(mixed, **o),
    "Adam, cosine": lambda **o: fl.Adam(fl.schedules.cosine(0.1, steps=9, warmup=2), **o),
    "AdamW, linear": lambda **o: fl.AdamW(fl.schedules.linear(0.1, steps=9), weight_decay=lambda t: 0.5**t, **o),
    "Adam, by path": lambda **o: fl.Adam(fl.by_path(lambda path: 0.1 if path.endswith("b") else 0.01), **o),
    "partition": _parts,
    "mask": lambda **o: fl.mask(lambda path: not path.endswith("b"), fl.Adam(0.05), **o),
    "around a partition": lambda **o: fl.chain(fl.clip_norm(0.5), _parts(), fl.weight_decay(0.01), **o),
}  # fmt: skip


def _numbers(rng: np.random.Generator, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    numbers: Any = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 2, shape)
    return (numbers + 1j * rng.standard_normal(shape) if np.dtype(dtype).kind == "c" else numbers).astype(dtype)


SHAPES = {"W": (40, 30), "b": (30,), "deep": (5, 7, 9), "long": (9000,), "one": (), "none": (0, 3)}


def _tree(rng: np.random.Generator, dtype: Any) -> dict[str, Any]:
    leaves = {name: _numbers(rng, shape, dtype) for name, shape in SHAPES.items()}
    return {"layer": {"W": leaves["W"], "b": leaves["b"]}, "rest": [leaves[k] for k in ("deep", "long", "one", "none")]}


def _laid(tree: Any, how: Callable[[np.ndarray], np.ndarray]) -> Any:
    if isinstance(tree, dict):
        return {key: _laid(value, how) for key, value in tree.items()}
    return [_laid(value, how) for value in tree] if isinstance(tree, list) else how(tree)


def _spread(array: np.ndarray) -> np.ndarray:
    """The same numbers with others in between, along the first axis reversed."""
    room = np.zeros(tuple(2 * n for n in array.shape), array.dtype)
    view = room[(..., *(slice(None, None, 2) for _ in array.shape))]
    view = view[::-1] if array.ndim else view
    view[...] = array
    return view


LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "plain": lambda a: a, "Fortran": lambda a: np.asfortranarray(a) if a.ndim else a, "spread": _spread}  # fmt: skip


class Hash:
    """Of all that is added: arrays by their bytes in C order, NaN as one number."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()

    def add(self, value: Any) -> None:
        if isinstance(value, Mapping):
            for key in sorted(value):
                self._sha.update(repr(key).encode())
                self.add(value[key])
        elif isinstance(value, (list, tuple)):
            for item in value:
                self.add(item)
        elif value is None or isinstance(value, (str, int)):
            self._sha.update(repr(value).encode())
        else:
            array = np.asarray(value)
            array = np.where(array != array, np.asarray(np.nan, array.dtype), array).astype(array.dtype)
            self._sha.update(str(array.dtype).encode() + repr(array.shape).encode() + array.tobytes())

    def text(self) -> str:
        return self._sha.hexdigest()[:16]


def _state(opt: Any) -> Any:
    given = opt.state_dict()
    parts = given.get("parts") or {}
    return given["state"] if not parts else {name: part["state"] for name, part in parts.items() if part}


def _walk(opt: Any, dtype: Any, lay: Callable[[np.ndarray], np.ndarray], steps: int) -> str:
    """Steps, updates and steps without some gradient in turn; parameters, increments and state."""
    rng, found = np.random.default_rng(1), Hash()
    w = _laid(_tree(rng, dtype), lay)
    # numbers of the tree and gathered gradients have leaves without a gradient in a way of their own
    for k in range(steps):
        g = _laid(_tree(rng, dtype), lay)
        if k % 4 == 2:
            g["layer"]["b"] = None
        if k % 4 == 3:
            found.add(opt.update(g, params=w))
        else:
            w = opt.step(w, g)
        found.add(w)
    found.add(_state(opt))
    found.add(opt.t)
    return found.text()


def _settings_by_coordinate(**options: Any) -> str:
    rng, found = np.random.default_rng(2), Hash()
    w = _tree(rng, np.float64)
    rates = _laid(w, lambda a: np.abs(a) / 100)
    opt = fl.Adam(rates, **options)
    for _ in range(5):
        w = opt.step(w, _tree(rng, np.float64))
    found.add(w)
    return found.text()


def _floats(**options: Any) -> str:
    rng, found = np.random.default_rng(3), Hash()
    w: Any = {"a": 1.0, "b": [2.0, 3.0]}
    opt = fl.chain(fl.clip_norm(1.0), fl.Adam(0.1), **options)
    for k in range(6):
        a, b, c = rng.standard_normal(3).tolist()
        w = opt.step(w, {"a": None if k == 3 else a, "b": [b, c]})
        found.add(w)
    return found.text()


def _rates_assigned(**options: Any) -> str:
    rng, found = np.random.default_rng(4), Hash()
    w, opt = _tree(rng, np.float32), fl.chain(fl.clip_norm(1.0), fl.Adam(0.1), **options)
    for k in range(8):
        opt.lr = 0.1 / (k + 1)
        if k == 5:
            opt.t = 100
        w = opt.step(w, _tree(rng, np.float64))  # of another dtype
    found.add(w)
    return found.text()


def _several_dtypes(**options: Any) -> str:
    rng, found = np.random.default_rng(5), Hash()
    trees = [{name: _numbers(rng, (50, 3), dtype) for name, dtype in DTYPES.items()} for _ in range(6)]
    w, opt = trees[0], fl.chain(fl.clip_norm(1.0), fl.AdamW(0.1), **options)
    for g in trees[1:]:
        w = opt.step(w, g)
    found.add(w)
    found.add(_state(opt))
    return found.text()


def _shared(**options: Any) -> str:
    """Gradients that are the parameters, parameters at another address at each call, outputs."""
    rng, found = np.random.default_rng(6), Hash()
    w, opt = rng.standard_normal(3000), fl.Adam(0.1, **options)
    for k in range(6):
        w = opt.step(w, w) if k % 2 else opt.step(w.copy(), rng.standard_normal(3000))
        found.add(w)
    out = np.empty(3000)
    for _ in range(3):
        found.add(opt.update(rng.standard_normal(3000), out=out))
    return found.text()


def _rosen(x: np.ndarray) -> tuple[float, np.ndarray]:
    a, b = x[1:] - x[:-1] * x[:-1], 1 - x[:-1]
    g = np.zeros_like(x)
    g[:-1] = -400 * x[:-1] * a - 2 * b
    g[1:] += 200 * a
    return float(np.sum(100 * a * a + b * b)), g


def _minimized(**options: Any) -> str:
    found = Hash()
    for opt in (fl.Adam(0.05, **options), fl.Nesterov(1e-4, **options), fl.RMSProp(0.01, **options)):
        result = fl.minimize(_rosen, np.array([-1.2, 1.0, 0.5]), method=opt, jac=True, bounds=[(-2, 0.9)] * 3,
                             options={"maxiter": 200})
        for value in (result.x, result.fun, result.jac, result.nit, result.nfev):
            found.add(value)
    return found.text()


def _descended(**options: Any) -> str:
    found, rng = Hash(), np.random.default_rng(7)
    batches = [rng.standard_normal((20, 4)) for _ in range(5)]

    def loss(w: np.ndarray, batch: np.ndarray) -> tuple[float, np.ndarray]:
        r = batch @ w - 1
        return float(r @ r), 2 * batch.T @ r

    result = fl.descend(loss, np.zeros(4), fl.chain(fl.clip_norm(1.0), fl.Adam(0.05), **options),
                        batches=lambda k: batches[k % 5], steps=30, progress=False)
    found.add(result.params)
    found.add(result.values)
    return found.text()


MORE: dict[str, Callable[..., str]] = {
    "settings by coordinate": _settings_by_coordinate, "floats": _floats, "rates assigned": _rates_assigned,
    "several dtypes": _several_dtypes, "shared": _shared, "minimize": _minimized, "descend": _descended}  # fmt: skip


def cases() -> Iterator[tuple[str, Callable[[str], str]]]:
    """By name, what makes the digest on an engine."""
    for (name, make), (kind, dtype), (how, lay) in itertools.product(CHAINS.items(), DTYPES.items(), LAYOUTS.items()):
        if name in WHOLE and kind.startswith("complex"):
            continue
        steps = 3 if name in WHOLE else 9
        yield f"{name}; {kind}; {how}", lambda engine, make=make, dtype=dtype, lay=lay, steps=steps: _walk(
            make(engine=engine), dtype, lay, steps)  # fmt: skip
    for name, of in MORE.items():
        yield name, lambda engine, of=of: of(engine=engine)


def digests(engine: str, wanted: Callable[[str], bool] = lambda name: True) -> dict[str, str]:
    """By the name of a case its digest, or the error that it ends with."""
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, of in cases():
            if wanted(name):
                try:
                    found[name] = of(engine)
                except (TypeError, ValueError, fl.FalllineError) as error:
                    found[name] = f"{type(error).__name__}: {error}"
    return found


