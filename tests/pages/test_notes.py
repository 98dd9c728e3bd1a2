"""What docstrings and pages say of the defaults and forms of other libraries, asked of those that are installed."""

from __future__ import annotations

import inspect
import math
import os

import numpy as np
import pytest

import fallline as fl
from needed import need
from peers import walk_keras

# Keras' torch back end hands tensors to NumPy in a way that NumPy 2 deprecates; that is between the two of them.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
]

DEFAULTS = {
    "torch": {
        "optim.RMSprop": {"alpha": 0.99},
        "optim.Adagrad": {"lr": 0.01, "initial_accumulator_value": 0, "eps": 1e-10},
        "optim.Adadelta": {"lr": 1.0},
        "optim.Adamax": {"lr": 0.002},
        "optim.AdamW": {"weight_decay": 0.01},
        "optim.Rprop": {"lr": 0.01},
        "optim.Muon": {"lr": 0.001, "momentum": 0.95, "weight_decay": 0.1, "adjust_lr_fn": None},
        "optim.Adafactor": {"lr": 0.01, "eps": (None, 0.001)},
    },
    "keras": {
        "optimizers.RMSprop": {"rho": 0.9},
        "optimizers.Adagrad": {"initial_accumulator_value": 0.1},
        "optimizers.Adadelta": {"learning_rate": 0.001},
        "optimizers.Adamax": {"learning_rate": 0.001},
        "optimizers.Muon": {"rms_rate": 0.2},
        "optimizers.Adafactor": {"learning_rate": 0.001},
    },
    "optax": {
        "adagrad": {"initial_accumulator_value": 0.1},
        "rmsprop": {"decay": 0.9},
        "radam": {"threshold": 5.0},
        "adabelief": {"eps": 1e-16, "eps_root": 1e-16},
        "lamb": {"b1": 0.9, "b2": 0.999, "weight_decay": 0.0},
        "lars": {"momentum": 0.9, "trust_coefficient": 0.001, "weight_decay": 0.0},
        "adafactor": {"learning_rate": None, "min_dim_size_to_factor": 128},
        "contrib.ademamix": {"b3": 0.9999, "alpha": 5.0, "weight_decay": 0.0},
        "contrib.muon": {"consistent_rms": None},
    },
    "prodigyopt": {
        "Prodigy": {"lr": 1.0, "betas": (0.9, 0.999), "eps": 1e-8, "d0": 1e-6, "d_coef": 1.0, "weight_decay": 0,
                    "beta3": None, "growth_rate": math.inf, "safeguard_warmup": False, "use_bias_correction": False,
                    "decouple": True, "slice_p": 1},
    },
    "schedulefree": {
        "SGDScheduleFree": {"lr": 1.0, "momentum": 0.9, "weight_decay": 0, "r": 0.0, "weight_lr_power": 2},
        "AdamWScheduleFree": {"lr": 0.0025, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0},
    },
    "pytorch_optimizer": {
        "Adan": {"lr": 0.001, "betas": (0.98, 0.92, 0.99), "eps": 1e-8, "weight_decay": 0.0},
    },
}  # fmt: skip


@pytest.mark.parametrize("library", DEFAULTS)
def test_the_defaults_of_others_are_as_the_notes_have_them(library):
    os.environ.setdefault("KERAS_BACKEND", "torch")
    module = need(library)
    for name, expected in DEFAULTS[library].items():
        found = module
        for part in name.split("."):
            found = getattr(found, part)
        parameters = inspect.signature(found).parameters
        assert {key: parameters[key].default for key in expected} == expected, f"{library}.{name}"


SAME = {  # in Keras, which computes some numbers in float32
    "Adafactor": (lambda: fl.Adafactor(2.0**-5), lambda optimizers: optimizers.Adafactor(2.0**-5), (7, 5)),
    "Adafactor of a vector": (lambda: fl.Adafactor(2.0**-5), lambda optimizers: optimizers.Adafactor(2.0**-5), (4,)),
    "Muon": (
        lambda: fl.Muon(2.0**-7, momentum=0.875, weight_decay=2.0**-4),
        lambda optimizers: optimizers.Muon(2.0**-7, momentum=0.875, weight_decay=2.0**-4),
        (5, 4),
    ),
}


@pytest.mark.parametrize("case", SAME)
def test_keras_has_the_form_that_the_notes_say_is_its_own(case):
    ours, theirs, shape = SAME[case]
    rng, opt = np.random.default_rng(0), ours()
    w, gradients = rng.standard_normal(shape), rng.standard_normal((40, *shape))
    mine = w.copy()
    for g, found in zip(gradients, walk_keras(theirs, w, gradients)):
        mine = opt.step(mine, g)
        np.testing.assert_allclose(mine, found, rtol=0, atol=1e-6)
    assert np.max(np.abs(mine - w)) > 0.05
