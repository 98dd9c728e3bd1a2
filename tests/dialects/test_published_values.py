"""Dialects come to the numbers that other libraries' own tests have, carried over with their source.

Lasagne's are those of Lua torch's optim: lasagne/tests/test_updates.py, torch_values. TensorFlow's are of
tensorflow/python/training/ftrl_test.py. Keras' (3.15) are of keras/src/optimizers/*_test.py, test_single_step and
test_correctness_with_golden.
"""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl

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


@pytest.mark.parametrize(("opt", "expected"), [
    (keras.SGD(0.5), [0.5, -1.0, -0.5, 3.0]),
    (keras.RMSprop(0.5), [-0.5811, 0.4189, 1.4189, 2.4189]),
    (keras.Adagrad(0.5), [0.5233, 1.5007, 2.5005, 3.5061]),
    (keras.Adadelta(0.5), [0.9993, 1.9993, 2.9993, 3.9993]),
    (keras.Adam(0.5), [0.5, 1.5, 2.5, 3.5]),
    (keras.AdamW(0.5), [0.4980, 1.4960, 2.494, 3.492]),
    (keras.Adamax(0.5), [0.5, 1.5, 2.5, 3.5]),
    (keras.Nadam(0.5), [0.4686, 1.4686, 2.4686, 3.4686]),
    (keras.Ftrl(0.5), [0.2218, 1.3954, 2.3651, 2.8814]),
    (keras.Lion(0.5), [0.5, 1.5, 2.5, 3.5]),
    (keras.Lamb(0.5), [-0.3693, 0.6306, 1.6306, 2.6306]),
], ids=lambda value: repr(value)[:30])  # fmt: skip
def test_keras_after_a_step(opt, expected):
    x = opt.fresh().step(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 6.0, 7.0, 2.0]))
    np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-4)  # as in the source


KERAS = {
    "SGD": (lambda: keras.SGD(nesterov=True), [[0.9999, 0.9999], [0.9989, 0.9899], [0.9979, 0.9799], [0.9969, 0.9699],
                                               [0.9959, 0.9599]]),
    "RMSprop": (lambda: keras.RMSprop(centered=True), [[0.9967] * 2, [0.9933] * 2, [0.9908] * 2, [0.9885] * 2,
                                                       [0.9864] * 2]),
    "Adagrad": (lambda: keras.Adagrad(0.2, initial_accumulator_value=0.3, epsilon=1e-6),
                [[0.9963, 0.9963], [0.9604, 0.8209], [0.9251, 0.6891], [0.8903, 0.579], [0.856, 0.4825]]),
    "Adadelta": (lambda: keras.Adadelta(1.0, rho=0.8, epsilon=1e-6),
                 [[0.9978] * 2, [0.9947] * 2, [0.9915] * 2, [0.9882] * 2, [0.9849] * 2]),
    "Adam": (lambda: keras.Adam(amsgrad=True), [[0.999] * 2, [0.9982] * 2, [0.9974] * 2, [0.9965] * 2, [0.9955] * 2]),
    "AdamW": (lambda: keras.AdamW(1.0, weight_decay=0.5, epsilon=2),
              [[0.4998, 0.4998], [0.2486, 0.2382], [0.1223, 0.1003], [0.0586, 0.0258], [0.0263, -0.0159]]),
    "Adamax": (lambda: keras.Adamax(0.2, beta_1=0.85, beta_2=0.95, epsilon=1e-6),
               [[0.8, 0.8], [0.6827, 0.691], [0.5333, 0.5466], [0.368, 0.3848], [0.1933, 0.2126]]),
    "Nadam": (lambda: keras.Nadam(0.5, beta_1=0.5, beta_2=0.67, epsilon=1e-5),
              [[0.4281, 0.4281], [-0.1738, -0.1717], [-0.7115, -0.7084], [-1.2335, -1.2299], [-1.7492, -1.7454]]),
    "Ftrl": (lambda: keras.Ftrl(0.05, -0.2, 0.4, 0.05, 0.15, 0.01, 0.3),
             [[0.0, 0.0], [-0.0034, -0.0354], [-0.0078, -0.0685], [-0.0121, -0.0999], [-0.0164, -0.1299]]),
    "Lion": (lambda: keras.Lion(), [[0.999] * 2, [0.998] * 2, [0.997] * 2, [0.996] * 2, [0.995] * 2]),
}  # fmt: skip


@pytest.mark.parametrize("name", KERAS)
def test_keras_after_each_of_five_steps(name):
    """Gradients of 0.01, then of 0.1 to 1.0: the first and the last of ten coordinates, of which all start at 1."""
    make, golden = KERAS[name]
    opt = make()
    x = opt.step(np.ones(10), np.full(10, 0.01))
    for expected in golden:
        # 5e-4 there, where one value of Adam's stands for all coordinates
        np.testing.assert_allclose(x[[0, -1]], expected, rtol=0, atol=2e-4)
        x = opt.step(x, np.arange(1, 11) / 10)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adagrad", "Adadelta", "Adam", "Adamax", "Nadam", "Lion", "Lamb"])
def test_keras_decays_beside_the_step(name):
    """Of test_weight_decay: three steps, of as many optimizers there, without a gradient."""
    opt, x = getattr(keras, name)(1.0, weight_decay=0.004), 2.0
    for _ in range(3):
        x = opt.step(x, 0.0)
    assert x == pytest.approx(1.9760959, abs=1e-6)
