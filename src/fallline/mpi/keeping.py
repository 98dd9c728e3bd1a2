"""Checkpoints of many ranks: what each has of the leaves becomes one file, and a part of it becomes what one has."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fallline._arrays.leaves import dtype_name, is_number
from fallline._arrays.trees import flatten, paths
from fallline._state.checkpoint import Contents, decoded, encoded
from fallline._state.file import CODES, SIZES, Path, guarding, header_of
from fallline.errors import CheckpointError
from fallline.mpi import files
from fallline.mpi.layout import Layout, Leaf

if TYPE_CHECKING:  # which asks for what is here
    from fallline.mpi.domain import Domain

__all__ = ["Part", "leaf_shapes", "localized", "read", "read_into", "write"]


class Part(NamedTuple):
    """What a rank has of a leaf: this range of its coordinates, in an array of that shape."""

    start: int
    stop: int
    shape: tuple[int, ...]

    def of(self, whole: np.ndarray) -> np.ndarray:
        """That part of an array, in memory of its own."""
        return np.array(whole.reshape(-1)[self.start : self.stop]).reshape(self.shape)


# ---- saved -----------------------------------------------------------------------------------------------------------


def write(others: Domain, stepper: Any, path: Path, contents: Contents) -> None:
    """Write a checkpoint of all ranks, as that of one process which has the whole leaves."""
    layout, leaves = _layout(others, stepper, contents.params)
    cuts: dict[int, Leaf] = {}  # of arrays, by identity, what they are parts of
    if layout is not None:
        by_path = layout.by_path()
        cuts = {id(leaf): own for leaf, own in zip(leaves, layout.leaves) if not is_number(leaf)}
        contents = contents._replace(state=_joined(contents.state, stepper, by_path, cuts))
    info, arrays = encoded(contents)
    kinds = {name: (dtype_name(a), cuts[id(a)].shape if id(a) in cuts else np.shape(a)) for name, a in arrays.items()}
    header, names = header_of(info, kinds)
    same = hashlib.sha256(header_of({**info, "extra": None}, kinds)[0]).hexdigest()
    others.confirm((("call", "save"), ("settings, step counts or structures to save", same)))
    header = others.once(bytes, header)
    segments, at = [], len(header)
    for name in names:
        dtype, shape = kinds[name]
        size = SIZES[CODES[dtype]] * (2 if dtype.startswith("complex") else 1)
        leaf = cuts.get(id(arrays[name]))
        segments += _segments(name, at, size, leaf) if leaf else [files.Segment(0, at, at + math.prod(shape) * size,
                                                                                name)]
        at += math.prod(shape) * size
    files.write(others, others.comm, path, header, segments, arrays)


def _segments(name: str, at: int, size: int, leaf: Leaf) -> list[files.Segment]:
    """Who has which bytes of an array that lies there, whose coordinates have so many each."""
    return [files.Segment(r, at + leaf.starts[r] * size, at + (leaf.starts[r] + leaf.sizes[r]) * size, name)
            for r in leaf.order]


def _layout(others: Domain, stepper: Any, params: Any) -> tuple[Layout | None, list[Any]]:
    """Who has what of the leaves that are saved, and this rank's parameters, if there are any."""
    binding = stepper.binding
    if stepper.group_of_part is not None:
        raise ValueError("A part of a partition of several ranks is saved with the others: save the partition.")
    if binding is None and params is not None:
        binding = stepper.bind(params, "parameter")
    if binding is None:
        if any(holder.states() for holder in stepper.holders.values()):
            raise ValueError("opt.save(path) of several ranks cannot know their parts before the first step: give the "
                             "parameters too, opt.save(path, params).")
        return None, []
    leaves = None if params is None else binding.treedef.flatten_like(params, "params", "before")
    return others.lay_out(binding, leaves), leaves or []


def _joined(state: Mapping[str, Any], stepper: Any, leaves: Mapping[str, Leaf], cuts: dict[int, Leaf]
            ) -> dict[str, Any]:
    """A state with the shapes of whole leaves; what its arrays are parts of is noted."""
    if "parts" in state:
        parts = {name: own and _joined_part(own, stepper.holders[name].chain, leaves, cuts)
                 for name, own in state["parts"].items()}
        return {**state, "parts": parts}
    return _joined_part(state, stepper.holders[""].chain, leaves, cuts)


def _joined_part(state: Mapping[str, Any], chain: Any, leaves: Mapping[str, Leaf], cuts: dict[int, Leaf]
                 ) -> dict[str, Any]:
    for slot, arrays in state["state"].items():
        for path, array in arrays.items() if slot not in chain.scopes() else ():
            cuts[id(array)] = _of_slot(chain, slot, leaves[path])
    for setting in state["hyper"].values():
        given, treedef = flatten(setting, callable)
        cuts |= {id(array): leaves[path] for path, array in zip(paths(treedef), given)
                 if isinstance(array, np.ndarray) and array.ndim and path in leaves}
    known = state["leaves"]
    return {**state, "leaves": known and {path: {**leaf, "shape": leaves[path].shape} for path, leaf in known.items()}}


