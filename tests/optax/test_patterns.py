"""What optax asks of its own optimizers, asked of ours: minima are reached, dtypes and shapes stay, nothing is compiled
twice."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from needed import need
from places import TESTS
from support import RULES, SLOTS, WHOLE_LEAF, build, every_optimiser, output_of, start_alone

jax, optax, transform = need("jax"), need("optax"), need("fallline.optax").transform
jnp = jax.numpy

SETTINGS = {
    **{name: {"lr": 0.01} for name in ("Adam", "AdaMax", "Nadam", "NadaMax", "AdamW", "NadamW", "Rprop", "AMSGrad",
                                       "AdaBelief", "RAdam", "AdEMAMix", "Adan", "ScheduleFreeSGD", "ScheduleFreeAdamW",
                                       "Prodigy")},
    "SGD": {"lr": 1e-3}, "Momentum": {"lr": 1e-3}, "Nesterov": {"lr": 1e-3}, "AdaGrad": {"lr": 1.0},
    "RMSProp": {"lr": 3e-3}, "AdaDelta": {"eps": 1e-4}, "Lion": {"lr": 2e-3}, "LARS": {"lr": 0.1}, "LAMB": {"lr": 1e-3},
    **{name: {"lr": 0.1} for name in WHOLE_LEAF},
}
FADING = ["AdaDelta", *WHOLE_LEAF]  # whose steps get shorter; those of the others, which call NumPy, are fewer
START = {"parabola": np.float32([-1.0, 10.0, 1.0]), "valley": np.float32([0.0, 0.0])}
MINIMUM = {"parabola": [1.0, -1.0, 1.0], "valley": [1.0, 1.0]}


def loss(params):
    """A parabola and Rosenbrock's function."""
    x, y = params["valley"]
    return jnp.sum((params["parabola"] - jnp.array(MINIMUM["parabola"])) ** 2) + (1 - x) ** 2 + 100 * (y - x * x) ** 2


@every_optimiser
def test_ten_thousand_steps_reach_the_minimum(name):
    """That of a rule which has no settings above only comes nearer."""
    tx = transform(build(name, **SETTINGS.get(name, {})))
    steps = 2_000 if name in WHOLE_LEAF else 10_000

    @jax.jit
    def run(params):
        def step(_, carry):
            params, state = carry
            updates, state = tx.update(jax.grad(loss)(params), state, params)
            return optax.apply_updates(params, updates), state
        return jax.lax.fori_loop(0, steps, step, (params, tx.init(params)))

    found, state = run(START)
    assert int(state.count) == steps
    assert loss(found) < loss(START)
    if name in SETTINGS:
        np.testing.assert_allclose(found["parabola"], MINIMUM["parabola"], atol=0.1 if name in FADING else 0.03)
    if name in SETTINGS and name not in FADING:
        np.testing.assert_allclose(found["valley"], MINIMUM["valley"], atol=0.03)


@every_optimiser
def test_dtypes_and_shapes_stay(name):
    """Of what is traced, and never run: updates like parameters, slots like them, in float32 at least."""
    tx, shape = transform(build(name)), jax.ShapeDtypeStruct
    params = {"W": shape((4, 3), "float32"), "deep": [(shape((), "bfloat16"),), shape((0, 2), "float16")]}
    state = jax.eval_shape(tx.init, params)
    updates, after = jax.eval_shape(tx.update, params, state, params)
    assert updates == params
    assert after == state
    assert state.count == shape((), jnp.int32)
    assert set(state.slots) == set(SLOTS[name])
    for slot, tree in state.slots.items():
        assert jax.tree.structure(tree) == jax.tree.structure(params)
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {np.dtype(np.float32)}
        if slot not in RULES[name].shapes:
            assert [leaf.shape for leaf in jax.tree.leaves(tree)] == [(4, 3), (), (0, 2)]


TREES = {"{}": {}, "[]": [], "()": (), "a leaf": np.float32(2),
         "nested": [np.ones(2, np.float32), {"a": (np.ones(3, np.float32),)}]}


@pytest.mark.parametrize("params", TREES.values(), ids=TREES)
@pytest.mark.parametrize("name", ["Adam", "Prodigy", "LAMB"])
def test_any_tree_is_stepped_an_empty_one_too(name, params):
    tx = transform(build(name))
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    for _ in range(2):
        updates, state = jax.jit(tx.update)(params, state, params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
    assert int(state.count) == 2


def test_nothing_is_compiled_again_as_counts_and_settings_change():
    inject = optax.inject_hyperparams(lambda lr, beta2: transform(fl.AdamW(), lr=lr, beta2=beta2))
    tx, traced = inject(lr=lambda t: 0.1 / (1 + t), beta2=0.99), []

    @jax.jit
    def step(carry, grads):
        traced.append(grads)
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    carry = jax.device_put((START, tx.init(START)))
    carry = step(carry, START)
    settled = len(traced)
    for beta2 in (0.9, 0.5, 0.0):
        carry[1].hyperparams["beta2"] = jnp.asarray(beta2, carry[1].hyperparams["beta2"].dtype)
        carry = step(step(carry, START), START)
    assert len(traced) == settled


@pytest.mark.slow
def test_arrays_divided_among_devices_are_stepped_where_they_are():
    """On four devices: without sums none asks another, and the bits are those of one; state is divided alike."""
    assert output_of(start_alone((TESTS / "tools" / "sharded.py").read_text())) == "the same\n"
