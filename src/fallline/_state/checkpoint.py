"""What a checkpoint holds: an optimizer's state dictionary, how it was built, the parameters, and a caller's own."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from fallline._arrays.leaves import host, kind_of
from fallline._arrays.libraries import reading
from fallline._arrays.sealed import unsealed
from fallline._arrays.trees import decode, encode, saved
from fallline._state.file import Path, guarding, read, write
from fallline._state.fingerprint import described
from fallline._state.state_dict import TREE

__all__ = ["Contents", "decoded", "encoded", "load", "save"]

BY_PATH = "by path"  # in the file, before the leaves of what is no tree of dicts, lists and tuples


class Contents(NamedTuple):
    """What was read: the state as `state_dict` gives it, how the optimizer was built, the parameters (None: none),
    and named arrays and JSON data of whoever saved them. `by_path` says whether the parameters are a dict of leaves by
    path, for containers that a file cannot hold.
    """

    state: dict[str, Any]
    built: dict[str, Any]
    params: Any
    arrays: dict[str, np.ndarray]
    extra: Any
    by_path: bool = False


def save(path: Path, contents: Contents) -> None:
    """Write a checkpoint; the state may hold live arrays and functions.

    Raises TypeError for containers and dtypes that a file cannot hold, CheckpointError if it cannot be written.
    """
    write(path, *encoded(contents))


def encoded(contents: Contents) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file holds of a checkpoint: data that JSON takes, and arrays by name; raises TypeError as `save` does."""
    arrays: dict[str, Any] = {f"extra/{name}": array for name, array in contents.arrays.items()}
    info = {**_encode_state(contents.state, "", arrays), "built": contents.built, "extra": contents.extra}
    if contents.params is not None:
        info["params"] = _encode_params(contents.params, arrays)
    return info, arrays


def load(path: Path) -> Contents:
    """Read a checkpoint; functions of one's own stand by their names.

    Raises FileNotFoundError, or CheckpointError for anything that is wrong with the file.
    """
    return decoded(path, *read(path))


def decoded(path: Path, info: dict[str, Any], arrays: dict[str, np.ndarray]) -> Contents:
    """The checkpoint of a file that holds these; raises CheckpointError for what is none."""
    with guarding(path):
        built, extra, encoded = info.pop("built"), info.pop("extra"), info.pop("params", None)
        state = _decode_state(info, "", arrays)
        by_path = isinstance(encoded, dict) and BY_PATH in encoded
        params = decode(encoded[BY_PATH] if by_path else encoded, lambda node: _decode_leaf(node, arrays))
        if unknown := [name for name in arrays if not name.startswith("extra/")]:
            raise ValueError(f"unknown array {unknown[0]!r}")
    return Contents(state, built, params, {k.removeprefix("extra/"): a for k, a in arrays.items()}, extra, by_path)


def _encode_state(state: Mapping[str, Any], part: str, arrays: dict[str, Any]) -> dict[str, Any]:
    """A state as JSON takes it; its arrays go to the others, with the name of the part of a partition before theirs."""
    if "parts" in state:
        parts = {name: own and _encode_state(own, f"{name}/", arrays) for name, own in state["parts"].items()}
        return {**state, "label": encode(state["label"], lambda name, path: name, "label", "give a function of the "
                                          "path"), "parts": parts}
    by_slot = state["state"]
    for slot, by_path in by_slot.items():
        arrays |= {f"state/{part}{slot}/{path}": array for path, array in by_path.items()}
    hyper = {name: _encode_setting(part + name, value, arrays) for name, value in state["hyper"].items()}
    plain = {key: value for key, value in state.items() if key != "state"}
    return {**plain, "hyper": hyper, "slots": list(by_slot)}


def _decode_state(info: Mapping[str, Any], part: str, arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The state that `_encode_state` made a node of."""
    if "parts" in info:
        parts = {name: own and _decode_state(own, f"{name}/", arrays) for name, own in info["parts"].items()}
        return {**info, "label": decode(info["label"], lambda name: name), "parts": parts}
    paths = {} if info["leaves"] is None else info["leaves"]
    by_slot = {slot: [TREE] if f"state/{part}{slot}/{TREE}" in arrays else paths for slot in info["slots"]}
    state = {slot: {path: arrays.pop(f"state/{part}{slot}/{path}") for path in own} for slot, own in by_slot.items()}
    hyper = {name: decode(node, lambda node: _decode_setting(node, arrays)) for name, node in info["hyper"].items()}
    return {**{key: value for key, value in info.items() if key != "slots"}, "hyper": hyper, "state": state}


def _encode_setting(name: str, value: Any, arrays: dict[str, Any]) -> Any:
    def leaf(setting: Any, path: str) -> Any:
        if isinstance(setting, np.ndarray):
            arrays[f"hyper/{name}/{path}"] = setting
            return {"array": f"hyper/{name}/{path}"}
        if isinstance(setting, float):  # JSON knows no infinity, as of bounds
            return setting if math.isfinite(setting) else {"infinite": math.copysign(1, setting)}
        from fallline.schedules.data import is_built_in, to_data  # which takes a while

        return to_data(setting) if is_built_in(setting) else described(setting)
    return encode(value, leaf, name, "give it by path, fallline.by_path", callable)


def _decode_setting(node: Any, arrays: dict[str, np.ndarray]) -> Any:
    if not isinstance(node, Mapping):
        return node
    if "array" in node:
        return arrays.pop(node["array"])
    if "infinite" in node:
        return math.inf * node["infinite"]
    from fallline.schedules.data import from_data

    return from_data(node)


def _encode_params(params: Any, arrays: dict[str, Any]) -> Any:
    def leaf(value: Any, path: str) -> dict[str, str]:
        if not isinstance(value, np.generic):
            kind_of(value, f"parameter {path!r}", written=False)
            if getattr(value, "is_meta", False):  # a tensor without numbers, which can be stepped but not saved
                with reading(value, f"parameter {path!r}"):
                    host(value)
        arrays[f"params/{path}"] = value
        kind = "scalar" if isinstance(value, np.generic) else "float" if isinstance(value, float) else "array"
        return {kind: f"params/{path}"}
    tree = unsealed(params)
    held = saved(tree)
    node = encode(held, leaf, "The parameters", "give a dict")
    return node if held is tree else {BY_PATH: node}


def _decode_leaf(node: Mapping[str, str], arrays: dict[str, np.ndarray]) -> Any:
    (kind, name), = node.items()
    array = arrays.pop(name)
    return {"float": array.item, "scalar": lambda: array[()], "array": lambda: array}[kind]()
