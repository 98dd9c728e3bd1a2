"""What a checkpoint holds: an optimizer's state dictionary, how it was built, the parameters, and a caller's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fallline.arrays import kind_of
from fallline.fingerprint import described
from fallline.statedict import FLOATS, TREE
from fallline.tensorfile import Path, guarding, read, write
from fallline.trees import decode, encode

__all__ = ["Contents", "load", "save"]


class Contents(NamedTuple):
    """What was read: the state as `state_dict` gives it, how the optimizer was built, the parameters (None: none),
    and named arrays and JSON data of whoever saved them.
    """

    state: dict[str, Any]
    built: dict[str, Any]
    params: Any
    arrays: dict[str, np.ndarray]
    extra: Any


def save(path: Path, contents: Contents) -> None:
    """Write a checkpoint; the state may hold live arrays and functions.

    Raises TypeError for containers and dtypes that a file cannot hold, CheckpointError if it cannot be written.
    """
    arrays: dict[str, Any] = {f"extra/{name}": array for name, array in contents.arrays.items()}
    state = dict(contents.state)
    by_slot = state.pop("state")
    for slot, by_path in by_slot.items():
        arrays |= {f"state/{slot}/{path}": array for path, array in by_path.items()}
    state["hyper"] = {name: _encode_setting(name, value, arrays) for name, value in state["hyper"].items()}
    info = {**state, "slots": list(by_slot), "built": contents.built, "extra": contents.extra}
    if contents.params is not None:
        info["params"] = _encode_params(contents.params, arrays)
    write(path, info, arrays)


def load(path: Path) -> Contents:
    """Read a checkpoint; functions of one's own stand by their names.

    Raises FileNotFoundError, or CheckpointError for anything that is wrong with the file.
    """
    info, arrays = read(path)
    with guarding(path):
        leaves, slots, built, extra = (info.pop(key) for key in ("leaves", "slots", "built", "extra"))
        paths = {} if leaves is None else leaves
        by_slot = {slot: [TREE] if f"state/{slot}/{TREE}" in arrays else paths for slot in slots}
        state = {**info, "leaves": leaves, "state": {slot: {path: arrays.pop(f"state/{slot}/{path}") for path in own}
                                                     for slot, own in by_slot.items()}}
        state["hyper"] = {name: decode(node, lambda node: _decode_setting(node, arrays))
                          for name, node in info["hyper"].items()}
        params = decode(state.pop("params", None), lambda node: _decode_leaf(node, arrays))
        if unknown := [name for name in arrays if not name.startswith("extra/")]:
            raise ValueError(f"unknown array {unknown[0]!r}")
    return Contents(state, built, params, {k.removeprefix("extra/"): a for k, a in arrays.items()}, extra)


def _encode_setting(name: str, value: Any, arrays: dict[str, Any]) -> Any:
    def leaf(setting: Any, path: str) -> Any:
        if isinstance(setting, np.ndarray):
            arrays[f"hyper/{name}/{path}"] = setting
            return {"array": f"hyper/{name}/{path}"}
        if isinstance(setting, float):
            return setting
        from fallline.schedules.data import is_built_in, to_data  # which takes a while

        return to_data(setting) if is_built_in(setting) else described(setting)
    return encode(value, leaf, name)


def _decode_setting(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(node, Mapping):
        return node
    if "array" in node:
        return arrays.pop(node["array"])
    from fallline.schedules.data import from_data

    return from_data(node)


def _encode_params(params: Any, arrays: dict[str, Any]) -> Any:
    def leaf(value: Any, path: str) -> dict[str, str]:
        if not isinstance(value, np.generic):
            kind_of(value, f"parameter {path!r}", FLOATS)
        arrays[f"params/{path}"] = value
        kind = "scalar" if isinstance(value, np.generic) else "float" if isinstance(value, float) else "array"
        return {kind: f"params/{path}"}
    return encode(params, leaf, "The parameters")


def _decode_leaf(node: Mapping[str, str], arrays: dict[str, np.ndarray]) -> Any:
    (kind, name), = node.items()
    array = arrays.pop(name)
    return {"float": array.item, "scalar": lambda: array[()], "array": lambda: array}[kind]()
