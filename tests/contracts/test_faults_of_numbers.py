"""Faults that other optimiser libraries shipped, each excluded for every optimiser and both array engines: those of
numbers. Those of leaves and trees are in test_faults_of_leaves.py.

The numbers are those of the project's list of faults. Some have a file that they fit better: 3, 7 and 13 are also
pitfalls of published listings (rules/test_pitfalls.py); 19 and 23 are about memory (arrays/test_layouts.py); 22, 25
and the first half of 26 are refusals (messages/test_refusals.py); 32 and 35 are about the state as a whole
(state/test_own_state.py).
"""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from fallline._arrays.trees import flatten
from reference_formulas import TRANSCRIPTIONS
from reference_ten import TINY
from support import (
    EPS_SLOTS,
    FADING,
    FOR_EVER,
    NAMES,
    RATE_INSIDE,
    RULES,
    SLOTS,
    WITH_BETAS,
    WITH_EPS,
    WITH_RATE,
    WITH_STATE,
    WITHOUT_DECAY,
    a_tree,
    and_one_in_every_precision,
    build,
    every_engine,
    every_half,
    every_optimiser,
    every_optimiser_or_precision,
    every_precision,
    frozen,
    limits,
    memory_of,
    picture,
    same_bits,
    state_dtype,
    update,
)

OWN_FORGETFUL = {
    "AdaGrad": {"eps": 0.0}, "AMSGrad": {"eps": 0.0}, "Adan": {"beta2": 0.1, "beta3": 0.15}, "Prodigy": {"beta2": 0.01},
}  # fmt: skip
FORGETFUL = {  # settings under which every slot that can fade does so within some hundred steps
    name: {
        key: 0.15 if key.endswith("beta2") else 0.1 for key, hyper in RULES[name].hyper.items()
        if hyper.range.holds(0.0) and not hyper.range.holds(1.0)
    } | OWN_FORGETFUL.get(name, {}) for name in NAMES
}  # fmt: skip
LARGE_EPS = {name: {"eps": 0.1} if name in WITH_EPS else {} for name in NAMES}


# =================================================================================================== numbers


@every_optimiser_or_precision
@every_engine
def test_01_zero_gradients_leave_parameters_as_they_are_and_the_state_finite(name, engine, dtype):
    w = a_tree(0, dtype)
    opt, kept = build(name, engine, **WITHOUT_DECAY[name]), frozen(w)
    for _ in range(3):
        opt.step(w, {key: np.zeros_like(leaf) for key, leaf in w.items()})
        assert frozen(w) == kept
        assert all(np.isfinite(leaf).all() for leaf in flatten(dict(opt.state))[0])


@and_one_in_every_precision(WITH_RATE)
@every_engine
def test_02_tiny_gradients_give_finite_steps_of_about_the_rate_or_less(name, engine, dtype):
    start = np.array([0.579, -0.729, 0.5493], dtype)
    w, opt = start.copy(), build(name, engine, lr=1e-4)
    opt.step(w, np.array([-0.001497, 0.0001875, -0.013176], dtype))
    largest = {"RMSProp": 31.7e-4, "Nadam": 1.91e-4, "NadaMax": 1.91e-4, "Nesterov": 1.91e-4, "NadamW": 1.92e-4,
               "AdaBelief": 1.12e-4}.get(name, 1.01e-4)  # fmt: skip
    spacing = float(limits(dtype).eps)  # to which a step is rounded
    assert np.all(np.abs(w.astype(complex) - start.astype(complex)) <= largest + spacing)


@every_optimiser
@every_engine
@every_half
def test_07_a_large_gradient_does_not_freeze_what_follows_in_low_precision(name, engine, dtype):
    """As the same optimiser in float64, but where g*g is too large for the float32 that is computed in."""
    low, high = build(name, engine), build(name, engine)
    largest = min(float(limits(dtype).max), 1e18)
    for size in (largest, -largest / 2, 1.0, 0.5):
        g = np.array([size, -size, 1.0, 0.0], dtype)
        found, wanted = update(low, g), update(high, g.astype(float))
        with np.errstate(all="ignore"):
            rounded = wanted.astype(dtype)
        np.testing.assert_allclose(found.astype(float), rounded.astype(float), rtol=2 * float(limits(dtype).eps),
                                   atol=float(limits(dtype).smallest_subnormal))  # fmt: skip


