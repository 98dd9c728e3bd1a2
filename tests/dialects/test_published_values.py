"""Dialects come to the numbers that other libraries' own tests have, carried over with their source.

Lasagne's are those of Lua torch's optim: lasagne/tests/test_updates.py, torch_values. TensorFlow's are of
tensorflow/python/training/ftrl_test.py. Keras' are in tests/reference/published_keras.py.
"""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from published_keras import AFTER_A_STEP, AFTER_EACH_STEP, GRADIENTS

keras, tensorflow, torch = fl.dialects.keras, fl.dialects.tensorflow, fl.dialects.torch

LASAGNE = {
    "sgd": (lambda: torch.SGD(0.1), [0.81707280688755, 0.6648326359915, 0.5386151140949]),
    "momentum": (lambda: keras.SGD(0.1, 0.5), [0.6848486952183, 0.44803321781003, 0.27431190123502]),
    "nesterov_momentum": (lambda: keras.SGD(0.1, 0.5, nesterov=True),
                          [0.67466543592725, 0.44108468114241, 0.2769002108997]),
    "adagrad": (lambda: keras.Adagrad(0.1, initial_accumulator_value=0, epsilon=1e-6),
                [0.55373120047759, 0.55373120041518, 0.55373120039438]),
    "rmsprop": (lambda: keras.RMSprop(0.01, epsilon=1e-6), [0.83205403985348, 0.83205322744821, 0.83205295664444]),
    "adadelta": (lambda: keras.Adadelta(1.0, epsilon=1e-6), [0.95453237704725, 0.9545237471374, 0.95452214847397]),
    "adam": (lambda: keras.Adam(0.01, epsilon=1e-8), [0.90034972009036, 0.90034967993061, 0.90034966654402]),
}  # fmt: skip


@pytest.mark.parametrize("name", LASAGNE)
def test_lua_torch_by_way_of_lasagne(name):
    make, expected = LASAGNE[name]
    opt, x = make(), np.ones(3)
    for _ in range(10):
        x = opt.step(x, 2 * np.array([0.1, 0.2, 0.3]) * x)
    np.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-8)  # as in the source


@pytest.mark.parametrize(("settings", "starts", "steps", "expected"), [
    ({}, ([0, 0], [0, 0]), 3, ([-2.60260963, -4.29698515], [-0.28432083, -0.56694895])),
    ({}, ([1, 2], [4, 3]), 3, ([-2.55607247, -3.98729396], [-0.28232238, -0.56096673])),
    ({"l1_regularization_strength": 0.001}, ([1, 2], [4, 3]), 10,
     ([-7.66718769, -10.91273689], [-0.93460727, -1.86147261])),
    ({"l1_regularization_strength": 0.001, "l2_regularization_strength": 2.0}, ([1, 2], [4, 3]), 10,
     ([-0.24059935, -0.46829352], [-0.02406147, -0.04830509])),
    ({"l1_regularization_strength": 0.001, "l2_regularization_strength": 2.0,
      "l2_shrinkage_regularization_strength": 0.1}, ([1, 2], [4, 3]), 10,
     ([-0.22578995, -0.44345796], [-0.14378493, -0.13229476])),
])  # fmt: skip
def test_tensorflows_ftrl(settings, starts, steps, expected):
    opt = tensorflow.Ftrl(3.0, initial_accumulator_value=0.1, **settings)
    w = [np.array(start, float) for start in starts]
    for _ in range(steps):
        w = opt.step(w, [np.array([0.1, 0.2]), np.array([0.01, 0.02])])
    np.testing.assert_allclose(w, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("opt", "expected"), AFTER_A_STEP, ids=lambda value: repr(value)[:30])
def test_keras_after_a_step(opt, expected):
    x = opt.fresh().step(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 6.0, 7.0, 2.0]))
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-4)  # as in the source


@pytest.mark.parametrize("name", AFTER_EACH_STEP)
def test_keras_after_each_of_five_steps(name):
    make, golden = AFTER_EACH_STEP[name]
    opt, x = make(), np.ones(10)
    for g, expected in zip(GRADIENTS, golden):
        x = opt.step(x, g)
        # 5e-4 there, where one value of Adam's stands for all coordinates
        np.testing.assert_allclose(x[[0, -1]], expected, rtol=0, atol=2e-4)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adadelta", "Adam", "Adamax", "Nadam", "Lion", "Lamb"])
def test_keras_decays_beside_the_step(name):
    """Of test_weight_decay: three steps, of as many optimizers there, without a gradient."""
    opt, x = getattr(keras, name)(1.0, weight_decay=0.004), 2.0
    for _ in range(3):
        x = opt.step(x, 0.0)
    assert x == pytest.approx(1.9760959, abs=1e-6)
