"""A chain that steps at every n-th call only, with the mean of the gradients of these."""

import copy
import pickle

import ml_dtypes
import numpy as np
import pytest

import fallline as fl
from needed import need
from support import a_tree, every_engine, every_precision, frozen, memory_of, picture, same_bits

INNER = {
    "Adam": lambda: fl.Adam(0.1),
    "a chain with a schedule": lambda: fl.chain(fl.clip_norm(0.5), fl.Momentum(lambda t: 0.5 / (1 + t)),
                                                fl.average(0.5)),
    "a rule of whole leaves": lambda: fl.chain(fl.clip_norm(0.5), fl.Muon(0.1), fl.average(0.5)),
    "another with factored state": lambda: fl.Adafactor(),
}
every_inner = pytest.mark.parametrize("inner", INNER)


def gradients(n, dtype=np.float64):
    return [a_tree(seed, dtype) for seed in range(n)]


def mean(trees):
    """As the formula has it: the sum so far, then the last one, by one division."""
    return {path: sum(tree[path] for tree in trees) / len(trees) for path in trees[0]}


@every_inner
@every_engine
def test_it_steps_as_the_chain_inside_does_with_the_means(inner, engine):
    opt, w = fl.accumulate(3, INNER[inner](), engine=engine), a_tree(100)
    plain, v = fl.chain(INNER[inner](), engine=engine), a_tree(100)
    given = gradients(15)
    for k, g in enumerate(given):
        assert opt.step(w, g) is w
        if k % 3 == 2:
            plain.step(v, mean(given[k - 2 : k + 1]))
        assert same_bits(w, v)
        assert (opt.t, opt.calls) == (plain.t, k + 1)
    assert all(same_bits(opt.state[slot], tree) for slot, tree in plain.state.items())


@every_precision
def test_engines_agree_to_the_bit(dtype):
    results = []
    for engine in ("reference", "native"):
        opt, w = fl.accumulate(2, INNER["a chain with a schedule"](), engine=engine), a_tree(100, dtype)
        for k, g in enumerate(gradients(9, dtype)):
            opt.step(w, {**g, "a": None} if k in (3, 6, 7) else g)
        results.append((frozen(w), memory_of(opt)))
    assert results[0] == results[1]


@every_engine
@pytest.mark.parametrize("within", [lambda opt: opt,
                                    lambda opt: fl.partition({"x": opt, "y": fl.SGD()}, lambda _: "x")])
def test_updates_give_nothing_at_every_call_that_only_gathers(engine, within):
    opt = fl.chain(within(fl.accumulate(2, fl.SGD(1.0))), engine=engine)
    got = [opt.update({"a": np.full(3, float(k))})["a"].tolist() for k in range(8)]
    assert got == [[0.0] * 3 if k % 2 == 0 else [0.5 - k] * 3 for k in range(8)]


@every_engine
def test_update_gives_nothing_until_the_chain_steps(engine):
    opt, out = fl.accumulate(2, fl.SGD(1.0), engine=engine), np.full(2, 7.0)
    d = opt.update(np.array([1.0, 2.0]))
    assert d.tobytes() == np.full(2, -0.0).tobytes()
    assert opt.update(np.array([3.0, 4.0])).tolist() == [-2.0, -3.0]
    assert opt.update(np.array([1.0, 2.0]), out=out) is out
    assert out.tobytes() == np.full(2, -0.0).tobytes()


@every_engine
def test_what_has_no_gradient_adds_nothing_and_a_leaf_without_any_is_left_alone(engine):
    opt, w = fl.accumulate(2, fl.Momentum(1.0, momentum=0.5), engine=engine), {"a": np.zeros(1), "b": np.zeros(1)}
    one = np.ones(1)
    opt.step(w, {"a": one, "b": one})
    opt.step(w, {"a": None, "b": one})
    assert (w["a"], w["b"]) == (-0.5, -1.0)
    opt.step(w, {"a": None, "b": one})
    opt.step(w, {"a": None, "b": one})
    assert (w["a"], opt.state["velocity"]["a"]) == (-0.5, -0.5)  # and no momentum carried it on
    assert w["b"] == -2.5


