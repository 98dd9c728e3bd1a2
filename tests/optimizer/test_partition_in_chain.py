"""Modifiers around a partition act on all leaves: what they sum over the tree is summed over all parts."""

import pickle
import re

import numpy as np
import pytest

import fallline as fl
from needed import need
from support import a_tree, assert_refused, by_rank, every_engine, frozen, halving, normal, picture, same_bits

DTYPES = {"float64": ["float64"], "mixed": ["float32", "float64", "float16", "complex64"]}
ORDERS = {"by rank": by_rank, "in turn": {"a": "weights", "b": "rest", "c": "weights", "d": "rest", "e": "rest"}}


def leaves(seed, dtypes=("float64",)):
    rng = np.random.default_rng(seed)
    shapes = {"a": (3, 4), "b": 5, "c": (2, 4500), "d": (), "e": (0, 2)}
    return {path: normal(rng, shape, dtypes[k % len(dtypes)]) for k, (path, shape) in enumerate(shapes.items())}


def modified(inner, **options):
    return fl.chain(fl.l2(0.1), fl.clip_norm(0.5), inner, fl.weight_decay(0.01), fl.average(0.9), **options)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtypes", DTYPES)
@every_engine
def test_parts_of_one_kind_step_as_that_optimizer_on_all_leaves(order, dtypes, engine):
    parts = {"weights": fl.Nadam(lr=halving), "rest": fl.Nadam(lr=halving)}
    opt = modified(fl.partition(parts, ORDERS[order]), engine=engine)
    whole = modified(fl.Nadam(lr=halving), engine=engine)
    w, v = leaves(0, DTYPES[dtypes]), leaves(0, DTYPES[dtypes])
    for seed in range(1, 8):
        g = leaves(seed, DTYPES[dtypes])
        g = {**g, "b": None} if seed == 3 else g
        if seed % 2:
            assert opt.step(w, g) is w
            whole.step(v, g)
        else:
            out, other = ({path: np.empty_like(x) for path, x in w.items()} for _ in range(2))
            assert same_bits(opt.update(g, params=w, out=out), whole.update(g, params=v, out=other))
            assert same_bits(opt.update(g, params=w), whole.update(g, params=v))
        assert same_bits(w, v)
    assert same_bits(opt.averaged, whole.averaged)


@pytest.mark.parametrize("rest", ["LAMB", "Prodigy", "Adafactor", "AdamW"])
def test_any_rules_get_the_gradient_clipped_by_the_norm_of_all(rest):
    def make():
        return fl.partition({"weights": fl.Muon(0.1), "rest": fl.OPTIMIZERS[rest]()}, by_rank)

    opt, plain, w, v = fl.chain(fl.clip_norm(0.5), make()), make(), leaves(0), leaves(0)
    for seed in range(1, 6):
        g = leaves(seed)
        longest = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in g.values()))
        opt.step(w, g)
        plain.step(v, {path: leaf * (0.5 / max(longest, 0.5)) for path, leaf in g.items()})
        for path in w:
            np.testing.assert_allclose(w[path], v[path], rtol=1e-11, atol=1e-13)


def test_numbers_of_the_tree_are_those_of_all_parts_too():
    @fl.before
    def by_the_longest(g, longest=fl.scalar(0.0)):
        longest = fl.maximum(longest, fl.norm(g))
        return g / longest, longest

    opt = fl.chain(by_the_longest, fl.partition({"weights": fl.SGD(0.1), "rest": fl.SGD(0.1)}, by_rank))
    whole, w, v = fl.chain(by_the_longest, fl.SGD(0.1)), leaves(0), leaves(0)
    for seed in (1, 2, 3):
        opt.step(w, leaves(seed))
        whole.step(v, leaves(seed))
        assert same_bits(w, v)
    assert opt.state["rest"]["longest"] == opt.state["weights"]["longest"] == whole.state["longest"]


def test_a_mask_is_clipped_by_the_norm_of_the_leaves_that_are_stepped():
    opt = fl.chain(fl.clip_norm(5.0), fl.mask({"a": True, "b": True, "c": False}, fl.SGD(1.0)))
    w = opt.step({"a": 0.0, "b": 0.0, "c": 0.0}, {"a": 6.0, "b": 8.0, "c": 1e9})
    assert w == {"a": -3.0, "b": -4.0, "c": 0.0}


