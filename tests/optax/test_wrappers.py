"""What optax, flax and JAX do with a transformation, done to ours: wrappers, the state as a tree, files."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from needed import need
from of_optax import differing, jitted, leaves, on_device, walked

jax, optax, transform = need("jax"), need("optax"), need("fallline.optax").transform
jnp = jax.numpy

SHAPES = {"w": (3, 2), "b": (2,)}


def some(steps=6):
    return leaves(0, shapes=SHAPES), [leaves(seed, shapes=SHAPES) for seed in range(1, steps + 1)]



def adam(lr=0.1):
    """optax's Adam as a dialect, and optax's."""
    return transform(fl.dialects.optax.adam(lr)), optax.adam(lr)


WRAPPERS = {
    "chain": lambda tx: optax.chain(optax.clip_by_global_norm(0.5), tx, optax.scale_by_schedule(lambda t: 1 / (1 + t))),
    "named_chain": lambda tx: optax.named_chain(("clip", optax.clip(0.5)), ("ours", tx)),
    "masked": lambda tx: optax.masked(tx, {"w": True, "b": False}),
    "partition": lambda tx: optax.partition({"ours": tx, "sgd": optax.sgd(0.1)}, {"w": "ours", "b": "sgd"}),
    "MultiSteps": lambda tx: optax.MultiSteps(tx, 2).gradient_transformation(),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "flatten": optax.flatten,
    "with_extra_args_support": optax.with_extra_args_support,
    "ema": lambda tx: optax.chain(tx, optax.ema(0.5)),
    "mechanize": optax.contrib.mechanize,
    "schedule_free": lambda tx: optax.contrib.schedule_free(tx, 0.1),
    "split_real_and_imaginary": optax.contrib.split_real_and_imaginary,
    "conditionally_transform": lambda tx: optax.conditionally_transform(tx, lambda step: step % 2 == 0),
}


@pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS)
def test_in_a_wrapper_a_dialect_of_optax_goes_where_optax_goes(wrap):
    params, grads = some()
    ours, theirs = (walked(wrap(tx), params, grads)[0] for tx in adam())
    for path in params:
        np.testing.assert_allclose(ours[path], theirs[path], atol=1e-5)  # 1 - b2**t of optax is good to 5 digits


def test_hyperparameters_are_injected_by_name_traced_or_not():
    params, grads = some()
    inject = optax.inject_hyperparams(lambda learning_rate, beta: transform(fl.Adam(), lr=learning_rate, beta1=beta))
    tx = inject(learning_rate=optax.cosine_decay_schedule(0.1, 10), beta=0.5)
    found, state = walked(tx, params, grads)
    assert state.hyperparams["learning_rate"] == pytest.approx(optax.cosine_decay_schedule(0.1, 10)(5))
    opt, expected = fl.Adam(lambda t: float(optax.cosine_decay_schedule(0.1, 10)(t)), beta1=0.5), dict(params)
    for g in grads:
        opt.step(expected, g)
    assert differing(found, expected) == 0
    # eager, and with another value written into the state
    state = tx.init(on_device(params))
    state.hyperparams["beta"] = jnp.asarray(0.0)
    updates, state = tx.update(on_device(grads[0]), state, on_device(params))
    expected = fl.Adam(0.1, beta1=0.0).update(grads[0])
    for path in params:
        np.testing.assert_allclose(updates[path], expected[path], rtol=1e-6)


def test_a_step_that_is_not_finite_is_left_out():
    params, grads = some(4)
    grads[2] = {path: g * np.nan for path, g in grads[2].items()}
    outside = walked(optax.apply_if_finite(transform(fl.Adam(0.1)), 3), params, grads)[0]
    inside = walked(transform(fl.Adam(0.1, nonfinite="skip")), params, grads)
    without = walked(transform(fl.Adam(0.1)), params, grads[:2] + grads[3:])
    assert differing(inside, without) == 0
    assert differing(outside, without[0]) == 0


def test_arguments_that_others_need_are_passed_over():
    params, grads = some(1)
    tx = optax.chain(transform(fl.Adam(0.1)), optax.contrib.reduce_on_plateau())
    state = tx.init(on_device(params))
    updates, _ = tx.update(on_device(grads[0]), state, on_device(params), value=1.0)
    alone, _ = transform(fl.Adam(0.1)).update(on_device(grads[0]), state[0], on_device(params), value=1.0, grad=None)
    assert differing(updates, alone) == 0


def test_state_is_a_tree_whose_parts_optax_finds_by_name():
    params, grads = some(3)
    tx = optax.chain(optax.clip(10.0), transform(fl.Adam(0.1)))
    _, state = walked(tx, params, grads)
    assert int(optax.tree.get(state, "count")) == 3
    assert set(optax.tree.get(state, "slots")) == {"m", "v"}
    again = optax.tree.set(state, count=jnp.zeros((), jnp.int32))
    assert int(optax.tree.get(again, "count")) == 0
    assert differing(jax.tree.map(lambda a: a + 0, state), state) == 0
    mapped = optax.tree_map_params(tx, lambda p: p * 0 + 7, state)
    assert {float(a.max()) for a in jax.tree.leaves(optax.tree.get(mapped, "slots"))} == {7.0}
    assert int(optax.tree.get(mapped, "count")) == 3


def test_state_goes_through_a_file_of_flax():
    serialization = need("flax").serialization
    params, grads = some(6)
    tx = transform(fl.chain(fl.clip_norm(1.0), fl.ScheduleFreeAdamW(0.1)))
    half = walked(tx, params, grads[:3])
    kept = serialization.to_bytes(half)
    again = serialization.from_bytes((on_device(params), tx.init(on_device(params))), kept)
    step = jitted(tx)
    for g in grads[3:]:
        half, again = step(half, g), step(again, g)
    assert differing(half, again) == 0


def test_parameters_need_not_be_given_where_the_formula_does_not_name_them():
    _, grads = some(1)
    tx = transform(fl.Adam(0.1))
    updates, _ = jax.jit(tx.update)(grads[0], tx.init(grads[0]))
    assert differing(updates, fl.Adam(0.1).update(grads[0])) == 0
    with pytest.raises(ValueError, match=r"update of AdamW needs the parameters: update\(grads, state, params\)"):
        transform(fl.AdamW(0.1)).update(grads[0], transform(fl.AdamW(0.1)).init(grads[0]))