@every_engine
def test_a_leaf_that_missed_a_round_takes_part_in_the_next_with_what_it_has(engine):
    opt, w = fl.accumulate(2, fl.SGD(1.0), engine=engine), {"a": np.zeros(2), "b": np.zeros(2)}
    one = np.ones(2)
    for a in [one] * 4 + [None, None] + [one] * 6 + [one, None] * 5:
        opt.step(w, {"a": a, "b": one})
    assert (w["a"][0], w["b"][0], opt.state["sum"]["a"][0]) == (-2 - 3 - 2.5, -11.0, 0.0)


def test_calls_that_only_gather_take_the_short_way_and_look_at_the_parameters_there_too(monkeypatch):
    from fallline._step.look import Look

    taken, take = [], Look.take

    def counted(self, *trees):
        taken.append(take(self, *trees))
        return taken[-1]

    monkeypatch.setattr(Look, "take", counted)
    opt, w = fl.accumulate(3, fl.Adam(0.1), engine="native"), a_tree(100)
    for g in gradients(12):
        opt.step(w, g)
    assert taken.count(True) >= 8
    before = picture(opt, w)
    with pytest.raises(ValueError, match="must have the shape"):
        opt.step({**w, "b": np.ones(3)}, a_tree(1))
    w["a"].flags.writeable = False
    with pytest.raises(ValueError, match="read-only"):
        opt.step(w, a_tree(1))
    w["a"].flags.writeable = True
    with pytest.raises(fl.NonFiniteGradient):
        opt.step(w, {**a_tree(1), "b": np.full((2, 3), np.inf)})
    assert picture(opt, w) == before


@every_inner
@every_engine
def test_a_gradient_that_is_refused_on_the_way_leaves_the_sum_as_it_was(inner, engine):
    opt, w = fl.accumulate(3, INNER[inner](), engine=engine), a_tree(100)
    for g in gradients(4):
        opt.step(w, g)
    bad = a_tree(9)
    bad["b"][1, 1] = np.nan
    before = picture(opt, w)
    with pytest.raises(fl.NonFiniteGradient, match="b has 1 NaN"):
        opt.step(w, bad)
    with pytest.raises(ValueError, match="must have the shape"):
        opt.step(w, {**bad, "b": np.ones(3)})
    assert (picture(opt, w), opt.calls) == (before, 4)


@pytest.mark.parametrize("cut", range(7))
@every_engine
def test_it_goes_on_from_any_call(cut, engine, tmp_path):
    opt, w = fl.accumulate(3, INNER["a chain with a schedule"](), engine=engine), a_tree(100)
    given = gradients(9)
    for g in given[:cut]:
        opt.step(w, g)
    others = [copy.deepcopy(opt), opt.fresh()]
    others[1].load_state_dict(opt.state_dict())
    adam = fl.accumulate(3, fl.Adam(0.1), engine=engine)
    for g in given[:cut]:
        adam.step(a_tree(5), g)
    adam.save(tmp_path / "run", w)
    read, v = pickle.loads(pickle.dumps(fl.load(tmp_path / "run")))
    walks = [(opt, w), *((other, copy.deepcopy(w)) for other in others)]
    results = []
    for other, u in [*walks, (adam, copy.deepcopy(w)), (read, v)]:
        for g in given[cut:]:
            other.step(u, g)
        results.append((frozen(u), memory_of(other), other.calls))
    assert results[0] == results[1] == results[2]
    assert results[3] == results[4]


def test_descend_counts_calls_and_goes_on_where_it_stopped(tmp_path):
    def value_and_grad(w, batch):
        return float(((w - batch) ** 2).sum()), 2 * (w - batch)

    batches = np.random.default_rng(0).standard_normal((7, 3))
    whole = fl.descend(value_and_grad, np.zeros(3), fl.accumulate(4, fl.Adam(0.1)), batches=batches, steps=30)
    assert (len(whole.values), whole.t) == (30, 7)
    for steps in (9, 30):
        parts = fl.descend(value_and_grad, np.zeros(3), fl.accumulate(4, fl.Adam(0.1)), batches=batches, steps=steps,
                           checkpoint=tmp_path / "run")
    assert same_bits([parts.params, parts.values], [whole.params, whole.values])
    opt = fl.accumulate(4, fl.Adam(0.1))
    first = fl.descend(value_and_grad, np.zeros(3), opt, batches=batches, steps=9)
    assert same_bits(fl.descend(value_and_grad, first.params, opt, batches=batches, steps=21).params, whole.params)