@pytest.mark.parametrize("name", ["AdaGrad", "Adam", "Nadam", "AdamW", "NadamW", "AMSGrad"])
@every_engine
@every_half
def test_08_gradients_whose_square_the_dtype_cannot_hold_still_step_by_the_rate(name, engine, dtype):
    size = 4 * float(limits(dtype).smallest_subnormal) if dtype == np.float16 else 1e-16
    opt = build(name, engine, lr=0.125, eps=0.0)
    found = update(opt, np.array([size, -size], dtype)).astype(float)
    np.testing.assert_allclose(found, [-0.2375, 0.2375] if name.startswith("Nadam") else [-0.125, 0.125], rtol=0.005)


@every_optimiser
@every_engine
@every_half
def test_13_a_step_in_low_precision_is_that_of_float64_rounded_once(name, engine, dtype):
    low, high = build(name, engine), build(name, engine)
    for seed in range(1, 4):
        g = a_tree(seed, dtype)["a"]
        found, wanted = update(low, g), update(high, g.astype(float))
        # the float32 that is computed in may tip a number that lies between two of the dtype
        np.testing.assert_allclose(found.astype(float), wanted, rtol=0.501 * float(limits(dtype).eps),
                                   atol=float(limits(dtype).smallest_subnormal))  # fmt: skip
        for slot in SLOTS[name]:
            np.testing.assert_allclose(low.state[slot], high.state[slot], rtol=1e-6, atol=1e-9)


@and_one_in_every_precision(WITH_RATE)
@every_engine
def test_04_a_rate_of_zero_moves_nothing_while_the_state_goes_on(name, engine, dtype):
    still, moving = build(name, engine, lr=0.0), build(name, engine)
    w = a_tree(0, dtype)
    kept = frozen(w)
    for seed in range(1, 6):
        still.step(w, a_tree(seed, dtype))
        update(moving, a_tree(seed, dtype))
        assert frozen(w) == kept
    assert still.t == 5
    for slot in set(SLOTS[name]) - RATE_INSIDE.get(name, set()):
        assert same_bits(dict(still.state[slot]), dict(moving.state[slot]))


@every_optimiser
@every_engine
def test_05_everything_can_be_asked_before_the_first_step(name, engine):
    opt = build(name, engine)
    assert repr(opt).startswith(f"{name}(")
    assert opt.t == 0
    assert opt.skipped == 0
    assert isinstance(opt.hyper[next(iter(opt.hyper))], float)
    assert engine in str(opt.engine)
    assert isinstance(dict(opt.state), dict)


@every_optimiser_or_precision
@every_engine
def test_09_a_skipped_gradient_leaves_no_trace(name, engine, dtype):
    opt, twin = build(name, engine, nonfinite="skip"), build(name, engine)
    w, v = a_tree(0, dtype), a_tree(0, dtype)
    for seed, bad in enumerate([np.nan, np.inf, -np.inf, np.nan], 1):
        opt.step(w, a_tree(seed, dtype))
        twin.step(v, a_tree(seed, dtype))
        poisoned = a_tree(seed, dtype)
        poisoned["b"][1, 2] = bad
        memory, _, bits = picture(opt, w)
        opt.step(w, poisoned)
        assert picture(opt, w) == (memory, seed, bits)
    assert opt.skipped == 4
    assert twin.skipped == 0
    assert same_bits(w, v)


@every_engine
def test_09_a_skipped_gradient_does_not_advance_a_schedule(engine):
    opt = fl.SGD(lambda completed: 1.0 + completed, nonfinite="skip", engine=engine)
    opt.update(np.array([1.0]))
    opt.update(np.array([np.nan]))
    assert opt.update(np.array([1.0]))[0] == -2.0