def _of_slot(chain: Any, slot: str, leaf: Leaf) -> Leaf:
    """What a slot's array is a part of; one of another shape than the leaf's is whole on the rank that has the leaf."""
    shape = chain.shape(slot, leaf.shape)
    if shape == leaf.shape:
        return leaf
    sizes = [math.prod(shape) if r == leaf.owner else 0 for r in range(len(leaf.sizes))]
    return Leaf(leaf.path, shape, (0,) * len(sizes), tuple(sizes), False)


# ---- loaded ----------------------------------------------------------------------------------------------------------


def read(others: Domain, path: Path) -> Contents:
    """A checkpoint whose arrays lie in the file."""
    return decoded(path, *files.read(others, others.rank, others.size, path))


def read_into(others: Domain, stepper: Any, path: Path, params: Any) -> Contents:
    """This rank's part of a checkpoint, as it has that of the parameters that are given, or known."""
    binding = stepper.binding
    if binding is None and params is not None:
        binding = stepper.bind(params, "parameter")
    if binding is None:
        raise ValueError("opt.load(path) of several ranks must know their parts: fallline.mpi.load(path) makes the "
                         "optimizer too; or call opt.adapt(params) first.")
    leaves = None if params is None else binding.treedef.flatten_like(params, "params", "before")
    layout, contents = others.lay_out(binding, leaves), read(others, path)
    known, parts = leaf_shapes(contents), {}
    for leaf, shape in zip(layout.leaves, others.shapes(binding, leaves)):
        if math.prod(known.get(leaf.path, leaf.shape)) != math.prod(leaf.shape):
            raise CheckpointError(f"{path} has {leaf.path or 'the parameter'} of shape {known[leaf.path]}, and all "
                                  f"ranks together have {math.prod(leaf.shape)} coordinates of it.")
        start = leaf.starts[others.rank]
        parts[leaf.path] = Part(start, start + leaf.sizes[others.rank], shape or ())
    with guarding(path):
        return localized(contents, parts, {name: holder.chain for name, holder in stepper.holders.items()})


def leaf_shapes(contents: Contents) -> dict[str, tuple[int, ...]]:
    """The shapes of the leaves of a checkpoint, by path, in their order."""
    found: dict[str, tuple[int, ...]] = {}
    if contents.params is not None:
        leaves, treedef = flatten(contents.params)
        found |= {path: tuple(np.shape(leaf)) for path, leaf in zip(_paths(contents, treedef), leaves)}
    for own in contents.state.get("parts", {"": contents.state}).values():
        for path, leaf in ((own or {}).get("leaves") or {}).items():
            found.setdefault(path, tuple(leaf["shape"]))
    return found


def _paths(contents: Contents, treedef: Any) -> list[str]:
    return [str(key) for key in contents.params] if contents.by_path else paths(treedef)


def localized(contents: Contents, parts: Mapping[str, Part], chains: Mapping[str, Any]) -> Contents:
    """A checkpoint with these parts of its leaves."""
    state, params = contents.state, contents.params
    if "parts" in state:
        state = {**state, "parts": {name: own and _cut(own, parts, chains[name])
                                    for name, own in state["parts"].items()}}
    else:
        state = _cut(state, parts, chains[""])
    if params is not None:
        leaves, treedef = flatten(params)
        params = treedef.unflatten(parts[path].of(leaf) if isinstance(leaf, np.ndarray) else leaf
                                   for path, leaf in zip(_paths(contents, treedef), leaves))
    return contents._replace(state=state, params=params, arrays={k: np.array(a) for k, a in contents.arrays.items()})


def _cut(state: Mapping[str, Any], parts: Mapping[str, Part], chain: Any) -> dict[str, Any]:
    """The same of the state of one chain."""
    known = state["leaves"] or {}
    found = {slot: {path: np.array(array) if slot in chain.scopes() else
                    _cut_array(chain, slot, array, tuple(known[path]["shape"]), parts[path])
                    for path, array in arrays.items()} for slot, arrays in state["state"].items()}
    hyper = {name: _mapped(setting, parts) for name, setting in state["hyper"].items()}
    leaves = state["leaves"] and {path: {**leaf, "shape": list(parts[path].shape)} for path, leaf in known.items()}
    return {**state, "leaves": leaves, "state": found, "hyper": hyper}


def _cut_array(chain: Any, slot: str, array: np.ndarray, whole: tuple[int, ...], part: Part) -> np.ndarray:
    if array.shape == whole:
        return part.of(array)
    if (part.start, part.stop) == (0, math.prod(whole)):
        return np.array(array)
    return np.zeros(chain.shape(slot, part.shape), array.dtype)  # of a leaf that is whole on another rank


def _mapped(setting: Any, parts: Mapping[str, Part]) -> Any:
    leaves, treedef = flatten(setting, callable)
    if not any(isinstance(leaf, np.ndarray) for leaf in leaves):
        return setting
    return treedef.unflatten(parts[path].of(leaf) if isinstance(leaf, np.ndarray) and leaf.ndim and path in parts else
                             leaf for path, leaf in zip(paths(treedef), leaves))
