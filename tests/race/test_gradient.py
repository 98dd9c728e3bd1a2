"""The check of a problem's gradient: right ones pass and wrong ones are found, in any units, dtype and library."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from fallline.race import Problem, run
from fallline.race.problems.gradient import check_gradient
from needed import need
from support import drawn

# Functions of u = w / unit, with their gradients.
FUNCTIONS = {
    "sine": (lambda u: np.sin(u).sum(), np.cos),
    "square": (lambda u: (u * u).sum(), lambda u: 2 * u),
    "far square": (lambda u: ((u - 3) ** 2).sum(), lambda u: 2 * (u - 3)),
    "fourth power": (lambda u: (u**4).sum(), lambda u: 4 * u**3),
    "exponential": (lambda u: np.exp(-u).sum(), lambda u: -np.exp(-u)),
    "root": (lambda u: np.sqrt(np.abs(u)).sum(), lambda u: 0.5 / np.sqrt(np.abs(u)) * np.sign(u)),
    "absolute": (lambda u: np.abs(u).sum(), np.sign),
    "offset": (lambda u: 10 + np.sin(u).sum(), np.cos),
}
MISTAKES = {
    "factor 2": lambda g: 2 * g,
    "sign": lambda g: -g,
    "forgotten": lambda g: 0 * g,
    "one coordinate": lambda g: g * np.array([1, 1, 2], g.dtype),
    "one sign": lambda g: g * np.array([1, -1, 1], g.dtype),
    "one forgotten": lambda g: g * np.array([0, 1, 1], g.dtype),
    "swapped pair": lambda g: g[[1, 0, 2]],
}
decades = st.integers(-12, 12).map(lambda k: 10.0**k)
ratios = st.floats(0.2, 2)
kinds = st.sampled_from([np.float64, np.float32, np.float16, ml_dtypes.bfloat16])


def scaled(name, unit, computed, mistake=lambda g: g):
    """value_and_grad of a function of w / unit."""
    value, slope = FUNCTIONS[name]

    def value_and_grad(w):
        u = w.astype(computed) / computed(unit)
        return value(u), (mistake(slope(u)) / computed(unit)).astype(w.dtype)

    return value_and_grad


def start(parts, unit, dtype):
    """Three coordinates that are not alike, in units of the function."""
    return (unit * np.array([1.0, -1.5, 2.5]) * np.array(parts)).astype(dtype)


@pytest.mark.slow
@drawn(200)
@given(st.sampled_from(list(FUNCTIONS)), decades, st.tuples(ratios, ratios, ratios), kinds, st.booleans())
def test_a_right_gradient_passes_in_any_units_and_dtype_from_zeros_too(name, unit, parts, dtype, from_zeros):
    if np.dtype(dtype).itemsize == 2:
        unit = min(max(unit, 1e-2), 1e2)
    w = start(parts, unit, dtype)
    if from_zeros and name != "root":
        w = 0 * w
    check_gradient(Problem(w, scaled(name, unit, np.float64 if dtype is np.float64 else np.float32)))


@pytest.mark.slow
@drawn(150)
@given(st.sampled_from(list(FUNCTIONS)), decades, st.tuples(ratios, ratios, ratios), st.sampled_from(list(MISTAKES)),
       st.sampled_from([np.float64, np.float32]))  # fmt: skip
def test_a_wrong_gradient_is_found_in_any_units(name, unit, parts, mistake, dtype):
    w = start(parts, unit, dtype)
    right = FUNCTIONS[name][1](w.astype(float) / unit)
    wrong = MISTAKES[mistake](right)
    if np.abs(wrong - right).max() < 0.05 * np.abs(right).max():
        return  # two that are alike may be swapped
    with pytest.raises(ValueError, match="does not match finite differences"):
        check_gradient(Problem(w, scaled(name, unit, dtype, MISTAKES[mistake])))


def test_sizes_that_differ_within_a_leaf_and_between_leaves_have_steps_of_their_own():
    units = np.array([1e-12, 1.0, 1e12])
    for wrong in (None, 0, 1, 2):
        factor = np.where(np.arange(3) == wrong, 2.0, 1.0)

        def value_and_grad(p, factor=factor):
            u, v = p["w"] / units, p["v"] / 1e300
            return float(np.sin(u).sum() + v @ v), {"w": factor * np.cos(u) / units, "v": 2 * v / 1e300}

        problem = Problem({"w": 0.5 * units, "v": np.array([1e300, -2e300])}, value_and_grad)
        if wrong is None:
            check_gradient(problem)
        else:
            with pytest.raises(ValueError, match='The gradient of "w" of problem does not match'):
                check_gradient(problem)


def test_the_border_of_a_domain_is_not_blamed_on_the_gradient():
    cases = [
        (np.full(3, 1e-9), lambda w: (float(np.sqrt(w).sum()), 0.5 / np.sqrt(w))),
        (np.zeros(2), lambda w: (float((w**1.5).sum()), 1.5 * np.sqrt(w))),
        ([1e-9, 2.0], lambda w: (math.sqrt(w[0]) + w[1] ** 2, [0.5 / math.sqrt(w[0]), 2 * w[1]])),
        (np.full(2, 1 - 1e-12), lambda w: (float(-np.log(1 - w).sum()), 1 / (1 - w))),
        (np.zeros(3), lambda w: (float(np.abs(w).sum()), np.sign(w))),
        (np.zeros(3), lambda w: (float(np.maximum(w, 0).sum()), (w >= 0) * 1.0)),
    ]
    for w, value_and_grad in cases:
        check_gradient(Problem(w, value_and_grad))


def test_a_value_without_a_gradient_of_its_own_is_refused():
    rng = np.random.default_rng(0)
    for value_and_grad in (
        lambda w: (float(w @ w), rng.standard_normal(2)),
        lambda w: (float(rng.standard_normal()), 2 * w),
        lambda w: (1.0, w),
    ):
        with pytest.raises(ValueError, match="does not match finite differences"):
            check_gradient(Problem(np.ones(2), value_and_grad))


def test_whole_numbers_are_floats_in_the_check_and_in_the_race():
    tree = {"n": 2, "w": np.ones(3, np.int8), "none": None, "empty": np.zeros((0, 2)), "flag": True}

    def of_tree(p):
        value = p["n"] ** 2 + (p["w"] ** 2).sum() + p["flag"] ** 2
        return float(value), {**p, "n": 2 * p["n"], "w": 2 * p["w"], "flag": 2 * p["flag"]}

    for params, value_and_grad in (
        (np.ones(3, int), lambda w: (float(w @ w), 2 * w)),
        ([1, 2], lambda w: (w[0] ** 2 + w[1] ** 2, [2 * w[0], 2 * w[1]])),
        (3, lambda x: (x * x, 2 * x)),
        (np.int64(3), lambda x: (x * x, 2 * x)),
        (tree, of_tree),
    ):
        result = run(Problem(params, value_and_grad), ["SGD", "Adam"], steps=3, repeats=1, jobs=1, surfaces=())
        assert result.document["optimizers"][0]["final"]["median"] < result.document["problem"]["start_loss"]
    assert type(Problem([1, 2], of_tree).params[0]) is float


def test_a_complex_gradient_is_of_both_parts_and_its_conjugate_is_named_as_such():
    def value_and_grad(p):
        z = p["z"]
        return float((np.abs(z) ** 4).sum() + z[0].imag), {"z": 4 * z * np.abs(z) ** 2 + np.array([1j, 0])}

    for dtype in (np.complex128, np.complex64):
        z = {"z": np.array([1 + 2j, -0.5j], dtype)}
        check_gradient(Problem(z, value_and_grad))
        with pytest.raises(ValueError, match=r'of "z" of problem must be ∂L/∂Re \+ i·∂L/∂Im.*return the conjugate'):
            check_gradient(Problem(z, lambda p: (value_and_grad(p)[0], {"z": value_and_grad(p)[1]["z"].conj()})))
        with pytest.raises(ValueError, match="does not match finite differences"):
            check_gradient(Problem(z, lambda p: (value_and_grad(p)[0], {"z": 2 * value_and_grad(p)[1]["z"]})))


def test_the_step_of_the_check_can_be_told_and_at_0_there_is_none():
    def wavy(w):  # rounded to a raster finer than what is looked at
        return float(np.round(w @ w, 6)), 2 * w

    check_gradient(Problem(np.ones(2), wavy, check_step=0.1))
    for step in (0.1, 1e-3):
        with pytest.raises(ValueError, match="does not match finite differences"):
            check_gradient(Problem(np.ones(2), lambda w: (float(w @ w), 3 * w), check_step=step))
    check_gradient(Problem(np.ones(2), lambda w: (float(w @ w), 3 * w), check_step=0))
    for step in (-1.0, math.nan, "small"):
        with pytest.raises((TypeError, ValueError), match="check_step of Problem must be"):
            Problem(np.ones(2), wavy, check_step=step)


def test_what_is_no_tree_of_numbers_or_no_gradient_for_it_is_refused_by_name():
    a = np.ones(2)
    for params, gradient, message in (
        ({}, {}, "params of mine must hold at least one array or number"),
        ("text", 0.0, "The parameter of mine must be an array of float16"),
        ({"a": a, "b": a}, {"a": a}, "The gradient of mine must be a tree of the same structure.*missing 'b'"),
        ({"a": a}, {"a": np.ones(3)}, "must have the structure and shapes of its parameters"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            check_gradient(Problem(params, lambda p, gradient=gradient: (1.0, gradient), name="mine"))


def test_a_leaf_whose_gradient_is_none_is_left_alone():
    check_gradient(Problem({"a": np.ones(2), "b": np.ones(2)}, lambda p: (float(p["a"] @ p["a"]),
                                                                         {"a": 2 * p["a"], "b": None})))  # fmt: skip


def raced(params, value_and_grad):
    """A race to its table and its page."""
    result = run(Problem(params, value_and_grad), [fl.SGD], steps=3, repeats=1, jobs=1, surfaces=())
    assert "SGD" in result._repr_html_()
    assert result.document["optimizers"][0]["final"]["median"] < result.document["problem"]["start_loss"]
    return result


@pytest.mark.slow
def test_torch_tensors_race_as_such():
    torch = need("torch")

    def value_and_grad(p):
        assert all(isinstance(leaf, torch.Tensor) for leaf in p.values())
        own = {name: leaf.detach().clone().requires_grad_() for name, leaf in p.items()}
        value = ((own["w"] - 1) ** 2).sum() + (own["b"] ** 2).sum()
        return value, dict(zip(own, torch.autograd.grad(value, list(own.values()))))

    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        start = {"w": torch.full((3,), 2.0, dtype=dtype), "b": torch.zeros(2, dtype=dtype, requires_grad=True)}
        assert [row["optimiser"] for row in raced(start, value_and_grad).table] == ["SGD"]
        assert start["w"].tolist() == [2.0] * 3
    with pytest.raises(ValueError, match="does not match finite differences"):
        check_gradient(Problem(torch.ones(3), lambda w: ((w**2).sum(), w)))
    z = torch.tensor([1 + 2j, 0.5j])
    check_gradient(Problem(z, lambda w: ((w.abs() ** 4).sum(), 4 * w * w.abs() ** 2)))


@pytest.mark.slow
def test_jax_arrays_race_as_such():
    jax = need("jax")

    def value(p):
        assert all(isinstance(leaf, jax.Array) for leaf in p.values())
        return (jax.numpy.sin(p["w"]) ** 2).sum() + (p["b"] ** 2).sum()

    raced({"w": jax.numpy.ones(3), "b": jax.numpy.zeros((2, 2), int)}, jax.value_and_grad(value))
    z = jax.numpy.array([1 + 2j, 0.5j])
    with pytest.raises(ValueError, match=r"conjugate, as of jax\.grad"):
        check_gradient(Problem(z, jax.value_and_grad(lambda w: (abs(w) ** 4).sum())))


def test_a_network_with_kinks_in_single_precision_passes_and_a_mistake_in_one_layer_is_found():
    def network(p, x, y):
        h = np.maximum(x @ p["W"] + p["b"], 0)
        error = h @ p["V"] - y
        d = 2 * error / error.size
        back = d @ p["V"].T * (h > 0)
        return np.mean(error**2), {"W": x.T @ back, "b": back.sum(0), "V": h.T @ d}

    for seed in range(3):
        rng = np.random.default_rng(seed)
        x, y, w, v = (rng.standard_normal(n).astype(np.float32) for n in ((200, 20), (200, 5), (20, 50), (50, 5)))
        params = {"W": w / 4, "b": np.zeros(50, np.float32), "V": v / 7}
        check_gradient(Problem(params, lambda p, x=x, y=y: network(p, x, y)))
        for leaf in params:

            def wrong(p, x=x, y=y, leaf=leaf):
                value, gradient = network(p, x, y)
                return value, gradient | {leaf: 2 * gradient[leaf]}

            with pytest.raises(ValueError, match=f'of "{leaf}" of problem does not match'):
                check_gradient(Problem(params, wrong))
