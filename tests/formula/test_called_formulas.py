"""Formulas that are called with arrays and numbers, outside of any optimizer, to see what they give."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from support import FULL, drawn, every_dtype, every_optimiser

ARRAYS = {
    "zeros": lambda rng, tiny: np.zeros((2, 3)),
    "ones": lambda rng, tiny: np.ones((2, 3)),
    "tiny": lambda rng, tiny: np.full((2, 3), tiny),
    "of every size": lambda rng, tiny: rng.standard_normal((2, 3)) * 10.0 ** rng.integers(-12, 12, (2, 3)),
}


def first_state(rule, hyper, given):
    """What each slot of a rule starts at, for a leaf of its own."""
    for slot, start in rule.slots.items():
        value = given[start] if start in given else hyper.get(start, start)
        shape = rule.shapes.get(slot, lambda shape: shape)(given["x"].shape)
        yield float(value) if slot in rule.scopes else np.array(np.broadcast_to(value, shape), given["x"].dtype)


@every_optimiser
@every_dtype
@pytest.mark.parametrize("arrays", ARRAYS)
def test_a_formula_called_with_arrays_gives_what_the_reference_engine_gives(name, dtype, arrays):
    rng, tiny = np.random.default_rng(0), np.finfo(dtype).tiny
    rule, opt = fl.OPTIMIZERS[name].rule, fl.OPTIMIZERS[name](engine="reference")
    x, state = ARRAYS[arrays](rng, tiny).astype(dtype), None
    for t in (1, 2, 3):
        given = {"g": ARRAYS[arrays](rng, tiny).astype(dtype), "x": x, "t": t}
        state = list(first_state(rule, opt.hyper, given)) if state is None else state
        found = rule.formula(*(given[name] for name in rule.given), *state, **opt.hyper)
        found, *state = found if isinstance(found, tuple) else (found,)
        state = [s if isinstance(s, float) else np.where(np.abs(s) < tiny, 0, s) for s in state]  # as engines keep it
        wanted = opt.update(given["g"], params=x)
        assert found.dtype == dtype
        np.testing.assert_allclose(found, wanted, rtol=64 * np.finfo(dtype).eps, atol=64 * tiny)


@fl.rule
def lars_like(g, x, *, lr=0.1):
    a, b = fl.norm(x), fl.norm(g)
    return -lr * fl.where(b > 0, a / b, 1) * g


TERMS = [
    lambda g, t, *, a=0.0, b=0.0: a / b * g,
    lambda g, t, *, a=0.0, b=0.0: b / (t - 1) * g,
    lambda g, t, *, a=0.0, b=0.0: (t / (t - 1) + fl.sqrt(a)) * g,
    lambda g, t, *, a=0.0, b=0.0: (fl.log(b) + 1 / fl.sqrt(a)) * g,
    lambda g, t, *, a=0.0, b=0.0: a**-t * b**t * g,
    lambda g, t, *, a=0.0, b=0.0: ((2 * a) ** b - 1 / fl.exp(b)) * g,
    lambda g, t, *, a=0.0, b=0.0: fl.where(a > 0, 1 / a, fl.maximum(b, 0)) * g,
    lambda g, t, *, a=0.0, b=0.0: 1 / fl.minimum(fl.abs(a), 1) * g,
]
TERMS = [(rule, fl.Optimizer(rule)) for rule in map(fl.rule, TERMS)]


@pytest.mark.parametrize("given", [(np.zeros(2), np.ones(2)), (np.zeros(2), np.zeros(2)), (np.ones(2), np.zeros(2))])
def test_a_formula_called_directly_divides_by_a_norm_of_zero_as_engines_do(given):
    found = lars_like.formula(*given, lr=0.1)
    np.testing.assert_array_equal(found, fl.Optimizer(lars_like).update(given[0], params=given[1]))


numbers = st.floats(-1e3, 1e3) | st.sampled_from([0.0, 1.0, 0.5, 1e300, 1e-300])


@drawn(100)
@given(a=numbers, b=numbers, t=st.integers(1, 500))
def test_numbers_in_a_formula_follow_ieee_754_whatever_python_makes_of_them(a, b, t):
    for rule, opt in TERMS:
        opt.a, opt.b, opt.t = a, b, t - 1
        np.testing.assert_array_equal(rule.formula(np.ones(2), t, a=a, b=b), opt.update(np.ones(2)))


@pytest.mark.parametrize("dtype", FULL, ids=str)
def test_a_norm_leaves_the_dtype_of_arrays_alone(dtype):
    g = np.array([3.0, 4.0], dtype)
    assert (g / fl.norm(g)).dtype == dtype
    assert lars_like.formula(g, g, lr=0.1).dtype == dtype


def test_what_formulas_give_of_plain_numbers_are_plain_numbers():
    for value in (fl.sqrt(4), fl.norm(np.ones(4)), fl.where(True, 2, 3), 1 + fl.total(np.ones(1))):
        assert isinstance(value, float)
        assert (repr(value), value == 2.0, type(pickle.loads(pickle.dumps(value)))) == ("2.0", True, type(value))
    assert math.isnan(fl.sqrt(-1.0))
    assert fl.rules.adam.formula(2.0, 1, 0, 1e-8, lr=0.5, beta1=0.9, beta2=0.999, eps=1e-8)[0] < 0


def test_a_formula_is_still_the_function_that_was_written():
    assert fl.rules.adam.formula.__name__ == "adam"
    assert lars_like.formula.__code__ is lars_like.formula.__wrapped__.__code__
