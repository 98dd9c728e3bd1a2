"""The page that sets side by side what libraries call by one name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

import fallline as fl
from fallline.dialects import every
from fallline.race.findings.wording import number
from handbook.formula import formula
from handbook.page import MADE, summary, table

__all__ = ["dialects", "groups"]

SIZES, STEPS = (1.0, 1e-4, 1e-6), 200
DECAYS = {"l2": "in the gradient", "weight_decay": "decoupled"}


def groups() -> dict[str, dict[str, Any]]:
    """The classes of one name, the house's first, by the name that it has here, or in the first library that has it."""
    found: dict[str, dict[str, Any]] = {name: {f"fl.{name}": cls} for name, cls in fl.OPTIMIZERS.items()}
    for title, cls in every().items():
        name = title.rpartition(".")[2]
        known = {other.lower(): other for other in found}
        found.setdefault(known.get(name.lower(), name), {})[f"fl.{title}"] = cls
    return {name: those for name, those in found.items() if any("dialects" in title for title in those)}


def dialects() -> str:
    """All of it."""
    sections = [
        MADE, "# The same names elsewhere",
        "`fl.Adam` is the article's: its second moment *starts* at eps, and nothing is added later. Other libraries "
        "add eps at every step, inside the root or outside it, before the bias correction or after it. If you copy "
        "`Adam(1e-3)` from a script, you want that library's formula: `fl.dialects.torch.Adam(1e-3)`. It has that "
        "library's argument names and defaults, takes arrays of any library, and works in chains, checkpoints and "
        "races like any optimizer.",
        table(["I want", "I write"], [
            ["the article's formula", "`fl.Adam(lr)`"],
            ["torch's formula on my arrays", "`fl.dialects.torch.Adam(lr)`"],
            ["torch's formula in my torch loop", "`from fallline.torch import Adam`"],
        ]),
        "`torch`, `keras`, `optax` and `tensorflow` need not be installed. Flags select another rule or add a link "
        "(`amsgrad`, `centered`, `maximize`, clipping, decay). Options that only say how a library runs (`foreach`, "
        "`fused`) are accepted and have no effect. Options that fallline replaces by something else are refused, with "
        "the way to do it. Once the optimizer is made, hyper-parameters have fallline's names: `opt.lr`, `opt.hyper`. "
        "[How close they are](dialects-measured.md) to the libraries is measured.",
        f"*Apart* compares each optimizer with the first of its table, after {STEPS} steps at a rate of 1e-3 with "
        "defaults otherwise, on the same normal gradients of three sizes in float64: the distance between the two end "
        "points, relative to the distance this optimizer went.",
    ]  # fmt: skip
    for name, those in groups().items():
        sections += [f"## {name}", *_group(those)]
    return "\n\n".join(sections) + "\n"


def _group(those: Mapping[str, Any]) -> list[str]:
    first = next(iter(those.values()))
    ends = {size: _end(first, size)[0] for size in SIZES}
    rows = []
    for k, (title, cls) in enumerate(those.items()):
        apart = ["–" if k == 0 else _said(_apart(cls, size, ends[size])) for size in SIZES]
        rows.append([f"`{'fl.' if k or 'dialects' in title else ''}{_call(cls)}`".replace("fl.fl.", "fl."), *apart,
                     _decay(cls)])  # fmt: skip
    head = ["with its defaults", *(f"apart at {number(size)}" for size in SIZES), "weight decay"]
    said = [f"`{title}`: {summary(_rule(cls))}" if k == 0 and "dialects" not in title else
            f"`{title}`: {cls.summary}" for k, (title, cls) in enumerate(those.items())]
    parts = [table(head, rows), "\n".join(f"- {line}" for line in said)]
    shown: dict[Any, list[str]] = {}
    for title, cls in those.items():
        shown.setdefault(_rule(cls), []).append(f"`{title}`")
    for rule, titles in shown.items():
        if not rule.whole_leaf:
            parts += [f"{', '.join(titles)}:", formula(rule)[0]]
    return parts


def _said(share: float) -> str:
    """A distance; what rounding alone makes is no number to print, as it need not be the same on every machine."""
    return "< 1e-12" if 0 < share < 1e-12 else number(share, 2)


def _usual(cls: Any) -> Any:
    return cls.usual() if hasattr(cls, "usual") else cls()


def _call(cls: Any) -> str:
    text = repr(_usual(cls))
    return text if text.startswith("dialects.") else f"fl.{text}"


def _rule(cls: Any) -> Any:
    return _usual(cls)._chain.rule


def _decay(cls: Any) -> str:
    """How the weights decay, if it is asked for."""
    if not hasattr(cls, "arguments"):
        return "in the rule" if "weight_decay" in cls.rule.hyper else "as a link of a chain"
    if "weight_decay" not in cls.arguments.parameters:
        return "–"
    needed = {name: 1e-3 for name, p in cls.arguments.parameters.items() if p.default is p.empty}
    names = cls(**needed, weight_decay=0.1)._chain.names
    return next((said for name, said in DECAYS.items() if name in names), "in the rule")


def _end(cls: Any, size: float) -> tuple[np.ndarray, np.ndarray]:
    """Where it comes to, and how far that is from the start."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((8, 16))
    opt, w = _usual(cls), start.copy()
    if "lr" in opt.hyper and "lr" not in _rule(cls).slots.values():
        opt.lr = 1e-3
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of gradients that are small, as is the point
        for _ in range(STEPS):
            w = opt.step(w, size * rng.standard_normal((8, 16)))
    return w, w - start


def _apart(cls: Any, size: float, other: np.ndarray) -> float:
    end, way = _end(cls, size)
    return float(np.sqrt(np.sum((end - other) ** 2) / np.sum(way**2)))
