"""What a transformation computes inside jit has the bits of the native engine, step by step.

Exceptions, each with its cause:

- Sums over a leaf or the tree: XLA adds in another order, so a norm may differ in its last digits.
- Numbers below the smallest normal one (1.2e-38 in float32): XLA reads and writes them as 0 on processors.
- Powers of t that are not whole, logarithms and exponentials: XLA's own functions may differ in the last digit.
- Under `vmap` over hyper-parameters alone: XLA makes a product of a quotient by what they share.
- Parameters of 16 bits: `optax.apply_updates` adds an increment that was rounded to 16 bits. Their state has the bits.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

import fallline as fl
from needed import need
from of_optax import bits, differing, jitted, leaves, on_device, scaled_leaves, walked
from support import COMPLEX, HALVES, WHOLE_LEAF, build, every_optimiser, signed_average, sums_over

jax, optax, transform = need("jax"), need("optax"), need("fallline.optax").transform

STEPS = 50
FURTHER = {  # than the rules: a chain, formulas of other libraries, one's own
    "a chain": lambda **o: fl.chain(fl.clip_value(0.5), fl.l2(0.1), fl.Nadam(0.01), fl.weight_decay(0.01),
                                    fl.average(0.9), **o),
    "torch": lambda **o: fl.dialects.torch.RMSprop(0.01, momentum=0.9, centered=True, weight_decay=0.1, **o),
    "keras": lambda **o: fl.dialects.keras.Ftrl(0.1, **o),
    "optax": lambda **o: fl.dialects.optax.yogi(0.01, **o),
    "own": lambda **o: fl.Optimizer(signed_average, **o),
}


TINY = np.s_[3]  # a row of the matrix


def gradients(dtype=np.float32):
    """Those of `scaled_leaves`, with rows of huge ones, of any size, fading and tiny."""
    found = [scaled_leaves(seed, dtype) for seed in range(STEPS)]
    for seed, g in enumerate(found):
        rng, rows = np.random.default_rng(1000 + seed), g["matrix"]
        for row, size in enumerate([1e30, 10.0 ** rng.uniform(-18, 30, 67), 10.0 ** -(seed % 25), 1e-30]):
            rows[row] = rng.standard_normal(67) * size
    return found


def native(opt, params, grads):
    """Where the native engine comes to, and its state."""
    params = {path: array.copy() for path, array in params.items()}
    for g in grads:
        params = opt.step(params, g)
    return params, {slot: dict(tree) for slot, tree in opt.state.items() if slot not in opt._chain.scopes()}


def assert_same(make, grads, dtype=np.float32):
    """That a transformation comes to where the native engine does; with sums, so closely that these explain it."""
    params = leaves(100, dtype)
    found, state = walked(transform(make()), params, grads)
    expected, slots = native(make(engine="native"), params, grads)
    assert (int(state.count), state.slots.keys()) == (len(grads), slots.keys())
    exact, eps = not make()._chain.updating.readings, np.finfo(dtype).eps
    for mine, other in [(found, expected), *((state.slots[slot], slots[slot]) for slot in slots)]:
        for path in params:
            one, two = np.asarray(mine[path]), np.asarray(other[path])
            assert (one.dtype, one.shape) == (two.dtype, two.shape)
            if exact:
                assert set(np.argwhere(bits(one) != bits(two))[:, 0]) <= {TINY}, path
            largest = np.abs(two[np.isfinite(two)]).max(initial=0)
            np.testing.assert_allclose(one, two, rtol=100 * eps, atol=10 * eps * largest)


@every_optimiser
def test_fifty_jitted_steps_have_the_bits_of_the_native_engine(name):
    grads = [scaled_leaves(seed) for seed in range(STEPS)] if sums_over(name) else gradients()
    assert_same(partial(build, name), grads)


@pytest.mark.parametrize("make", FURTHER.values(), ids=FURTHER)
def test_so_have_chains_dialects_and_rules_of_ones_own(make):
    assert_same(make, gradients())


@pytest.mark.parametrize("name", ["Adan", "LAMB", "Prodigy", "Muon"])
def test_so_has_float64(name):
    with jax.enable_x64(True):
        assert_same(partial(build, name), [scaled_leaves(seed, np.float64) for seed in range(10)], np.float64)


@pytest.mark.parametrize("name", ["AdamW", "RAdam"])
def test_a_complex_number_is_two_real_ones(name):
    assert_same(partial(build, name), [scaled_leaves(seed, np.complex64) for seed in range(10)], np.complex64)
    dtype, = {np.dtype(array.dtype) for array in jax.tree.leaves(transform(build(name)).init(
        on_device(leaves(0, np.complex64))).slots)}
    assert dtype in COMPLEX


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize("name", ["AdamW", "Adan", "Muon"])
def test_state_of_16_bits_has_the_bits_and_parameters_are_rounded_once_more(name, dtype):
    """Both step from where the native engine is."""
    opt, tx, params = build(name, "native"), transform(build(name)), leaves(100, dtype)
    update, state = jax.jit(tx.update), tx.init(on_device(params))
    for seed in range(10):
        grads, before = scaled_leaves(seed, dtype), on_device(params)
        updates, state = update(on_device(grads), state, before)
        moved = optax.apply_updates(before, updates)
        params = opt.step({path: array.copy() for path, array in params.items()}, grads)
        for path, array in params.items():
            assert updates[path].dtype == moved[path].dtype == dtype
            away = np.abs(np.float32(moved[path]) - np.float32(array))
            last = np.float32(dtype.type(1)) * 2.0 ** -(7 if "b" in dtype.name else 10)  # the last place of 1
            assert np.all(away <= last * np.maximum(np.abs(np.float32(array)), np.abs(np.float32(updates[path]))))
    assert differing(state.slots, {slot: dict(tree) for slot, tree in opt.state.items()}) == 0
    assert {array.dtype for array in jax.tree.leaves(state.slots)} == {np.dtype(np.float32)} or name in WHOLE_LEAF


def test_numbers_below_the_smallest_normal_one_are_0_to_xla():
    """An exception, and why: not the formula makes it."""
    subnormal = np.full(3, 1e-40, np.float32)
    assert not np.asarray(jax.jit(lambda a: a * 0.5)(subnormal)).any()
    opt, tx = fl.SGD(1.0), transform(fl.SGD(1.0))
    assert opt.update(subnormal).all()
    assert not np.asarray(jax.jit(lambda g, s: tx.update(g, s)[0])(subnormal, tx.init(subnormal))).any()


def test_steps_unrolled_from_a_state_made_inside_jit_have_the_bits_too():
    """Where the count is known to the compiler, which may then know more than it should."""
    tx, params, grads = transform(fl.RAdam()), leaves(100), [scaled_leaves(seed) for seed in range(6)]

    @jax.jit
    def run(params, grads):
        state = tx.init(params)
        for g in grads:
            updates, state = tx.update(g, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    together, by_one = run(on_device(params), on_device(grads)), walked(tx, params, grads, jitted(tx))
    assert differing(together, by_one) == 0
    assert differing(together[0], native(fl.RAdam(engine="native"), params, grads)[0]) == 0


def test_gradients_and_parameters_that_are_constants_of_what_is_compiled_get_the_bits_too():
    tx, params, g = transform(fl.AdamW()), leaves(100), scaled_leaves(0)
    _, state = walked(tx, params, [scaled_leaves(seed) for seed in range(1, 4)])
    expected = jax.jit(tx.update)(g, state, params)
    assert differing(jax.jit(lambda state: tx.update(g, state, params))(state), expected) == 0
    assert differing(jax.jit(lambda state, params: tx.update(g, state, params))(state, params), expected) == 0
