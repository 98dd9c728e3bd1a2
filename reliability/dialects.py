"""How far dialects stray from the libraries of their names: python -m reliability dialects

It needs torch, Keras, JAX, optax and TensorFlow. docs/dialects-measured.md is what it writes.
"""

from __future__ import annotations

import importlib
import os
import zlib
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from fallline.dialects import every

os.environ.setdefault("KERAS_BACKEND", "torch")  # before Keras is imported

__all__ = ["SINGLE", "Case", "cases", "measured", "settings", "strays"]

STEPS, SINGLE = 200, 2e-3  # how far float32 may be, of the mean way, at gradients of size 1
RANGES: dict[str, Any] = {  # from which settings are drawn, by what they are called
    "lr": (1e-3, 1e-1), "learning_rate": (1e-3, 1e-1), "betas": ((0.5, 0.95), (0.9, 0.9999)), "beta_1": (0.5, 0.95),
    "beta_2": (0.9, 0.9999), "b1": (0.5, 0.95), "b2": (0.9, 0.9999), "eps": (1e-9, 1e-6), "epsilon": (1e-9, 1e-6),
    "eps_root": (1e-17, 1e-15), "momentum": (0.5, 0.95), "dampening": (0.1, 0.5), "rho": (0.8, 0.99),
    "alpha": (0.5, 0.99), "decay": (0.8, 0.99), "lr_decay": (1e-3, 1e-2), "initial_accumulator_value": (0.01, 1.0),
    "initial_scale": (0.01, 1.0), "weight_decay": (1e-3, 1e-1), "momentum_decay": (1e-3, 1e-2), "lambd": (1e-4, 1e-2),
    "etas": ((0.3, 0.7), (1.1, 1.5)), "step_sizes": ((1e-7, 1e-5), (1.0, 50.0)), "t0": (20, 60),
    "l1_regularization_strength": (1e-4, 1e-2), "l2_regularization_strength": (1e-3, 1e-1),
    "l2_shrinkage_regularization_strength": (1e-3, 1e-1), "beta": (0.01, 1.0), "threshold": (4.5, 6.0),
    "clipnorm": (0.5, 5.0), "clipvalue": (0.5, 2.0), "global_clipnorm": (0.5, 5.0), "beta2_decay": (-0.9, -0.6),
    "d": (1.0, 2.0), "ns_coefficients": ((3.4, 3.5), (-4.8, -4.7), (2.0, 2.1)),
    "torch.Adafactor.eps": ((1e-9, 1e-6), (1e-4, 1e-2)),
}  # fmt: skip
# Beside those with defaults alone and with all numbers drawn: flags, and numbers that are left out.
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "torch": [{"maximize": True}],
    "torch.SGD": [{"nesterov": True, "dampening": 0}, {"momentum": 0, "dampening": 0}],
    "torch.RMSprop": [{"centered": True}],
    "torch.Adam": [{"amsgrad": True}, {"decoupled_weight_decay": True}], "torch.AdamW": [{"amsgrad": True}],
    "torch.Muon": [{"nesterov": False}, {"adjust_lr_fn": "match_rms_adamw"}],
    "torch.NAdam": [{"decoupled_weight_decay": True}], "torch.RAdam": [{"decoupled_weight_decay": True}],
    "keras": [{"clipnorm": None, "clipvalue": None}, {"clipnorm": None, "global_clipnorm": None}],
    "keras.Ftrl": [{"learning_rate_power": -0.3}], "tensorflow.Ftrl": [{"learning_rate_power": -0.3}],
    "keras.SGD": [{"nesterov": True}], "keras.RMSprop": [{"centered": True}], "keras.Adam": [{"amsgrad": True}],
    "tensorflow.RMSProp": [{"centered": True}],
    "optax.adam": [{"nesterov": True}], "optax.adamw": [{"nesterov": True}], "optax.sgd": [{"nesterov": True}],
    "optax.rmsprop": [{"centered": True}, {"eps_in_sqrt": False, "initial_scale": 0.0}, {"nesterov": True},
                      {"eps_in_sqrt": False, "centered": True, "initial_scale": 0.0}],
}  # fmt: skip
LEFT_OUT: dict[str, dict[str, Any]] = {"keras": {"clipvalue": None, "global_clipnorm": None}}
# How far apart they may be, as a share of how far a coordinate went, where that is more than 1e-11, and why.
FARTHER: dict[str, tuple[float, str]] = {
    "clipped": (1e-4, "Keras has the longest norm in float32"),
    "torch.ASGD": (1e-4, "torch has its rates in float32"),
    "torch.AdamW": (1e-9, "torch multiplies the parameter by 1 - lr·weight_decay before it steps"),
    "torch.Muon": (1e-9, "its iteration raises what rounding leaves; torch's bfloat16 is set aside in float64 alone"),
    "torch.Adafactor": (1e-10, "torch has its squares by norms"),
    "torch.NAdam": (1e-5, "torch has the product of its momenta in float32"),
    "keras.AdamW": (1e-9, "Keras decays the parameter before it steps"),
    "keras.Nadam": (1e-10, "they round in another order"),
    "tensorflow.Ftrl": (1e-6, "TensorFlow has its l2 and what beta adds to it in float32"),
    "torch.RAdam": (1e-9, "the length of its average is a difference of numbers near 2/(1 - beta2)"),
    "optax.radam": (1e-9, "the length of its average is a difference of numbers near 2/(1 - beta2)"),
}  # fmt: skip


