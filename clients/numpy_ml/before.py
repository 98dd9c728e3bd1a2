"""A layer of numpy-ml, trained by its own Adam."""

import collections
import collections.abc

import numpy as np

collections.Hashable = collections.abc.Hashable  # which numpy-ml 0.1.2 looks for there
from numpy_ml.neural_nets.layers import FullyConnected  # noqa: E402

rng = np.random.default_rng(0)
np.random.seed(0)
X = rng.normal(size=(50, 3))
y = X @ [[1.0], [-2.0], [0.5]] + 0.3

layer = FullyConnected(1, optimizer="Adam(lr=0.05)")
for _ in range(500):
    error = layer.forward(X) - y
    layer.backward(error / len(X))
    layer.update()
print(*layer.parameters["W"].ravel(), *layer.parameters["b"].ravel())
