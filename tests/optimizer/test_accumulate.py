"""A chain that steps at every n-th call only, with the mean of the gradients of these."""

import copy
import pickle

import numpy as np
import pytest

import fallline as fl
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
    with pytest.raises(fl.FormulaError, match=r"accumulate goes around a chain: accumulate\(n, chain\(...\)\)"):
        fl.chain(fl.clip_norm(1.0), fl.accumulate(2, fl.SGD()))
    with pytest.raises(fl.FormulaError, match="goes around a chain"):
        fl.accumulate(2, fl.accumulate(2, fl.SGD()))


def test_it_shows_itself_as_it_is_written():
    text = "accumulate(2, chain(clip_norm(max_norm=1.0), SGD(lr=0.5)), nonfinite='skip')"
    opt = fl.accumulate(2, fl.clip_norm(1.0), fl.SGD(0.5), nonfinite="skip")
    assert repr(opt) == repr(eval(text, vars(fl))) == text
    assert (opt.n, opt.lr) == (2, 0.5)
