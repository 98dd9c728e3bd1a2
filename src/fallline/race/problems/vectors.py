"""Parameters as rows of real numbers, for what knows nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from fallline._arrays import trees
from fallline._arrays.dtypes import reals
from fallline._arrays.leaves import as_number, detached, host, is_complex, is_foreign, is_number, like

__all__ = ["Reals", "row_of", "vector_of", "with_row", "with_vector"]

Reals = np.ndarray  # the numbers of one leaf as float64 in one row, of complex ones both parts


def row_of(leaf: Any) -> Reals:
    """The numbers of a leaf."""
    return reals(np.array(host(leaf), dtype=complex if is_complex(leaf) else float)).ravel()


def with_row(leaf: Any, row: Reals) -> Any:
    """A leaf of the same kind with these numbers."""
    values = (row.view(complex) if is_complex(leaf) else row).reshape(host(leaf).shape)
    with np.errstate(all="ignore"):
        if is_number(leaf):
            return as_number(leaf, values[()])
        new = like(leaf, values)
    if is_foreign(leaf):
        return new
    own = trees.copy(leaf)
    detached(own)[...] = new
    return own


def vector_of(tree: Any, like: Any = None) -> Reals:
    """The rows of all leaves, one after the other; of a gradient, with 0 where it is None, `like` what it is of."""
    leaves, treedef = trees.flatten(tree if like is None else like)
    found = leaves if like is None else treedef.flatten_like(tree, "gradient", "parameters")
    rows = [0 * row_of(leaf) if own is None else row_of(own) for leaf, own in zip(leaves, found, strict=True)]
    return np.concatenate(rows)


def with_vector(tree: Any, vector: Reals) -> Any:
    """A tree of the same kind with these numbers."""
    leaves, treedef = trees.flatten(tree)
    ends = np.cumsum([row_of(leaf).size for leaf in leaves])
    return treedef.unflatten(map(with_row, leaves, np.split(vector, ends[:-1])))