@pytest.mark.parametrize("n", [0, -2, 1.5, np.nan, "3", True, None, {"a": 1, "b": 2}, np.array([1, 2]),
                               fl.by_path(len), pytest.param(lambda t: 1 + t, id="a schedule")], ids=str)  # fmt: skip
def test_n_is_one_whole_number_from_one_on(n):
    """One for the chain: by leaf some would step with others' counts, and by a schedule calls could not be counted."""
    with pytest.raises((TypeError, ValueError), match=r"^n of accumulate must be a whole number ≥ 1( |\.)"):
        fl.accumulate(n, fl.SGD())
    opt = fl.accumulate(2, fl.SGD())
    with pytest.raises((TypeError, ValueError), match=r"^n of accumulate must be a whole number ≥ 1( |\.)"):
        opt.n = n
    assert repr(opt) == "accumulate(2, SGD(lr=0.001))"


def test_n_stays_what_it_was_at_the_first_call():
    opt = fl.accumulate(2, fl.SGD())
    opt.n = 3
    opt.update(1.0)
    with pytest.raises(ValueError, match="n of accumulate says how the calls so far are counted"):
        opt.n = 2
    opt.reset()
    opt.n = 2
    assert opt.calls == 0


def test_one_call_a_step_is_the_chain_itself():
    opt, w, plain, v = fl.accumulate(1, fl.Adam(0.1)), a_tree(1), fl.Adam(0.1), a_tree(1)
    for g in gradients(5):
        opt.step(w, g)
        plain.step(v, g)
    assert same_bits(w, v)


def test_what_modifies_the_gradient_stands_inside():
    with pytest.raises(fl.FormulaError, match=r"accumulate must be outermost: accumulate\(n, chain\(...\)\)"):
        fl.chain(fl.clip_norm(1.0), fl.accumulate(2, fl.SGD()))
    with pytest.raises(fl.FormulaError, match="must be outermost"):
        fl.accumulate(2, fl.accumulate(2, fl.SGD()))


def test_it_shows_itself_as_it_is_written():
    text = "accumulate(2, chain(clip_norm(max_norm=1.0), SGD(lr=0.5)), nonfinite='skip')"
    opt = fl.accumulate(2, fl.clip_norm(1.0), fl.SGD(0.5), nonfinite="skip")
    assert repr(opt) == repr(eval(text, vars(fl))) == text
    assert (opt.n, opt.lr) == (2, 0.5)


# ---- unequal calls, and the last ones --------------------------------------------------------------------------------


@every_inner
@every_engine
def test_what_is_left_is_flushed_as_the_mean_of_fewer(inner, engine):
    opt, w = fl.accumulate(4, INNER[inner](), engine=engine), a_tree(100)
    plain, v = fl.chain(INNER[inner](), engine=engine), a_tree(100)
    given = gradients(20)
    for epoch in range(3):
        own = given[6 * epoch : 6 * epoch + 6]
        for g in own:
            opt.step(w, g)
        assert opt.flush(w) is w
        plain.step(v, mean(own[:4]))
        plain.step(v, mean(own[4:]))
        assert same_bits(w, v)
        assert opt.t == plain.t
        before = picture(opt, w)
        assert opt.flush(w) is w  # of which there is nothing more
        assert picture(opt, w) == before
    assert all(same_bits(opt.state[slot], tree) for slot, tree in plain.state.items())


