"""Rules that are functions of whole leaves: NumPy's own, with state of other shapes."""

import pickle

import numpy as np
import pytest

import fallline as fl
from needed import need
from support import FULL, HALVES, assert_refused, every_engine, frozen, memory_of, normal

every_real = pytest.mark.parametrize("dtype", FULL + HALVES, ids=str)


@fl.rule(whole_leaf=True)
def by_row(g, x, t, m=0, row=fl.shaped("eps", lambda shape: shape[:1]), *, lr=0.1, beta=0.5, eps=1e-3):
    """Divides each row by a norm of its own."""
    m = beta * m + (1 - beta) * g
    row = beta * row + (1 - beta) * np.square(g).reshape(len(g), -1).mean(1)
    return -lr * m / (1 - beta**t) / np.sqrt(row).reshape(-1, *[1] * (g.ndim - 1)) - 0.01 * x, m, row


def leaves(seed, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {"a": normal(rng, (3, 4), dtype), "b": normal(rng, 5, dtype)}


def chained(**options):
    return fl.chain(fl.clip_norm(1.0), fl.l2(0.1), by_row(lr=lambda t: 0.1 / (1 + t)), fl.weight_decay(0.1),
                    fl.average(0.5), **options)


@every_engine
def test_it_is_the_function_between_its_modifiers(engine):
    opt, w = chained(engine=engine), leaves(0)
    m, row, average = {k: 0 * v for k, v in w.items()}, {k: np.full(len(v), 1e-3) for k, v in w.items()}, leaves(0)
    expected = leaves(0)
    for t in range(1, 12):
        g = leaves(t)
        opt.step(w, g)
        norm = np.sqrt(sum((v**2).sum() for v in g.values()))
        lr = 0.1 / t
        for k, x in expected.items():
            h = g[k] / max(norm, 1) + 0.1 * x
            m[k] = 0.5 * m[k] + 0.5 * h
            row[k] = 0.5 * row[k] + 0.5 * (h**2).reshape(len(h), -1).mean(1)
            scale = np.sqrt(row[k]).reshape(-1, *[1] * (h.ndim - 1))
            x += -lr * m[k] / (1 - 0.5**t) / scale - 0.01 * x - lr * 0.1 * x
            average[k] = 0.5 * average[k] + 0.5 * x
    for k, x in expected.items():
        np.testing.assert_allclose(w[k], x, rtol=1e-12)
        np.testing.assert_allclose(opt.state["row"][k], row[k], rtol=1e-12)
        np.testing.assert_allclose(opt.averaged[k], average[k], rtol=1e-12)


@every_real
def test_dtypes_stay_and_engines_agree(dtype):
    results = []
    for engine in ("reference", "native"):
        opt, w = chained(engine=engine), leaves(0, dtype)
        for t in range(1, 6):
            g = leaves(t, dtype)
            opt.step(w, {**g, "b": None} if t == 3 else g)
        results.append((frozen(w), memory_of(opt)))
        assert all(x.dtype == dtype for x in w.values())
        assert opt.state["row"]["b"].dtype == (np.float32 if dtype in HALVES else dtype)
    assert results[0] == results[1]


@every_engine
def test_update_and_step_agree_and_layouts_do_not_matter(engine):
    one, two = fl.Optimizer(by_row, engine=engine), fl.Optimizer(by_row, engine=engine)
    w, v = np.asfortranarray(leaves(0)["a"]), leaves(0)["a"]
    for t in range(1, 6):
        g = leaves(t)["a"]
        one.step(w, g[::-1, ::-1][::-1, ::-1])
        v += two.update(g, params=v)
    assert w.tobytes("C") == v.tobytes()


@every_engine
def test_a_run_goes_on_to_the_bit_from_a_file_a_copy_or_plain_data(engine, tmp_path):
    opt, w = chained(engine=engine), leaves(0)
    opt.lr = 0.1
    for t in range(1, 4):
        opt.step(w, leaves(t))
    opt.save(tmp_path / "run", w)
    read, v = fl.load(tmp_path / "run", rules=[by_row])
    other, u = opt.fresh(), leaves(0)
    other.load_state_dict(opt.state_dict())
    third = pickle.loads(pickle.dumps(opt))
    u, s = pickle.loads(pickle.dumps((w, w)))
    s = leaves(0)
    for k in w:
        u[k][...] = s[k][...] = w[k]
    for o, p in ((opt, w), (read, v), (other, u), (third, s)):
        for t in range(4, 7):
            o.step(p, leaves(t))
    assert frozen(w) == frozen(v) == frozen(u) == frozen(s)
    assert memory_of(opt) == memory_of(read) == memory_of(other) == memory_of(third)


@pytest.mark.parametrize(("formula", "message"), [
    (lambda g, *, lr=0.1: -lr * g[:1], r"the increment that rule returned must be an array of reals of the shape"),
    (lambda g, m=0, *, lr=0.1: (-lr * g, m[0]), r"m that rule returned must be an array of reals of the shape \(3, 4"),
    (lambda g, *, lr=0.1: g.__imul__(lr), r"must leave its arguments as they are: write m = beta\*m, not m \*= beta"),
    (lambda g, *, lr=0.1: g > lr, "must be an array of reals"),
    (lambda g, *, lr=0.1: None, "rule must return the increment"),
    (lambda g, *, lr=0.1: np.linalg.inv(g), "Last 2 dimensions of the array must be square"),
])  # fmt: skip
def test_what_a_function_does_wrong_changes_nothing(formula, message):
    w = leaves(0)
    opt = fl.Optimizer(fl.rule(formula, whole_leaf=True))
    before = frozen(w), memory_of(opt)
    with pytest.raises((fl.FormulaError, np.linalg.LinAlgError), match=message):
        opt.step(w, leaves(1))
    assert (frozen(w), memory_of(opt)) == before


@pytest.mark.parametrize("shape", [3, 1.5, None, (1.5,), (-1,), "ab"], ids=str)
def test_a_shape_that_is_none_is_refused_by_the_name_of_its_slot(shape):
    opt = fl.Optimizer(fl.rule(lambda g, u=fl.shaped(0, lambda leaf: shape), *, lr=0.1: (-lr * g, u), whole_leaf=True))
    with pytest.raises(fl.FormulaError, match=r"The shape of state slot u of an unnamed rule must be a tuple of whole"):
        opt.step(np.ones(3), np.ones(3))


def test_what_a_bad_gradient_is_refused_for_changes_nothing():
    opt, w = chained(), leaves(0)
    for t in range(1, 4):
        opt.step(w, leaves(t))
    assert_refused(lambda: opt.step(w, {**leaves(5), "b": np.full(5, np.nan)}), "b has 5 NaN", opt, w)
    assert_refused(lambda: opt.step(w, {**leaves(5), "b": np.ones(4)}), "must have the shape", opt, w)


@pytest.mark.parametrize(("formula", "message"), [
    (lambda g, m=fl.scalar(0), *, lr=0.1: (g, m), r"write shaped\(start, lambda shape: \(\)\)"),
    (lambda g, x, z="x", *, lr=0.1: (g, z), "must start at a finite number, at the name of a hyper-parameter"),
])  # fmt: skip
def test_starts_that_are_for_formulas_are_refused(formula, message):
    with pytest.raises(fl.FormulaError, match=message):
        fl.rule(formula, whole_leaf=True)
    with pytest.raises(fl.FormulaError, match="other shapes are for whole_leaf=True"):
        fl.rule(lambda g, m=fl.shaped(0, lambda shape: ()), *, lr=0.1: (g, m))


def test_what_it_cannot_take_is_refused_by_name():
    with pytest.raises(TypeError, match="the parameter must be real, as by_row is a function of whole leaves"):
        fl.Optimizer(by_row).step(np.ones((2, 2), complex), np.ones((2, 2), complex))
    with pytest.raises(TypeError, match=r"lr of by_row .* cannot differ by coordinate: give one number for each leaf"):
        fl.Optimizer(by_row, lr=np.ones((2, 2))).step(np.ones((2, 2)), np.ones((2, 2)))
    for chain in (fl.Optimizer(by_row), fl.chain(fl.l2(0.1), fl.Adafactor()), fl.Muon()):
        with pytest.raises(TypeError, match=r"needs the parameters: opt.update\(grads, params=w\)"):
            chain.update(np.ones((2, 2)))
    with pytest.raises(TypeError, match=r'by_row is a function of whole leaves in .* Got engine="eager"'):
        fl.Optimizer(by_row, engine="eager").step({}, {})
    jnp = need("jax").numpy
    with pytest.raises(TypeError, match="by_row is a function of whole leaves in host memory"):
        fl.Optimizer(by_row).step(jnp.ones((2, 2)), jnp.ones((2, 2)))


@every_engine
def test_modifiers_before_and_behind_it_keep_state_too_by_coordinate_and_as_numbers(engine):
    @fl.before
    def smoothed(g, m=0, calls=fl.scalar(0), *, beta=0.5):
        m = beta * m + (1 - beta) * g / fl.norm(g)
        return m / (1 + calls), m, calls + 1

    @fl.after
    def slower(d, longest=fl.scalar(0.0), a=0):
        longest = fl.maximum(longest, fl.norm(d))
        return d / longest, longest, a + d

    @fl.rule
    def taken(g):
        return -0.1 * g

    whole = fl.rule(lambda g: np.multiply(-0.1, g), whole_leaf=True)
    opt, other = (fl.chain(smoothed, one, slower, engine=engine) for one in (whole, taken))
    w, v = leaves(0), leaves(0)
    for t in range(1, 6):
        g = {**leaves(t), "a": None} if t == 3 else leaves(t)
        opt.step(w, g)
        other.step(v, g)
    assert frozen(w) == frozen(v)
    assert {slot: frozen(tree) for slot, tree in opt.state.items()} == {
        slot: frozen(tree) for slot, tree in other.state.items()}
    before = frozen(w), memory_of(opt)
    assert_refused(lambda: opt.step(w, {**leaves(5), "b": np.ones(4)}), "must have the shape", opt, w)
    assert (frozen(w), memory_of(opt)) == before


def test_a_setting_that_state_started_at_is_not_changed_without_effect():
    opt = fl.Muon()
    opt.adam_eps = 1e-6
    w = opt.step(np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="adam_eps of Muon only says where the state starts, and that has started"):
        opt.adam_eps = 1e-4
    assert opt.adam_eps == 1e-6
    opt.reset()
    opt.adam_eps = 1e-4
    assert opt.step(w, np.ones(3)) is w


def test_it_cannot_sum_over_the_tree_of_which_it_sees_one_leaf():
    opt = fl.Optimizer(fl.rule(lambda g: -g / fl.norm(g, "leaf"), whole_leaf=True))
    assert opt.step([1.0, 1.0], [3.0, 4.0]) == [0.0, 0.0]
    for word in (fl.norm, fl.total):
        opt = fl.Optimizer(fl.rule(lambda g: -g / word(g), whole_leaf=True))  # noqa: B023
        with pytest.raises(fl.FormulaError, match='cannot sum over the tree: write over="leaf", or a formula'):
            opt.step([1.0, 1.0], [3.0, 4.0])
    assert fl.norm(np.array([3.0, 4.0])) == 5.0


def test_it_says_that_it_runs_in_numpy():
    opt = fl.Muon(engine="native")
    opt.step(np.ones((2, 2)), np.ones((2, 2)))
    assert opt.engine == "numpy: Muon is a function of whole leaves"
