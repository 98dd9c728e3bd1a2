"""Transformations of optax, ours and others, in a run of theirs: jitted steps, from NumPy's arrays to NumPy's."""

from __future__ import annotations

import numpy as np

from needed import need
from support import normal

SHAPES = {"matrix": (61, 67), "number": (), "empty": (0, 3)}


def leaves(seed, dtype=np.float32, shapes=SHAPES):
    """Leaves of all shapes: some thousands of coordinates, an odd number, one, none."""
    rng = np.random.default_rng(seed)
    return {path: normal(rng, shape, dtype) for path, shape in shapes.items()}


def scaled_leaves(seed, dtype=np.float32, shapes=SHAPES):
    """Gradients: some of a step's are 0, and sizes differ from step to step."""
    rng = np.random.default_rng(seed)
    size, share = 10.0 ** rng.uniform(-3, 1), rng.choice([0.3, 1.0])
    return {path: (normal(rng, shape, dtype) * size * (rng.random(shape) < share)).astype(dtype)
            for path, shape in shapes.items()}


def on_device(tree):
    """The arrays as JAX's, which share no memory with them."""
    jax = need("jax")
    return jax.tree.map(lambda array: jax.numpy.array(array, copy=True), tree)


def jitted(tx):
    """`(params, state), grads -> (params, state)`: a step, compiled."""
    jax, optax = need("jax"), need("optax")

    @jax.jit
    def step(carry, grads):
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    return step


def walked(tx, params, gradients, step=None):
    """Where jitted steps come to, and the state there."""
    step, params = step or jitted(tx), on_device(params)
    carry = params, tx.init(params)
    for grads in gradients:
        carry = step(carry, on_device(grads))
    return carry


def bits(array):
    """The numbers of an array as integers, of one number as a row; of a complex one a pair."""
    array = np.atleast_1d(array)
    return array.view(np.dtype(f"uint{8 * array.real.itemsize}"))


def differing(a, b):
    """How many numbers of two trees of arrays differ in a bit; dtypes and shapes must not."""
    count = 0
    for one, two in zip(*map(need("jax").tree.leaves, (a, b)), strict=True):
        one, two = np.asarray(one), np.asarray(two)
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        count += np.count_nonzero(bits(one) != bits(two))
    return count