def cases() -> Iterator[Case]:
    """Of every dialect: with defaults alone, with all numbers drawn, with flags."""
    for title, cls in every().items():
        _, library, name = title.split(".")
        for flags in (None, {}, *VARIANTS.get(library, []), *VARIANTS.get(f"{library}.{name}", [])):
            if {*(flags or {})} <= {*cls.arguments.parameters}:
                yield Case(cls, library, name, flags)


class Case(NamedTuple):
    """A dialect, what it is called there, and flags; None for its defaults."""

    cls: Any
    library: str
    name: str
    flags: dict[str, Any] | None

    def __str__(self) -> str:
        said = "" if self.flags is None else ", drawn" if not self.flags else f", {', '.join(self.flags)}"
        return f"{self.library}.{self.name}{said}"

    @property
    def of(self) -> str:
        """What the table calls it, without its flags."""
        clips = any(settings(self).get(name) is not None for name in ("clipnorm", "global_clipnorm"))
        return f"{self.library}.{self.name}{', clipped' * clips}"

    @property
    def farther(self) -> tuple[float, str]:
        """How far it may be in float64, and why that is more than 1e-11, if it is."""
        return FARTHER.get("clipped" if "clipped" in self.of else self.of, (1e-11, ""))


def settings(case: Case) -> dict[str, Any]:
    """Those that both take: the flags, and numbers drawn; the defaults for None."""
    cls, library, name, flags = case
    rng = np.random.default_rng(zlib.crc32(f"{library}.{name}{flags}".encode()))
    if flags is None:
        return {"learning_rate": 0.01} if library in ("optax", "tensorflow") else {}

    def drawn(low: float, high: float) -> float:
        return float(low * (high / low) ** rng.uniform())

    spans = {key: RANGES.get(f"{library}.{name}.{key}", span) for key, span in RANGES.items()}
    numbers = {key: tuple(drawn(*r) for r in span) if isinstance(span[0], tuple) else drawn(*span)
               for key, span in spans.items() if key in cls.arguments.parameters}
    given = {**numbers, **LEFT_OUT.get(library, {}), **LEFT_OUT.get(f"{library}.{name}", {}), **flags}
    if flags.keys() & {"clipvalue"}:
        given = {**given, **dict.fromkeys({"clipnorm", "clipvalue", "global_clipnorm"} - flags.keys(), 1.5)}
    return {key: value for key, value in given.items() if key != "decoupled_weight_decay" or value}


def walk_torch(name: str, given: dict[str, Any], x: Any, gradients: Any, rates: Any) -> Any:
    import torch

    parameter = torch.tensor(x)
    theirs = getattr(torch.optim, name)([parameter], **given)
    double = name == "Muon" and x.dtype == np.float64  # of which it makes bfloat16
    with mock.patch.object(torch.Tensor, "bfloat16", torch.Tensor.clone) if double else nullcontext():
        for g, rate in zip(gradients, rates, strict=True):
            theirs.param_groups[0]["lr"] = theirs.param_groups[0]["lr"] if rate is None else rate
            parameter.grad = torch.tensor(g)
            theirs.step()
    return parameter.detach().numpy()


def walk_keras(name: str, given: dict[str, Any], x: Any, gradients: Any, rates: Any) -> Any:
    import keras

    keras.config.set_floatx(x.dtype.name)  # in which it has rates, too
    parameter = keras.Variable(x, dtype=x.dtype.name)
    theirs = getattr(keras.optimizers, name)(**given)
    theirs.build([parameter])
    for g, rate in zip(gradients, rates, strict=True):
        if rate is not None:
            theirs.learning_rate = rate
        theirs.apply([keras.ops.convert_to_tensor(g, dtype=x.dtype.name)], [parameter])
    return parameter.value.detach().numpy().copy()


