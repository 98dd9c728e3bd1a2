"""Derivatives through unrolled steps are those of finite differences, on the transformations whose bits are tested."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fallline as fl
from needed import need
from support import NAMES, RULES, STANDING, WHOLE_LEAF, build

jax, optax, transform = need("jax"), need("optax"), need("fallline.optax").transform
jnp = jax.numpy

SMOOTH = [name for name in NAMES if name not in WHOLE_LEAF]
TRACED = ("lr", "beta", "beta1", "beta2", "rho", "momentum", "weight_decay")


def loss(x):
    return jnp.sum((x - 1) ** 2 * jnp.cos(x)) + jnp.sum(x) * jnp.sum(jnp.sin(x))


def outcome(make, given, around=lambda step: step):
    """The loss after four steps, of hyper-parameters, a scale of the gradients, and a start."""
    tx = transform(make(), **given["settings"])

    def step(carry, _):
        x, state = carry
        grads = jax.grad(loss)(x) * given["scale"] * jnp.array([1.0, 1.0, 1.0, 0.0, 0.0])  # two never have a gradient
        updates, state = tx.update(grads, state, x)
        return (optax.apply_updates(x, updates), state), None

    (x, _), _ = jax.lax.scan(around(step), (given["start"], tx.init(given["start"])), None, length=4)
    return loss(x)


def point(name):
    """Where derivatives are taken: the rule's own hyper-parameters, with a larger lr; of most rules lr alone, which
    takes less time to compile."""
    traced = TRACED if name in STANDING else ("lr",)
    settings = {h: hyper.default for h, hyper in RULES[name].hyper.items() if h in traced}
    settings.update({"lr": 0.01} if "lr" in settings else {})
    start = np.array([0.3, -0.4, 0.5, 0.2, 0.0])
    return jax.tree.map(jnp.asarray, {"settings": settings, "scale": 1.0, "start": start})


def directed(given, seed=0):
    """A direction in which to leave a point: each number by a share of itself."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda v: jnp.asarray(rng.standard_normal(v.shape)) * v, given)


def along(function, given, direction):
    """A function of how far to go, with its derivative."""
    def there(far):
        return function(jax.tree.map(lambda v, d: v + far * d, given, direction))

    return jax.jit(lambda far: jax.jvp(there, (far,), (1.0,)))


@pytest.mark.parametrize("name", SMOOTH)
def test_derivatives_are_those_of_finite_differences(name):
    with jax.enable_x64(True):
        given = point(name)
        both = along(partial(outcome, partial(build, name)), given, directed(given))
        (higher, _), (lower, _), (_, slope) = both(1e-6), both(-1e-6), both(0.0)
        np.testing.assert_allclose(slope, (higher - lower) / 2e-6, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("make", [
    lambda: fl.accumulate(2, fl.chain(fl.clip_norm(0.5), fl.Adam(0.1), fl.weight_decay(0.1), fl.average(0.9))),
    lambda: fl.dialects.torch.NAdam(0.1, weight_decay=0.1),
], ids=["accumulate", "torch.NAdam"])
def test_so_they_are_of_chains_and_dialects(make):
    """Of calls that only gather, norms of the tree, powers of t that are not whole."""
    with jax.enable_x64(True):
        given = {**point("SGD"), "settings": {}}
        both = along(partial(outcome, make), given, directed(given))
        (higher, _), (lower, _), (_, slope) = both(1e-6), both(-1e-6), both(0.0)
        np.testing.assert_allclose(slope, (higher - lower) / 2e-6, rtol=1e-6)


def test_backwards_as_forwards_and_so_where_steps_are_computed_anew():
    with jax.enable_x64(True):
        given = point("Adam")
        direction = directed(given)
        _, slope = along(partial(outcome, fl.Adam), given, direction)(0.0)
        gradient = jax.jit(jax.grad(partial(outcome, fl.Adam, around=jax.checkpoint)))(given)
        products = jax.tree.map(lambda g, d: jnp.sum(g * d), gradient, direction)
        np.testing.assert_allclose(sum(jax.tree.leaves(products)), slope, rtol=1e-9)


NEAR_ZERO = {"LARS": fl.LARS, **{name: partial(build, name, eps=0.0) for name in ("RAdam", "LAMB")}}


@pytest.mark.parametrize("make", NEAR_ZERO.values(), ids=NEAR_ZERO)
def test_where_all_is_0_derivatives_are_numbers(make):
    """At the first step, without eps, with leaves whose gradients, or parameters, are 0."""
    arrays = {"still": jnp.array([1.0, 2.0]), "zeros": jnp.zeros(2), "some": jnp.array([0.0, 1.0])}
    grads = {**arrays, "still": jnp.zeros(2)}

    def moved(params, grads, lr):
        tx = transform(make(), lr=lr)
        return optax.apply_updates(params, tx.update(grads, tx.init(params), params)[0])

    slopes = jax.jit(jax.jacrev(moved, argnums=(0, 1, 2)))(arrays, grads, 0.1)
    assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
    np.testing.assert_allclose(slopes["still"][0]["still"], np.eye(2))


def test_a_gradient_that_is_0_has_the_derivative_of_one_that_hardly_differs():
    """The increment -0.0, and state that is flushed, are in the place of values as good as they."""
    tx = transform(fl.Momentum(0.1))

    def moved(g):
        _, state = tx.update(g, tx.init(g))
        return tx.update(g, state)[0]

    slopes = jax.vmap(jax.grad(moved))(jnp.array([0.0, 1e-3]))
    np.testing.assert_allclose(slopes, -0.1 * 1.9, rtol=1e-6)
