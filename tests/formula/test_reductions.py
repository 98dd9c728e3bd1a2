"""Totals and norms in formulas, state that is one number, state that starts at the parameter or the gradient."""

import math
import pickle
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from needed import need
from support import every_engine, every_precision, frozen, gauged, limits, memory_of, normal, same_bits

SHAPES = {"a": (30, 50), "b": (), "c": [(20_000,), (0,), (40, 6)]}


def draw(rng, dtype, shape=SHAPES):
    if isinstance(shape, (dict, list)):
        items = shape.items() if isinstance(shape, dict) else enumerate(shape)
        drawn = {key: draw(rng, dtype, own) for key, own in items}
        return drawn if isinstance(shape, dict) else list(drawn.values())
    return normal(rng, shape, dtype)


CHAINS = {
    "clipped and averaged": lambda **o: fl.chain(fl.clip_norm(0.7), fl.Adam(1e-2), fl.weight_decay(0.01),
                                                 fl.average(0.9), **o),
    "numbers of leaf and tree": lambda **o: fl.Optimizer(gauged, **o),
    "two readings, schedules": lambda **o: fl.chain(fl.l2(lambda t: 0.1 / (t + 1)), fl.clip_norm(3.0), gauged(lr=0.1),
                                                    **o),
    "settings by leaf": lambda **o: fl.chain(fl.clip_norm(3.0), fl.Adam(fl.by_path(lambda path: 0.01 * len(path))),
                                             **o),
}  # fmt: skip
every_chain = pytest.mark.parametrize("chain", CHAINS)


def walked(chain, dtype, mode="step", steps=7, seed=1, **options):
    """Some steps, two without one gradient; all that came of them."""
    rng = np.random.default_rng(seed)
    opt, w = CHAINS[chain](**options), draw(rng, dtype)
    out = draw(rng, dtype)
    for k in range(steps):
        g = draw(rng, dtype)
        if k in (3, 4):
            g["b"] = None
        if mode == "step":
            opt.step(w, g)
        else:
            out = opt.update(g, params=w, **({"out": out} if mode == "out" else {}))
    return frozen([w, out, dict(opt.state)])


@pytest.mark.slow
@every_chain
@every_precision
@pytest.mark.parametrize("mode", ["step", "update", "out"])
def test_engines_agree_to_the_bit_on_any_number_of_threads(chain, dtype, mode):
    expected = walked(chain, dtype, mode, engine="reference")
    assert walked(chain, dtype, mode, engine="native", threads=1) == expected
    assert walked(chain, dtype, mode, engine="native", threads=3) == expected


@pytest.mark.parametrize("n", [1, 15, 16, 17, 4095, 4096, 4097, 16385, 250_000])
@every_engine
def test_sums_are_in_the_order_that_is_promised(n, engine):
    """Blocks of 4,096 coordinates, in each 16 lanes of double precision, then halves added to halves."""
    g = np.random.default_rng(n).standard_normal(n)
    blocks = []
    for start in range(0, n, 4096):
        lanes = [0.0] * 16
        for k, value in enumerate(g[start : start + 4096].tolist()):
            lanes[k % 16] += value
        blocks.append(_halved(lanes))
    opt = fl.Optimizer(fl.rule(lambda g, *, lr=1.0: -lr * (g * 0 + fl.total(g))), engine=engine)
    assert (opt.update(g) == -_halved(blocks)).all()


def _halved(parts):
    while len(parts) > 1:
        half = (len(parts) + 1) // 2
        parts = [a + b for a, b in zip(parts, parts[half:])] + parts[len(parts) - half : half]
    return parts[0]


@every_engine
@pytest.mark.parametrize("layout", [lambda a: a[::-1], lambda a: a.T, lambda a: a[:, ::2], np.asfortranarray])
@pytest.mark.parametrize("width", [70, 700])  # the second in more parts than one
def test_a_total_does_not_depend_on_how_an_array_lies(engine, layout, width):
    g = layout(np.random.default_rng(0).standard_normal((300, width)))
    assert same_bits(fl.chain(fl.clip_norm(1.0), fl.SGD(), engine=engine).update(g),
                     fl.chain(fl.clip_norm(1.0), fl.SGD(), engine=engine).update(np.ascontiguousarray(g)))  # fmt: skip


# ---- clip_norm -------------------------------------------------------------------------------------------------------


@every_engine
def test_clip_norm_shortens_all_leaves_together(engine):
    opt = fl.chain(fl.clip_norm(1.0), fl.SGD(1.0), engine=engine)
    d = opt.update({"a": np.array([3.0, 0.0]), "b": 4.0})
    assert [*d["a"], d["b"]] == pytest.approx([-0.6, 0.0, -0.8])
    assert opt.update({"a": np.array([0.3, 0.0]), "b": 0.4})["b"] == -0.4  # as it is not longer


