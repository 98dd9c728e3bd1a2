"""The losses of an optimiser by step, over its seeds, for whatever draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fallline.race.findings.summary import spread_of

Document = dict[str, Any]


def curves(doc: Document) -> list[Document]:
    """Of each optimiser with runs on fresh seeds, and of what ran beside them: `median`, `low` and `high` at each mark,
    None where infinite."""
    beside = [] if doc["beside"] is None else [_curve(doc["beside"]["name"], doc["beside"])]
    return [_curve(entry["name"], entry["final"]) for entry in doc["optimizers"] if entry["final"]] + beside


def _curve(name: str, final: Document) -> Document:
    losses = np.array([[np.inf if v is None else v for v in curve] for curve in final["curves"]])
    spreads = [spread_of(column) for column in losses.T]
    return {
        "name": name,
        "median": _finite([s.median for s in spreads]),
        "low": _finite([s.p10 for s in spreads]),
        "high": _finite([s.p90 for s in spreads]),
    }


def _finite(values: Sequence[float]) -> list[float | None]:
    return [v if np.isfinite(v) else None for v in values]
