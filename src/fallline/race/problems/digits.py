"""The race's real data: scikit-learn's 1,797 handwritten digits and a 64-32-10 network with its gradient in NumPy."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from fallline.race.problems.problem import Problem

BATCH = 32
TARGET = 0.1
Array = np.ndarray


@lru_cache(maxsize=1)
def data() -> tuple[Array, Array, Array, Array]:
    """Training images and one-hot labels, test images and labels: a fixed stratified split of four to one."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x, x_test, y, y_test = train_test_split(images / 16, labels, test_size=0.2, stratify=labels, random_state=0)
    return x, np.eye(10)[y], x_test, y_test


def layers(flat: Array) -> tuple[Array, Array, Array, Array]:
    """Views of the weights and biases of both layers in one flat vector."""
    w1, b1, w2 = 64 * 32, 64 * 32 + 32, 64 * 32 + 32 + 32 * 10
    return flat[:w1].reshape(64, 32), flat[w1:b1], flat[b1:w2].reshape(32, 10), flat[w2:]


def start(rng: np.random.Generator) -> Array:
    """Weights by He's rule for the layer before a ReLU, by LeCun's for the last; biases 0."""
    params = np.zeros(64 * 32 + 32 + 32 * 10 + 10)
    hidden, _, out, _ = layers(params)
    hidden[:] = rng.standard_normal((64, 32)) * np.sqrt(2 / 64)
    out[:] = rng.standard_normal((32, 10)) * np.sqrt(1 / 32)
    return params


def forward(params: Array, x: Array) -> tuple[Array, Array]:
    """The hidden layer's output and the logits, shifted so that the greatest of each row is 0."""
    w1, b1, w2, b2 = layers(params)
    h = x @ w1
    h += b1
    np.maximum(h, 0, out=h)
    z = h @ w2
    z += b2
    z -= np.maximum.reduce(z, axis=1, keepdims=True)
    return h, z


def value_and_grad(params: Array, batch: tuple[Array, Array]) -> tuple[float, Array]:
    """Mean cross-entropy of a batch, and its gradient by backpropagation."""
    x, y = batch
    h, z = forward(params, x)
    d = np.exp(z)
    total = np.add.reduce(d, axis=1, keepdims=True)
    value = float(np.log(total).sum() - np.vdot(z, y)) / len(x)
    d /= total
    d -= y
    d /= len(x)
    back = d @ layers(params)[2].T
    back *= h > 0
    gradient = np.empty_like(params)
    w1, b1, w2, b2 = layers(gradient)
    np.matmul(x.T, back, out=w1)
    np.add.reduce(back, axis=0, out=b1)
    np.matmul(h.T, d, out=w2)
    np.add.reduce(d, axis=0, out=b2)
    return value, gradient


def evaluate(params: Array) -> dict[str, float]:
    """Cross-entropy over the whole training part, and the share of the test part that is read correctly."""
    x, y, x_test, y_test = data()
    _, z = forward(params, x)
    loss = float(np.log(np.exp(z).sum(axis=1)).sum() - np.vdot(z, y)) / len(x)
    _, z_test = forward(params, x_test)
    return {"train_loss": loss, "test_accuracy": float(np.mean(z_test.argmax(axis=1) == y_test))}


def digits(seed: int) -> Problem:
    """The digits with initial weights and an order of mini-batches that depend on `seed` alone.

    >>> problem = digits(seed=0)
    >>> problem.params.shape
    (2410,)
    """
    x, y, _, _ = data()
    weights, order = np.random.SeedSequence(seed).spawn(2)
    per_epoch = -(-len(x) // BATCH)
    shuffle_root = int(order.generate_state(1)[0])
    shuffled: dict[int, Array] = {}

    def batches(step: int) -> tuple[Array, Array]:
        epoch, i = divmod(step, per_epoch)
        if epoch not in shuffled:
            shuffled.clear()
            shuffled[epoch] = np.random.default_rng([shuffle_root, epoch]).permutation(len(x))
        rows = shuffled[epoch][i * BATCH : (i + 1) * BATCH]
        return x[rows], y[rows]

    start_rng = np.random.default_rng(weights)
    return Problem(start(start_rng), value_and_grad, batches, evaluate, TARGET, name="digits", convex=False)