@every_engine
@pytest.mark.parametrize(("g", "limit", "dtype"), [
    ([1.7e308] * 8, 1.0, "float64"), ([1e308] * 4, 1e-10, "float64"), ([1e-300], 1e-305, "float64"),
    ([3e38] * 4, 1e-8, "float32"), ([1e38], 1e-6, "float32"), ([1e38, -1e30], 1e-4, "float32"),
    ([3e38, 3e38], 1e-20, "bfloat16"), ([6e4] * 9, 1e-2, "float16"),
])  # fmt: skip
def test_a_gradient_is_clipped_in_full_precision_where_its_norm_or_the_factor_is_beyond_its_dtype(
        engine, g, limit, dtype):
    array = np.array(g).astype(dtype)
    d = fl.chain(fl.clip_norm(limit), fl.SGD(1.0), engine=engine).update(array)
    exact = [Fraction(float(x)) for x in array]
    scale = max(map(abs, exact))
    length = scale * Fraction(math.sqrt(sum((x / scale) ** 2 for x in exact)))
    right = np.array([-float(x * Fraction(limit) / length) for x in exact])
    eps, tiny = float(limits(array.dtype).eps), float(limits(array.dtype).tiny)
    assert d.astype(float) == pytest.approx(right, rel=2 * eps, abs=tiny)


@every_engine
@pytest.mark.parametrize("g", [[np.finfo(np.float64).max, 1.0], [1e160] * 8, [1e-170] * 8, [4e-323, 0.0]])
def test_norms_whose_squares_overflow_or_vanish_are_right(engine, g):
    limit = max(g) / 4
    d = fl.chain(fl.clip_norm(limit), fl.SGD(1.0), engine=engine).update(np.array(g))
    assert d == pytest.approx(-np.array(g) / math.hypot(*(x / limit for x in g)), rel=1e-15)


@every_engine
def test_an_infinite_gradient_is_refused_by_its_leaf_and_changes_nothing(engine):
    rng = np.random.default_rng(0)
    opt, w = CHAINS["clipped and averaged"](engine=engine), draw(rng, np.float32)
    for _ in range(4):
        opt.step(w, draw(rng, np.float32))
    before = memory_of(opt), frozen(w)
    bad = draw(rng, np.float32)
    bad["c"][0][17_000] = -np.inf
    bad["a"][3, 3] = np.nan
    with pytest.raises(fl.NonFiniteGradient, match=r"a has 1 NaN; c/0 has 1 infinite"):
        opt.step(w, bad)
    assert (memory_of(opt), frozen(w)) == before


def test_a_gradient_that_is_skipped_changes_no_number():
    rng = np.random.default_rng(0)
    opt, w = fl.Optimizer(gauged, nonfinite="skip"), draw(rng, np.float64)
    for _ in range(3):
        opt.step(w, draw(rng, np.float64))
    before = memory_of(opt), frozen(w)
    bad = draw(rng, np.float64)
    bad["b"] = np.array(np.nan)
    opt.step(w, bad)
    assert ((memory_of(opt), frozen(w)), opt.skipped) == (before, 1)


@pytest.mark.parametrize("limit", [-1.0, 0.0, math.nan, math.inf])
def test_a_max_norm_that_would_turn_the_gradient_round_or_lose_it_is_refused(limit):
    with pytest.raises(ValueError, match="max_norm of clip_norm must be > 0"):
        fl.clip_norm(limit) and fl.chain(fl.clip_norm(limit), fl.SGD())


def test_clip_norm_is_that_of_torch():
    torch = need("torch")
    rng = np.random.default_rng(3)
    leaves = [rng.standard_normal(n) for n in (7, 300, 5000)]
    tensors = [torch.zeros(len(g), dtype=torch.float64, requires_grad=True) for g in leaves]
    for tensor, g in zip(tensors, leaves):
        tensor.grad = torch.tensor(g)
    torch.nn.utils.clip_grad_norm_(tensors, 2.5)
    for tensor, d in zip(tensors, fl.chain(fl.clip_norm(2.5), fl.SGD(1.0)).update(leaves)):
        np.testing.assert_allclose(-d, tensor.grad.numpy(), rtol=1e-6)  # torch adds 1e-6 to the norm


