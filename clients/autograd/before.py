"""A small network, trained by autograd and its adam."""

import autograd.numpy as np
from autograd import grad
from autograd.misc.optimizers import adam

rng = np.random.RandomState(0)
X = np.linspace(-1, 2, 40)[:, None]
y = np.sin(2 * X)
params = [(rng.normal(size=(1, 16)), np.zeros(16)), (rng.normal(size=(16, 1)), np.zeros(1))]


def loss(params, step=None):
    (W, b), (V, c) = params
    return np.mean((np.tanh(X @ W + b) @ V + c - y) ** 2)


params = adam(grad(loss), params, step_size=0.02, num_iters=300)
print(loss(params))
