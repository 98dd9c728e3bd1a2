"""A linear layer, trained by MLX."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map

import fallline as fl

mx.random.seed(0)
X = mx.random.normal((50, 3))
y = X @ mx.array([[1.0], [-2.0], [0.5]]) + 0.3
model = nn.Linear(3, 1)
gradient = nn.value_and_grad(model, lambda X, y: nn.losses.mse_loss(model(X), y))

optimizer, params = fl.Adam(0.05), tree_map(np.array, model.parameters())
for _ in range(300):
    loss, grads = gradient(X, y)
    optimizer.step(params, tree_map(np.array, grads))
    model.update(tree_map(mx.array, params))
print(*model.weight.tolist()[0], *model.bias.tolist())
