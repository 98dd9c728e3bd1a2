"""An optimizer as JSON takes it, in a model's file, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from fallline._formula.rule import Rule
from fallline._optimizer.load import Giving, made
from fallline._optimizer.optimizer import Optimizer
from fallline._state.checkpoint import Contents, decoded, encoded
from fallline._state.file import guarding

__all__ = ["from_data", "to_data"]

WHAT = "The optimizer of the model"
BY_KERAS = Giving("custom_objects={{{0!r}: {0}}}".format, "custom_objects={{{0!r}: ...}}".format)


def to_data(opt: Optimizer) -> dict[str, Any]:
    """How an optimizer is made again, with its settings: what a checkpoint holds of one that has not stepped."""
    info, arrays = encoded(Contents(opt._stepper.record(), opt._built(), None, {}, None))
    return {**info, "arrays": {name: {"dtype": a.dtype.name, "values": a.tolist()} for name, a in arrays.items()}}


def from_data(data: Mapping[str, Any], custom_objects: Mapping[str, Any] | None) -> Optimizer:
    """The optimizer that `to_data` made this of; raises CheckpointError for anything else, and for what is missing."""
    info = {key: value for key, value in data.items() if key != "arrays"}
    with guarding(WHAT):
        arrays = {name: np.array(own["values"], own["dtype"]) for name, own in data["arrays"].items()}
    contents = decoded(WHAT, info, arrays)

    def known(names: Iterable[str]) -> dict[str, Any]:
        found = {name: keras.saving.get_registered_object(name, custom_objects) for name in names}
        return {name: own for name, own in found.items() if own is not None}

    rules = [own for own in known(_names(contents.built)).values()
             if isinstance(own, Rule) or (isinstance(own, type) and issubclass(own, Optimizer))]
    return made(WHAT, contents, rules, known, BY_KERAS)


def _names(built: Mapping[str, Any]) -> Iterator[str]:
    """The names of the rules and classes that an optimizer is made of."""
    for own in built["parts"].values() if "parts" in built else [built]:
        if own is not None:
            yield own["class"]
            yield from (name for name, _ in own["links"])
