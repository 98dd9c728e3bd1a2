"""A small network, trained by autograd and its adam."""

import autograd.numpy as np
from autograd import value_and_grad

import fallline as fl

rng = np.random.RandomState(0)
X = np.linspace(-1, 2, 40)[:, None]
y = np.sin(2 * X)
params = [(rng.normal(size=(1, 16)), np.zeros(16)), (rng.normal(size=(16, 1)), np.zeros(1))]


def loss(params, step=None):
    (W, b), (V, c) = params
    return np.mean((np.tanh(X @ W + b) @ V + c - y) ** 2)


params = fl.descend(value_and_grad(loss), params, fl.dialects.torch.Adam(0.02), steps=300).params
print(loss(params))
