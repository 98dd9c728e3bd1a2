"""What tests of `fallline.keras` share: a small model, data, and how both are trained. Keras runs on torch, unless
KERAS_BACKEND says otherwise."""

from __future__ import annotations

import os

import numpy as np

import fallline as fl
from needed import need

os.environ.setdefault("KERAS_BACKEND", "torch")  # before Keras is imported

ON_TORCH = os.environ["KERAS_BACKEND"] == "torch"
CLOSE = 0.0 if ON_TORCH else 2e-6  # to steps of arrays by ours, of a weight of about 1


def some(cases, *names):
    """Cases by name: on torch all, on JAX, which compiles for each, those named."""
    return cases if ON_TORCH else {name: cases[name] for name in names}


def needed():
    """Keras, with what runs it, or a skip."""
    need(os.environ["KERAS_BACKEND"])
    return need("keras")


def net(seed=0, dtype=None):
    """A model of two layers, all new."""
    keras = needed()
    keras.utils.set_random_seed(seed)
    hidden = keras.layers.Dense(4, activation="tanh", dtype=dtype, name="hidden")
    return keras.Sequential([keras.Input((3,)), hidden, keras.layers.Dense(1, dtype=dtype, name="out")], name="net")


def data(rows=32):
    """Inputs and targets."""
    x = np.random.default_rng(0).standard_normal((rows, 3)).astype("float32")
    return x, (x @ np.ones((3, 1))).astype("float32")


def fit(model, opt=None, epochs=2, **how):
    """The model after training, compiled with the optimizer if one is given."""
    if opt is not None:
        model.compile(opt, loss="mse")
    model.fit(*data(), batch_size=8, epochs=epochs, shuffle=False, verbose=0, **how)
    return model


def trained(opt, **how):
    """The weights of a new model after training with the optimizer."""
    return fit(net(), opt, **how).get_weights()


def ours(opt, *args, **how):
    """`fallline.keras.Optimizer`."""
    needed()
    return fl.keras.Optimizer(opt, *args, **how)


def far(weights, others):
    """The greatest distance of some weights from others."""
    return max(float(np.abs(np.asarray(a) - np.asarray(b)).max()) for a, b in zip(weights, others, strict=True))


def same(model, other):
    """Whether two models, and their optimizers, have the same bits."""
    arrays = [[*m.get_weights(), *map(np.asarray, (v.numpy() for v in m.optimizer.variables))] for m in (model, other)]
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(*arrays, strict=True))


def parameters(seed=0):
    """Arrays of two shapes, and gradients of them for five steps."""
    rng = np.random.default_rng(seed)
    shapes = [(3, 4), (4,)]
    make = lambda: [rng.standard_normal(shape).astype("float32") for shape in shapes]  # noqa: E731
    return make(), [make() for _ in range(5)]


def variables(arrays):
    """Keras's variables of arrays, of the names w0, w1, ..."""
    keras = needed()
    return [keras.Variable(a, name=f"w{k}") for k, a in enumerate(arrays)]


def stepped(opt, arrays, gradients):
    """What the arrays are after Keras's optimizer has applied the gradients."""
    keras, found = needed(), variables(arrays)
    for own in gradients:
        opt.apply([keras.ops.convert_to_tensor(g) for g in own], found)
    return [keras.ops.convert_to_numpy(v.value) for v in found]


@fl.rule
def signed_momentum(g, m=0, *, lr: fl.NonNegative = 1e-3, beta: fl.Fraction = 0.9):
    """A rule of one's own."""
    m = beta * m + (1 - beta) * g
    return -lr * fl.sign(m), m


Signed = type("Signed", (fl.Optimizer,), {"rule": signed_momentum, "__module__": "elsewhere"})


def by_kind(path):
    return "matrices" if path.endswith(("kernel", "w0")) else "others"


def is_matrix(path):
    return by_kind(path) == "matrices"


def rate_of(path):
    return 0.01 if is_matrix(path) else 0.05


def halves(t):
    return 0.05 * 0.5**t


OURS = {
    "a chain": lambda: fl.chain(fl.clip_norm(0.5), fl.Adam(0.05), fl.weight_decay(0.1)),
    "a dialect": lambda: fl.dialects.torch.NAdam(0.05),
    "numbers": lambda: fl.Prodigy(1.0),
    "two points": lambda: fl.ScheduleFreeAdamW(0.05),
    "whole leaves": lambda: fl.Adafactor(0.05),
    "accumulation": lambda: fl.accumulate(2, fl.Momentum(0.05)),
    "an average": lambda: fl.chain(fl.Momentum(0.05), fl.average(0.9)),
    "a partition": lambda: fl.chain(fl.clip_norm(1.0), fl.partition({"matrices": fl.Lion(0.05), "others": fl.Adam()},
                                                                    by_kind)),
    "a mask": lambda: fl.mask(is_matrix, fl.Adam(0.05)),
    "a rule": lambda: fl.Optimizer(signed_momentum, lr=0.05),
    "a class": lambda: Signed(0.05),
    "a schedule": lambda: fl.Adam(fl.schedules.cosine(0.05, steps=20, warmup=2)),
    "another schedule": lambda: fl.chain(fl.Adam(0.05), fl.weight_decay(fl.schedules.linear(0.1, steps=10))),
    "a function": lambda: fl.Adam(halves),
    "no rate": lambda: fl.AdaDelta(),
    "rates by path": lambda: fl.Adam(fl.by_path(rate_of)),
    "rates by coordinate": lambda: fl.Momentum({"w0": np.full((3, 4), 0.1), "w1": 0.1}),
}
GIVEN = {"signed_momentum": signed_momentum, "Signed": Signed, "label": by_kind, "halves": halves,
         "by": is_matrix, "lr": fl.by_path(rate_of)}  # fmt: skip