@every_chain
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 3e-3), (np.float64, 1e-12)])
def test_the_eager_engine_is_close(chain, dtype, tolerance):
    def numbers(frozen_tree):
        if isinstance(frozen_tree, dict):
            return [n for item in frozen_tree.values() for n in numbers(item)]
        if isinstance(frozen_tree, list):
            return [n for item in frozen_tree for n in numbers(item)]
        return np.frombuffer(frozen_tree[2], frozen_tree[0]).ravel().tolist()
    eager, expected = (numbers(walked(chain, dtype, engine=engine, steps=4)) for engine in ("eager", "reference"))
    np.testing.assert_allclose(eager, expected, rtol=tolerance, atol=tolerance)


# ---- state that is one number ----------------------------------------------------------------------------------------


@every_engine
def test_a_number_is_kept_for_the_tree_or_for_each_leaf(engine):
    opt = fl.Optimizer(gauged, lr=0.5, engine=engine)
    opt.step({"a": np.ones(3), "b": 2.0}, {"a": np.ones(3), "b": -1.0})
    assert float(opt.state["n"]) == 0.5 * 0.9 + 4.0
    assert {k: float(v) for k, v in opt.state["k"].items()} == {"a": 0.5 + math.sqrt(3) * 0.5, "b": 0.5 + 2 * 0.5}
    with pytest.raises(ValueError, match="read-only"):
        opt.state["n"][...] = 1.0


@every_engine
def test_state_dicts_and_copies_hold_the_numbers(engine):
    rng = np.random.default_rng(5)
    opt, w = fl.Optimizer(gauged, engine=engine), draw(rng, np.float32)
    for _ in range(3):
        opt.step(w, draw(rng, np.float32))
    saved = opt.state_dict()
    assert list(saved["state"]["n"]) == [""]
    assert list(saved["state"]["k"]) == ["a", "b", "c/0", "c/1", "c/2"]
    other, third = fl.Optimizer(gauged, engine=engine), pickle.loads(pickle.dumps(opt))
    other.load_state_dict(saved)
    g, v, u = draw(rng, np.float32), pickle.loads(pickle.dumps(w)), pickle.loads(pickle.dumps(w))
    for _ in range(3):
        opt.step(w, g), other.step(v, g), third.step(u, g)
    assert frozen([w, memory_of(opt)]) == frozen([v, memory_of(other)]) == frozen([u, memory_of(third)])


def test_adapting_carries_the_numbers_of_leaves_that_stay_and_of_the_tree():
    opt = fl.Optimizer(gauged, lr=0.5)
    opt.step({"a": 1.0, "b": 2.0}, {"a": 1.0, "b": -1.0})
    n, k = float(opt.state["n"]), float(opt.state["k"]["b"])
    opt.adapt({"b": 2.0, "c": 3.0})
    assert (float(opt.state["n"]), float(opt.state["k"]["b"]), float(opt.state["k"]["c"])) == (n, k, 0.5)


def test_a_leaf_without_a_gradient_keeps_its_number_and_adds_nothing():
    opt = fl.Optimizer(gauged, lr=0.5)
    w = {"a": np.ones(3), "b": np.full(2, 2.0)}
    for _ in range(4):
        opt.step(w, {"a": np.ones(3), "b": np.ones(2)})
    before = float(opt.state["k"]["b"]), float(opt.state["n"])
    opt.step(w, {"a": np.ones(3), "b": None})
    assert float(opt.state["k"]["b"]) == before[0]
    assert float(opt.state["n"]) == before[1] * 0.9 + 3.0 * 5


@pytest.mark.parametrize(("formula", "message"), [
    (lambda g, n=fl.scalar(0), *, lr=1.0: (-lr * g, n + fl.total(g, "leaf")), "n is one number of the tree, and is"),
    (lambda g, n=fl.scalar(0), *, lr=1.0: (-lr * g, n + g), "n is one number, but an array was returned for it"),
    (lambda g, n=fl.scalar(0, over="world"), *, lr=1.0: (-lr * g, n), "one over \"leaf\" or over \"tree\""),
    (lambda g, n=fl.scalar("x"), *, lr=1.0: (-lr * g, n), "must start at a finite number, at the name of a hyper"),
    (lambda g, *, lr=1.0: -lr * fl.total(g, over="world"), "over \"leaf\" or over \"tree\". Got 'world'"),
    (lambda g, *, lr=1.0: -lr * g * fl.total(lr), "take values per coordinate"),
    (lambda g, *, lr=1.0: -lr * (g - fl.total(g) / fl.total(1)), r"coordinates is total\(0\*g \+ 1\)\.\) Got 1\."),
    (lambda g, *, lr=1.0: -lr * g / fl.norm(np.ones(3)), "take values per coordinate .* Got ndarray"),
    (lambda g, *, lr=1.0: -lr * g * fl.norm(g > 0), "take values per coordinate"),
    (lambda g, *, lr=1.0: -lr * fl.norm(g) ** g, "A power of an array"),
])  # fmt: skip
def test_what_no_sum_can_be_is_refused_when_the_optimizer_is_made(formula, message):
    with pytest.raises(fl.FormulaError, match=message):
        fl.Optimizer(fl.rule(formula))


