"""What is known of leaves, and whether those of a call are such."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fallline._arrays.dtypes import CASTABLE, computed
from fallline._arrays.leaves import dtype_name, dtype_of, form, is_complex, kind_of, library, model
from fallline._arrays.trees import Treedef, flatten, paths
from fallline._engines.engine import Engine

__all__ = ["Leaves", "leaf_name", "leaves_of"]


def leaf_name(path: str, what: str) -> str:
    """What messages call a leaf: "gradient 'layer1/W'"."""
    return f"{what} {path!r}" if path else what if what == "out" else f"the {what}"


class Leaves:
    """The leaves of a tree by path: their shapes, dtypes and kinds, as they were in the first call; and the engine that
    steps them, which says where they must lie."""

    engine: Engine

    def know(self, like: Any, what: str) -> tuple[list[Any], list[str]]:
        """Take them as they are in a tree; returns them, and the kind of each (`what` messages call them)."""
        leaves, self.treedef = flatten(like)
        self.paths = paths(self.treedef)
        kinds = [kind_of(leaf, self.name(k, what)) for k, leaf in enumerate(leaves)]
        self.models = list(map(model, leaves))
        self.shapes = [tuple(np.shape(leaf)) for leaf in leaves]
        self.dtypes = [dtype_of(leaf) for leaf in leaves]
        self.computed = list(map(computed, self.dtypes))
        self._forms: dict[str, list[Any]] = {}  # of "parameter"s, "gradient"s and "out"s, when last found to be right
        return leaves, kinds

    def step_by(self, engine: Engine, leaves: Sequence[Any]) -> None:
        """Have an engine step them."""
        self.engine = engine
        self._libraries = [] if engine.in_memory else [library(leaf) for leaf in leaves]

    def reals(self, k: int) -> int:
        """How many numbers a leaf has, a complex one counted as two."""
        return math.prod(self.shapes[k]) * (2 if self.dtypes[k].kind == "c" else 1)

    def name(self, k: int, what: str) -> str:
        """What messages call a leaf."""
        return leaf_name(self.paths[k], what)

    def leaves(self, tree: Any, what: str) -> list[Any]:
        """The leaves of a tree of parameters, gradients or "out", checked against structure, shapes and dtypes.

        A gradient may be None, and of another float dtype.
        """
        leaves = leaves_of(self.treedef, tree, what)
        self.check_leaves(leaves, what)
        return leaves

    def check_leaves(self, leaves: Sequence[Any], what: str) -> None:
        """Raise ValueError or TypeError unless leaves, in order, are what `leaves` takes."""
        known = self._forms.setdefault(what, [None] * len(leaves))
        for k, leaf in enumerate(leaves):
            as_ever = type(leaf) is np.ndarray and leaf.dtype is self.dtypes[k] and leaf.shape == self.shapes[k]
            if as_ever and self.engine.in_memory:
                continue  # the common case, at the cost of a small step
            if leaf is not None or what != "gradient":
                own = form(leaf)
                if own is None or own is not known[k]:
                    self._check_leaf(k, leaf, what)
                    known[k] = own

    def _check_leaf(self, k: int, leaf: Any, what: str) -> None:
        name = self.name(k, what)
        kind = kind_of(leaf, name, CASTABLE, written=False) if what == "gradient" else kind_of(leaf, name)
        shape = tuple(np.shape(leaf))
        if shape != self.shapes[k]:
            raise ValueError(f"{name} must have the shape {self.shapes[k]}. Got {shape}.")
        if what == "gradient":
            if is_complex(leaf) and self.dtypes[k].kind != "c":
                raise TypeError(f"{name} must be real, as the parameter is {self.dtypes[k]}. Got {dtype_name(leaf)}: "
                                "pass its real part.")
            return
        like = "before" if what == "parameter" else "the parameters"
        if kind == "foreign" and self.engine.in_memory:
            raise TypeError(f"{name} must be in host memory, as {like}. Got {type(leaf).__name__}: call reset(), or "
                            "make a new optimizer.")
        if what == "parameter":
            self.check_library(k, leaf, what)
        if dtype_of(leaf) != self.dtypes[k]:
            raise TypeError(f"{name} must be {self.dtypes[k]}, as {like}. Got {dtype_of(leaf)}.")

    def check_library(self, k: int, leaf: Any, what: str) -> None:
        """Raise TypeError unless a leaf's state is of its own library, where that matters."""
        if self._libraries and leaf is not None and library(leaf) != self._libraries[k]:
            raise TypeError(f"{self.name(k, what)} must be of {self._libraries[k]}, as before. Got {library(leaf)}'s "
                            f"{type(leaf).__name__}: call reset(), or make a new optimizer.")


def leaves_of(treedef: Treedef, tree: Any, what: str) -> list[Any]:
    """The leaves of a tree of parameters, gradients or "out", checked against a structure."""
    return treedef.flatten_like(tree, {"gradient": "grads", "parameter": "params"}.get(what, what),
                                "before" if what == "parameter" else "the parameters")