@pytest.mark.parametrize("kind", ["float32", "floats", "torch", "jax"])
@pytest.mark.parametrize("engine", ["auto", "reference", "eager"])
def test_parameters_of_every_kind_are_flushed(engine, kind):
    make = {"float32": lambda x: np.full(3, x, np.float32), "floats": float,
            "torch": lambda x: need("torch").full((3,), x), "jax": lambda x: need("jax").numpy.full(3, x)}[kind]
    opt, w = fl.accumulate(3, fl.SGD(0.5), engine="auto" if kind == "jax" else engine), {"a": make(1.0), "b": make(2.0)}
    w = opt.step(w, {"a": make(1.0), "b": make(1.0)})
    w = opt.step(w, {"a": make(2.0), "b": None})
    flushed = opt.flush(w)
    assert type(flushed["a"]) is type(w["a"])
    assert [float(np.ravel(np.asarray(flushed[path]))[0]) for path in "ab"] == [1 - 0.75, 2 - 0.25]


@every_engine
def test_a_part_that_gathers_is_flushed_by_itself(engine):
    opt = fl.partition({"a": fl.accumulate(2, fl.Momentum(1.0)), "b": fl.accumulate(3, fl.SGD(1.0)),
                        "c": fl.Prodigy(), "d": None}, lambda path: path, engine=engine)  # fmt: skip
    w, one = {path: np.zeros(2) for path in "abcd"}, np.ones(2)
    for _ in range(4):
        opt.step(w, dict.fromkeys("abcd", one))
    before = picture(opt, w)
    parts = {path: (part.t, memory_of(part)) for path, part in opt.parts.items() if path in "ac"}
    opt.flush(w)
    assert {path: (part.t, memory_of(part)) for path, part in opt.parts.items() if path in "ac"} == parts
    assert w["b"].tolist() == [-2.0, -2.0]
    assert (opt.parts["b"].t, opt.parts["a"].t) == (2, 2)
    assert picture(opt, w) != before
    around = fl.accumulate(3, fl.partition({"a": fl.SGD(1.0), "b": fl.SGD(2.0)}, {"a": "a", "b": "b"}))
    w = around.flush(around.step({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0}))
    assert w == {"a": -1.0, "b": -2.0}


@every_engine
@every_precision
def test_calls_weigh_what_they_say(engine, dtype):
    weights, n = [32, 32, 20, 32, 5, 7, 40], 3
    opt, w = fl.accumulate(n, fl.Adam(0.1), engine=engine), a_tree(100, dtype)
    plain, v = fl.Adam(0.1, engine=engine), a_tree(100, dtype)
    given = list(zip(weights, gradients(7, dtype)))
    for k, (weight, g) in enumerate(given):
        opt.weight = weight
        opt.step(w, g)
        if k % n == n - 1:
            plain.step(v, weighted(given[k - n + 1 : k + 1]))
        assert (opt.t, opt.calls) == (plain.t, k + 1)
    opt.flush(w)
    plain.step(v, weighted(given[6:]))
    assert opt.t == plain.t == 3
    for path, leaf in w.items():
        wide = np.complex128 if leaf.dtype.kind == "c" else np.float64
        eps = float(np.finfo(np.float32 if leaf.dtype.itemsize < 4 else leaf.dtype).eps)
        coarse = float(ml_dtypes.finfo(leaf.dtype).eps) if leaf.dtype.itemsize < 4 else 0.0
        np.testing.assert_allclose(leaf.astype(wide), v[path].astype(wide), rtol=2 * coarse + 64 * eps, atol=64 * eps)


def weighted(given):
    """The mean by weights, as the formula has it."""
    trees = [{path: np.asarray(weight, g.real.dtype) * g for path, g in tree.items()} for weight, tree in given]
    total = sum(weight for weight, _ in given)
    return {path: (sum(tree[path] for tree in trees) / np.asarray(total, trees[0][path].real.dtype)).astype(
        trees[0][path].dtype) for path in trees[0]}