@every_engine
def test_a_partition_gathers_gradients_as_a_whole(engine):
    def make():
        return fl.chain(fl.clip_norm(0.5), fl.partition({"weights": fl.Muon(0.1), "rest": fl.Adam(0.1)}, by_rank))

    opt, plain = fl.accumulate(2, make(), engine=engine), make()
    w, v = leaves(0), leaves(0)
    for seed in range(1, 7):
        opt.step(w, leaves(seed))
        if seed % 2 == 0:
            plain.step(v, {path: (leaf + leaves(seed)[path]) / 2 for path, leaf in leaves(seed - 1).items()})
        assert same_bits(w, v)
        assert (opt.t, opt.calls) == (seed // 2, seed)


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_leaves_of_other_libraries_share_a_norm_with_numpys(library):
    make = {"torch": lambda leaf: need("torch").tensor(leaf), "jax": lambda leaf: need("jax").numpy.asarray(leaf)}
    numpy = {path: leaf.astype(np.float32) for path, leaf in a_tree(0).items()}
    opt, same = (fl.chain(fl.clip_norm(0.5), fl.partition({"x": fl.Adam(0.1), "y": fl.SGD(0.1)}, {"a": "x", "b": "y"}))
                 for _ in range(2))
    w = {"a": numpy["a"].copy(), "b": make[library](numpy["b"])}
    for seed in (1, 2, 3):
        g = a_tree(seed, np.float32)
        w = opt.step(w, {"a": g["a"], "b": make[library](g["b"])})
        same.step(numpy, g)
    np.testing.assert_allclose(np.asarray(w["b"]), numpy["b"], rtol=1e-6)
    np.testing.assert_allclose(w["a"], numpy["a"], rtol=1e-6)


def test_a_gradient_that_any_part_refuses_changes_nothing_in_all():
    opt, w = modified(fl.partition({"weights": fl.Muon(0.1), "rest": fl.Adam(0.1)}, by_rank)), leaves(0)
    opt.step(w, leaves(1))
    before = picture(opt, w)
    for bad, message in (({"a": np.full((3, 4), np.nan)}, "a has 12 NaN"), ({"b": np.ones(4)}, "must have the shape")):
        with pytest.raises(ValueError, match=message):
            opt.step(w, {**leaves(2), **bad})
        assert picture(opt, w) == before


def test_a_setting_of_what_stands_around_is_one_for_all_parts():
    opt = modified(fl.partition({"weights": fl.Momentum(0.1), "rest": fl.SGD(0.1)}, by_rank))
    assert (opt.max_norm, opt.hyper["clip_norm.max_norm"], opt.hyper["l2.rate"], opt.momentum) == (0.5, 0.5, 0.1, 0.9)
    opt.max_norm, opt.hyper["l2.rate"] = 0.25, 0.0
    assert [part.hyper["clip_norm.max_norm"] for part in opt.parts.values()] == [0.25, 0.25]
    assert [part.hyper["l2.rate"] for part in opt.parts.values()] == [0.0, 0.0]
    w = leaves(0)
    assert_refused(lambda: setattr(opt, "max_norm", -1.0), r"max_norm of clip_norm must be > 0\. Got -1", opt, w)
    assert_refused(lambda: setattr(opt.parts["rest"], "max_norm", 1.0), "max_norm of clip_norm is one for all parts",
                   opt, w)
    opt.step(w, leaves(1))
    assert_refused(lambda: opt.hyper.__setitem__("clip_norm.max_norm", {"a": 1.0}), "max_norm of clip_norm", opt, w)
    assert opt.max_norm == 0.25
    opt.hyper["l2.rate"] = fl.by_path(lambda path: 0.5 if path == "d" else 0.0)
    before = w["d"].copy()
    opt.step(w, {path: np.zeros_like(leaf) for path, leaf in w.items()})
    assert w["d"] != before


def test_a_modifier_that_stands_around_and_in_a_part_is_two_with_a_name_each():
    inner = fl.partition({"x": fl.chain(fl.SGD(0.1), fl.weight_decay(0.5)), "y": fl.SGD(0.2)}, {"a": "x", "b": "y"})
    opt = fl.chain(inner, fl.weight_decay(0.25))
    assert dict(opt.hyper) == {"x.lr": 0.1, "x.weight_decay.rate": 0.5, "weight_decay.rate": 0.25, "y.lr": 0.2}
    opt.hyper["weight_decay.rate"] = 0.0
    assert opt.hyper["x.weight_decay.rate"] == 0.5
    assert opt.step({"a": 1.0, "b": 1.0}, {"a": 0.0, "b": 0.0}) == {"a": 0.95, "b": 1.0}
    with pytest.raises(AttributeError, match=r'use opt.hyper\["x.weight_decay.rate"\] or .*\["weight_decay.rate"\]'):
        opt.rate  # noqa: B018
    with pytest.raises(AttributeError, match=r'use opt.hyper\["x.lr"\] or opt.hyper\["y.lr"\]\.'):
        opt.lr  # noqa: B018


def test_it_is_written_as_it_was_made_and_each_part_by_itself():
    inner = fl.partition({"weights": fl.Muon(0.1), "rest": fl.SGD(0.5)}, {"a": "rest"})
    opt = fl.accumulate(4, fl.clip_norm(2.0), inner, fl.weight_decay(0.25))
    assert repr(opt) == (
        "accumulate(4, chain(clip_norm(max_norm=2.0), partition({'weights': Muon(lr=0.1, momentum=0.95, "
        "weight_decay=0.1, adam_beta1=0.9, adam_beta2=0.999, adam_eps=1e-08), 'rest': SGD(lr=0.5)}, {'a': 'rest'}), "
        "weight_decay(rate=0.25)))")
    again = eval(repr(opt), {name: getattr(fl, name) for name in fl.__all__})
    assert repr(again) == repr(opt)
    assert dict(again.hyper) == dict(opt.hyper)


def test_a_chain_around_a_chain_around_a_partition_is_one_chain():
    inner = fl.chain(fl.clip_norm(2.0), fl.partition({"x": fl.SGD(0.5)}, lambda path: "x"), fl.weight_decay(0.5))
    inner.max_norm = 3.0
    outer = fl.chain(fl.clip_value(9.0), inner, fl.average(0.5))
    assert repr(outer) == ("chain(clip_value(limit=9.0), clip_norm(max_norm=3.0), partition({'x': SGD(lr=0.5)}, "
                           "<lambda>), weight_decay(rate=0.5), average(decay=0.5))")
    assert inner.fresh().step(8.0, 6.0) == 8.0 - 0.5 * 3.0 - 0.25 * 8.0


def test_it_goes_on_from_a_file_a_copy_or_plain_data_with_the_same_bits(tmp_path):
    def make():
        parts = {"weights": fl.Muon(0.1), "rest": fl.Adam(0.1)}
        return fl.chain(fl.clip_norm(halving), fl.partition(parts, by_rank), fl.weight_decay(0.01))

    opt, w = make(), leaves(0)
    for seed in (1, 2, 3):
        opt.step(w, leaves(seed))
    opt.save(tmp_path / "run", w)
    plain, copies = make(), pickle.loads(pickle.dumps(opt))
    plain.load_state_dict(opt.state_dict())
    with pytest.raises(fl.CheckpointError, match=re.escape("give it again, fl.load(path, max_norm=...)")):
        fl.load(tmp_path / "run", label=by_rank)
    loaded, v = fl.load(tmp_path / "run", label=by_rank, max_norm=halving)
    assert repr(loaded) == repr(opt)
    results = []
    for each, x in ((plain, leaves(0)), (copies, leaves(0)), (loaded, v), (opt, w)):
        for path in x:
            x[path][...] = v[path] if x is not v else x[path]
        results.append((each, x))
    for seed in (4, 5):
        for each, x in results:
            each.step(x, leaves(seed))
    assert len({str(frozen(x)) for _, x in results}) == 1


WRONG = {
    "a second rule": (lambda part: fl.chain(fl.SGD(), part), "exactly one rule or partition"),
    "a class": (lambda part: fl.chain(part, fl.SGD), "exactly one rule or partition"),
    "two partitions": (lambda part: fl.chain(part, part), "exactly one rule or partition"),
    "the wrong side": (lambda part: fl.chain(part, fl.clip_norm(1.0)), "must stand before the partition"),
    "the other wrong side": (lambda part: fl.chain(fl.average(0.5), part), "must stand behind the partition"),
    "a partition in another": (lambda part: fl.mask(lambda path: True, part), "with None for those"),
    "in Optimizer": (lambda part: fl.Optimizer(fl.clip_norm(1.0), part), "pass it to fallline.chain, among modifiers"),
    "a part of that name": (lambda part: fl.chain(fl.clip_norm(1.0), fl.partition({"clip_norm": fl.SGD()}, by_rank)),
                            "A part cannot be called clip_norm"),
    "a part that gathers": (lambda part: fl.chain(fl.l2(), fl.partition({"x": fl.accumulate(2, fl.SGD())}, by_rank)),
                            "accumulate must be outermost"),
    "an option inside": (lambda part: fl.chain(fl.l2(), fl.partition({"x": fl.SGD()}, by_rank, nonfinite="skip")),
                         r"nonfinite of partition\(SGD\) is for the whole chain: give it to chain"),
    "a sum behind": (lambda part: fl.chain(part, fl.after(lambda d: d / fl.norm(d))), "sums over the tree and stands"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_stand_around_a_partition_is_refused(wrong):
    call, message = WRONG[wrong]
    with pytest.raises(fl.FormulaError, match=message):
        call(fl.partition({"x": fl.SGD(), "y": fl.Adam()}, by_rank))


def test_state_that_there_is_not_is_asked_for_by_part_and_slot():
    opt = fl.partition({"x": fl.SGD(), "y": fl.Adam()}, {"a": "x", "b": "y"})
    opt.step(a_tree(0), a_tree(1))
    with pytest.raises(KeyError, match=r"a partition has its state part by part.* Known: x, y"):
        opt.state["m"]
    with pytest.raises(KeyError, match=r"Adam has no state 'momentum'\. Known: m, v"):
        opt.state["y"]["momentum"]