def walk_optax(name: str, given: dict[str, Any], x: Any, gradients: Any, rates: Any) -> Any:
    import jax
    import optax

    with jax.enable_x64(True):
        if rates[0] is not None:
            table = jax.numpy.asarray(rates)
            given = {**given, "learning_rate": lambda count: table[count]}
        theirs = getattr(optax, name)(**given)
        parameter = jax.numpy.asarray(x)
        state = theirs.init(parameter)

        @jax.jit
        def stepped(g: Any, state: Any, parameter: Any) -> Any:
            increment, state = theirs.update(g, state, parameter)
            return optax.apply_updates(parameter, increment), state

        for g in gradients:
            parameter, state = stepped(jax.numpy.asarray(g), state, parameter)
        return np.asarray(parameter)


def walk_tensorflow(name: str, given: dict[str, Any], x: Any, gradients: Any, rates: Any) -> Any:
    import tensorflow

    rate = tensorflow.Variable(given["learning_rate"] if rates[0] is None else rates[0], dtype="float32")
    theirs = getattr(tensorflow.compat.v1.train, f"{name}Optimizer")(**{**given, "learning_rate": rate})
    parameter = tensorflow.Variable(x)
    for g, now in zip(gradients, rates, strict=True):
        rate.assign(rate if now is None else now)
        theirs.apply_gradients([(tensorflow.constant(g), parameter)])
    return parameter.numpy()


WALKS = {"torch": walk_torch, "keras": walk_keras, "optax": walk_optax, "tensorflow": walk_tensorflow}


def strays(case: Case, size: float, scheduled: bool = False, dtype: Any = np.float64,
           shape: tuple[int, ...] = (20, 5)) -> float:
    """How far ours is from theirs in the end, at most: in float64 as a share of how far each coordinate went (of at
    least a thousandth of the mean), in float32, where a coordinate has few digits itself, of the mean."""
    given = settings(case)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    gradients = [(size * rng.standard_normal(shape)).astype(dtype) for _ in range(STEPS)]
    rates = [0.01 / (1 + 0.02 * t) for t in range(STEPS)] if scheduled else [None] * STEPS
    ours = case.cls(**given)
    if scheduled:
        ours.lr = lambda t: rates[t]
    w = x.copy()
    for g in gradients:
        w = ours.step(w, g)
    theirs = WALKS[case.library](case.name, given, x, gradients, rates)
    went = np.abs(theirs - x)
    least = went.mean() * (1e-3 if dtype is np.float64 else 1.0)
    return float((np.abs(w - theirs) / np.maximum(went, least)).max())


def measured() -> str:
    """The table of the farthest, by library and name, as a page."""
    worst: dict[tuple[str, str], list[float]] = {}
    for case in cases():
        found = worst.setdefault((case.of, case.farther[1]), [0.0, 0.0])
        for k, dtype in enumerate((np.float64, np.float32)):
            found[k] = max(found[k], *(strays(case, size, dtype=dtype) for size in (1.0, 1e-4)))
    lines = [f"| `{of}` | {double:.1e} | {single:.1e} | {why} |" for (of, why), (double, single) in worst.items()]
    libraries = ("torch", "keras", "optax", "jax", "tensorflow", "numpy")
    versions = ", ".join(f"{name} {importlib.import_module(name).__version__}" for name in libraries)
    return "\n".join([
        "<!-- Written by `python -m reliability dialects`. -->", "",
        "# How close dialects are to their libraries", "",
        f"{STEPS} steps on the same gradients (normal, of sizes 1 and 1e-4), with defaults, settings drawn at random "
        "and flags: the farthest that a coordinate is apart in the end. In float64 it is a share of the way that the "
        "coordinate went (of at least a thousandth of the mean); in float32, where the two round differently at every "
        "step, and a coordinate has few digits itself, of at least the mean.", "",
        "Tests hold float64 to 1e-11 but for what the table gives a reason for, and float32 at size 1 to "
        f"{SINGLE:g} (Muon, which is in bfloat16 there: 0.1). At size 1e-4 steps of SGD's kind come near the last "
        "digit of parameters in float32.", "",
        f"Seen with {versions}.", "",
        "| dialect | float64 | float32 | why more than 1e-11 |", "|---|---|---|---|", *lines, ""])  # fmt: skip