@every_engine
@pytest.mark.parametrize("given", [
    [1.0, -1.0, None], [0.0, 0.0, None], [None, 0.0, None], [1.0, -1.0], [0.0], [None, -0.0], [None, 1.0, 2.0],
], ids=str)
@pytest.mark.parametrize("by", ["step", "flush"])
@pytest.mark.parametrize("carried", ["as it is", "copied", "by a state", "by a file"])
def test_a_window_whose_gradients_sum_to_0_is_one_with_gradients(engine, given, by, carried, path):
    n = len(given) + (by == "flush")

    def on(opt):
        if carried == "copied":
            return pickle.loads(pickle.dumps(copy.deepcopy(opt)))
        if carried == "by a state":
            other = opt.fresh()
            other.load_state_dict(opt.state_dict())
            return other
        if carried == "by a file":
            opt.save(path)
            return fl.load(path)
        return opt

    opt, w = fl.accumulate(n, fl.Momentum(1.0), engine=engine), {"a": np.zeros(2), "b": np.zeros(2)}
    plain, v = fl.Momentum(1.0, engine=engine), {"a": np.zeros(2), "b": np.zeros(2)}
    for window in range(3):
        own = given if window != 1 else [1.0] * len(given)  # one in which calls go the short way, between
        for g in own:
            opt.step(w, {"a": None if g is None else np.full(2, g), "b": np.ones(2)})
            opt = on(opt)
        if by == "flush":
            opt.flush(w)
        plain.step(v, {"a": np.full(2, sum(g for g in own if g is not None) / len(own)), "b": np.ones(2)})
        assert frozen(w) == frozen(v)
        assert {slot: memory_of(opt)[1][slot] for slot in memory_of(plain)[1]} == memory_of(plain)[1]
    left, x = fl.accumulate(2, fl.Momentum(1.0), engine=engine), {"a": np.zeros(2), "b": np.zeros(2)}
    for g in (1.0, 1.0, None, None, None, 1.0, None, None):
        left.step(x, {"a": None if g is None else np.full(2, g), "b": np.ones(2)})
        left = on(left)
    assert x["a"].tolist() == [-2.4, -2.4]  # two steps: of 1, and of 1/2 beside 0.9 of it
    assert left.state_dict()["leaves"]["a"]["t"] == 2


def test_a_weight_of_one_is_as_if_there_were_none_and_is_not_shown():
    assert repr(fl.accumulate(4, fl.SGD(0.5))) == "accumulate(4, SGD(lr=0.5))"
    opt = fl.accumulate(4, fl.SGD(0.5), weight=2)
    assert repr(opt) == "accumulate(4, SGD(lr=0.5), weight=2.0)"
    assert repr(eval(repr(opt), {"accumulate": fl.accumulate, "SGD": fl.SGD})) == repr(opt)
    for wrong in (0, -1.0, np.nan):
        with pytest.raises(ValueError, match="weight of accumulate must be > 0"):
            opt.weight = wrong
    with pytest.raises(TypeError, match="weight of accumulate is used in a number for the whole tree and"):
        fl.accumulate(2, fl.SGD(), weight={"a": 1.0, "b": 2.0}).step({"a": 0.0, "b": 0.0}, {"a": 1.0, "b": 1.0})


def test_a_flush_goes_on_from_a_file_and_a_state_without_weights_is_read(path):
    opt, w = fl.accumulate(3, fl.Adam(0.1)), a_tree(100)
    opt.step(w, a_tree(1))
    opt.save(path, w)
    again, v = fl.load(path)
    old = fl.accumulate(3, fl.Adam())
    state = opt.state_dict()
    del state["hyper"]["accumulate.weight"]  # which came later
    old.load_state_dict(state)
    u = {name: leaf.copy() for name, leaf in w.items()}
    for each, x in ((opt, w), (again, v), (old, u)):
        each.flush(x)
        assert same_bits(x, w)
        assert each.t == 1


def test_a_flush_changes_nothing_where_it_is_refused():
    opt, w = fl.accumulate(3, fl.Adam(0.1)), a_tree(100)
    assert opt.flush(w) is w  # nothing has been gathered
    opt.step(w, a_tree(1))
    before = picture(opt, w)
    with pytest.raises(TypeError, match=r"flush of accumulate\(Adam\) needs the parameters: opt.flush\(params\)"):
        opt.flush(None)
    with pytest.raises(ValueError, match="must have the shape"):
        opt.flush({**w, "b": np.ones(3)})
    assert picture(opt, w) == before
    assert fl.SGD().flush(1.0) == 1.0  # one that gathers nothing