def test_the_number_of_coordinates_makes_a_sum_a_mean():
    centred = fl.Optimizer(fl.rule(lambda g, *, lr=1.0: -lr * (g - fl.total(g) / fl.total(0 * g + 1))))
    assert centred.step([0.0, 0.0, 0.0], [1.0, 2.0, 6.0]) == [2.0, 1.0, -3.0]


@pytest.mark.parametrize("values", [np.array([3 + 4j]), 1j, "3", None, {"a": np.ones(2)}], ids=str)
@pytest.mark.parametrize("word", [fl.total, fl.norm])
def test_a_sum_outside_of_a_formula_is_one_of_real_numbers(word, values):
    assert fl.norm(np.array([3 + 4j]).view(float)) == fl.norm([3, 4]) == 5.0
    with pytest.raises(fl.FormulaError, match="total and norm take an array of real numbers"):
        word(values)


def test_settings_that_a_number_of_the_tree_is_made_of_are_one_for_all_leaves():
    @fl.rule
    def paced(g, n=fl.scalar(0), *, lr=1.0, pace=0.5):
        return -lr * n * g, n + pace
    g = {"a": np.ones(2), "b": np.ones(2)}
    with pytest.raises(TypeError, match=r"pace of paced is used in a number for the whole tree and cannot differ"):
        fl.Optimizer(paced, pace={"a": 0.1, "b": 0.2}).update(g)
    with pytest.raises(TypeError, match=r"cannot differ by coordinate: give one number\."):
        fl.Optimizer(paced, pace=np.array([0.1, 0.2])).update(np.ones(2))
    assert fl.Optimizer(paced, lr={"a": 0.1, "b": 0.2}, pace=3.0).update(g)["b"].tolist() == [0.0, 0.0]


# ---- starts ----------------------------------------------------------------------------------------------------------


@fl.rule
def travelled(g, x, first="x", before="g", *, lr: fl.NonNegative = 0.1):
    """A step that is shorter the further the parameter went, against the change of the gradient."""
    return -lr * (g + (g - before)) / (1 + fl.abs(x - first)), first + 0, g + 0


@every_engine
def test_state_starts_at_the_parameter_and_at_the_first_gradient(engine):
    opt, w = fl.Optimizer(travelled, engine=engine), np.array([1.0, -2.0])
    opt.step(w, np.array([1.0, 2.0]))
    assert w.tolist() == [0.9, -2.2]
    assert opt.state["first"].tolist() == [1.0, -2.0]
    assert opt.state["before"].tolist() == [1.0, 2.0]


@every_engine
def test_a_leaf_starts_at_its_own_first_step_whatever_t_is(engine):
    opt, w = fl.Optimizer(travelled, engine=engine), {"a": np.array([1.0]), "b": np.array([5.0])}
    opt.t = 7
    opt.step(w, {"a": np.array([1.0]), "b": None})
    assert np.isnan(opt.state["first"]["b"])
    opt.step(w, {"a": np.array([1.0]), "b": np.array([1.0])})
    assert (opt.state["first"]["b"], w["b"]) == (5.0, 4.9)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 9000), min_size=1, max_size=5), st.integers(0, 2**31))
def test_sums_over_any_leaves_are_near_the_true_ones(sizes, seed):
    rng = np.random.default_rng(seed)
    g = [rng.standard_normal(n) for n in sizes]
    opt = fl.Optimizer(fl.rule(lambda g, *, lr=1.0: -lr * (g * 0 + fl.norm(g))))
    expected = math.sqrt(math.fsum(x * x for leaf in g for x in leaf))
    for d in opt.update(g):
        assert d == pytest.approx(-expected, rel=1e-14)


@every_engine
def test_sums_of_scaled_squares_that_overflow_over_many_leaves_say_nothing(engine):
    opt = fl.chain(fl.clip_norm(1.0), fl.SGD(), engine=engine)
    for size in 10.0 ** np.arange(-29, -25, 0.25):  # among them those of which single leaves' squares are still finite
        opt.step([np.ones(20) for _ in range(150)], [np.full(20, size) for _ in range(150)])
    assert opt.t == 16