@every_engine
@every_precision
@pytest.mark.parametrize("size", [0, 1, 7, 64, 4096, 10_001, 150_000])
def test_09_a_single_nan_is_found_wherever_it_stands(engine, dtype, size):
    opt = fl.SGD(engine=engine)
    for place in {0, size // 2, size - 1} if size else ():
        g = np.ones(size, dtype)
        g[place] = np.nan
        with pytest.raises(fl.NonFiniteGradient):
            opt.update(g)
    opt.update(np.ones(size, dtype))
    assert opt.t == 1


@every_optimiser_or_precision
@every_engine
def test_12_the_step_count_does_not_saturate(name, engine, dtype):
    for t in (2**8, 2**11, 2**24 - 1, 2**24, 2**31 - 1, 2**31, 2**40, 2**53, 2**62):
        opt = build(name, engine, **({"lr": 0.125} if name in WITH_RATE else {}))  # of which the shortest step shows
        w = opt.step(np.zeros(3, dtype), np.ones(3, dtype))
        opt.t = t
        before = w.copy()
        for k in range(1, 4):
            w = opt.step(w, np.ones(3, dtype))
            assert opt.t == t + k
        assert np.all(np.isfinite(w))
        assert np.all(w.real < before.real) or (name in FADING and t == 2**62)


@pytest.mark.needs("a transcription")
@pytest.mark.parametrize("name", WITH_BETAS)
@every_engine
@pytest.mark.parametrize("t", [2**24, 2**31 - 1])
def test_12_the_correction_is_still_exact_at_large_step_counts(name, engine, t):
    slow = {"beta1": 1 - 2.0**-30, "beta2": 1 - 2.0**-30}
    opt, expected = build(name, engine, **slow), TRANSCRIPTIONS[name]((2,), TINY[np.dtype("float64")], **slow)
    g = np.array([1.0, -0.5])
    update(opt, g)
    expected.step(g)
    opt.t = expected.t = t
    # the power itself is only good to t roundings
    np.testing.assert_allclose(update(opt, g), expected.step(g), rtol=1e-6)


@and_one_in_every_precision(WITH_STATE)
@every_engine
def test_14_the_second_step_remembers_the_first(name, engine, dtype):
    remembering, fresh = build(name, engine), build(name, engine)
    update(remembering, np.array([1.0, 1.0], dtype))
    update(fresh, np.array([-300.0, 0.0], dtype))
    g = np.array([0.5, -0.001], dtype)  # so that even the sign of an average tells
    assert np.all(update(remembering, g) != update(fresh, g))


@every_optimiser
@every_precision
def test_15_the_engines_agree_in_parameters_and_state_to_the_bit(name, dtype):
    reference, native = build(name, "reference", **LARGE_EPS[name]), build(name, "native", **LARGE_EPS[name])
    w, v = a_tree(0, dtype), a_tree(0, dtype)
    for seed in range(1, 13):
        g = a_tree(seed, dtype)
        g["a"][seed % 4] = 0
        reference.step(w, g)
        native.step(v, g)
        assert same_bits(w, v)
        assert memory_of(reference) == memory_of(native)


@every_optimiser_or_precision
@every_engine
def test_18_no_state_is_ever_subnormal(name, engine, dtype):
    """Through zero gradients after real ones, under settings that fade past the smallest normal number and to 0."""
    tiny = np.finfo(state_dtype(dtype)).tiny
    opt = build(name, engine, **FORGETFUL[name])
    for g in ([1.0, -1e-3, 1e-18, 0.0], [1e-22, 1e-20, -1e-30, 0.0]):
        update(opt, np.array(g, dtype))
    for _ in range(400 if limits(dtype).dtype == np.float64 else 60):
        update(opt, np.zeros(4, dtype))
        for slot in SLOTS[name]:
            size = np.abs([opt.state[slot].real, opt.state[slot].imag])
            assert not np.any((size > 0) & (size < tiny)), slot
    for slot in set(SLOTS[name]) - FOR_EVER.get(name, set()):
        assert not np.any(opt.state[slot]), f"{slot} was meant to fade to 0"


@pytest.mark.slow
@every_optimiser
def test_18_nor_after_5000_zero_gradients_under_the_default_settings(name):
    opt, zeros, out = build(name, "native"), np.zeros(4, np.float32), np.empty(4, np.float32)
    update(opt, np.array([1.0, 1e-12, 1e-18, 1e-30], np.float32))
    for k in range(5000):
        update(opt, zeros, zeros, out=out)
        for array in opt.state.values() if k % 50 == 49 else ():
            assert not np.any((array != 0) & (np.abs(array) < np.finfo(array.dtype).tiny))


@pytest.mark.parametrize("name", WITH_EPS)
@every_engine
def test_18_not_even_a_subnormal_start_is_kept(name, engine):
    opt = build(name, engine, eps=1e-40)
    update(opt, np.zeros(3, np.float32))
    assert EPS_SLOTS[name]
    for slot in EPS_SLOTS[name]:
        assert not np.any(opt.state[slot]), slot
