"""What a call may bring that is refused."""

from __future__ import annotations

import numpy as np


def read_only(array):
    array = array.copy()
    array.flags.writeable = False
    return array


def overlapping():
    base = np.random.default_rng(4).standard_normal(7)
    return {"a": base[:4], "b": base[1:].reshape(2, 3)}


def with_value(array, value):
    array = array.copy()
    array[1, 2] = value
    return array


# What a call brings in place of a good tree w or gradient g: the errors allowed, and what the message must name.
BAD_PARAMETERS = {
    "integers": (lambda w: w | {"b": np.arange(6).reshape(2, 3)}, r"\bb\b.*int64"),
    "booleans": (lambda w: w | {"b": np.ones((2, 3), bool)}, r"\bb\b.*bool"),
    "strings": (lambda w: w | {"b": "weights"}, r"\bb\b.*str"),
    "objects": (lambda w: w | {"b": np.full((2, 3), None)}, r"\bb\b.*object"),
    "a read-only array": (lambda w: w | {"b": read_only(w["b"])}, r"\bb\b.*read-only"),
    "a masked array": (lambda w: w | {"b": np.ma.masked_array(w["b"].copy(), w["b"] > 0)}, r"\bb\b.*[Mm]asked"),
    "overlapping arrays": (lambda w: overlapping(), r"\ba\b.*\bb\b.*(overlap|memory)|overlap.*\ba\b.*\bb\b"),
}
BAD_GRADIENTS = {
    "integers": (lambda g: g | {"b": np.ones((2, 3), np.int64)}, r"\bb\b.*int64"),
    "booleans": (lambda g: g | {"b": np.ones((2, 3), bool)}, r"\bb\b.*bool"),
    "complex numbers": (lambda g: g | {"b": g["b"] * 1j}, r"\bb\b.*complex"),
    "strings": (lambda g: g | {"b": "downhill"}, r"\bb\b.*str"),
    "objects": (lambda g: g | {"b": np.full((2, 3), None)}, r"\bb\b.*object"),
    "a masked array": (lambda g: g | {"b": np.ma.masked_array(g["b"], g["b"] > 0)}, r"\bb\b.*[Mm]asked"),
    "NaN": (lambda g: g | {"b": with_value(g["b"], np.nan)}, r"\bb has 1 NaN"),
    "infinity": (lambda g: g | {"b": with_value(g["b"], np.inf)}, r"\bb has 1 infinite"),
    "minus infinity": (lambda g: g | {"b": with_value(g["b"], -np.inf)}, r"\bb has 1 infinite"),
}
BAD_GRADIENT_SHAPES = {
    "a transposed gradient": (
        lambda g: g | {"b": g["b"].T.copy()},
        r"\bb\b.*\(2, 3\).*\(3, 2\)|\bb\b.*\(3, 2\).*\(2, 3\)",
    ),
    "a gradient that would broadcast": (lambda g: g | {"b": g["b"][:1]}, r"\bb\b.*\(1, 3\)"),
    "a flat gradient": (lambda g: g | {"b": g["b"].ravel()}, r"\bb\b.*\(6,\)"),
    "a 0-d gradient": (lambda g: g | {"b": np.array(1.0)}, r"\bb\b.*\(\)"),
    "a leaf too few": (lambda g: {"a": g["a"]}, "b"),
    "a leaf too many": (lambda g: g | {"c": np.ones(1)}, "c"),
    "a list for a dict": (lambda g: [g["a"], g["b"]], "structure"),
    "a subtree for a leaf": (lambda g: g | {"b": [g["b"]]}, r"\bb\b"),
    "an array for a tree": (lambda g: g["a"], "structure"),
}
OTHER_PARAMETERS = {  # good in themselves, but not what this optimiser has stepped before
    "another shape": (lambda w: w | {"b": np.ones((3, 2))}, r"\bb\b.*(\(3, 2\).*\(2, 3\)|\(2, 3\).*\(3, 2\))"),
    "another dtype": (lambda w: w | {"b": w["b"].astype(np.float32)}, r"\bb\b.*float(32.*float64|64.*float32)"),
    "a leaf fewer": (lambda w: {"a": w["a"]}, "b"),
    "a leaf more": (lambda w: w | {"c": np.ones(2)}, "c"),
    "a renamed leaf": (lambda w: {"a": w["a"], "z": w["b"]}, "z|b"),
    "another structure": (lambda w: [w["a"], w["b"]], "structure"),
    "a float for an array": (lambda w: w | {"a": 1.0}, r"\ba\b"),
}
