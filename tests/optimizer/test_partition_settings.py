"""Names and settings of the parts of a partition, and what is no partition."""

from __future__ import annotations

import collections

import numpy as np
import pytest

import fallline as fl
from fallline.errors import FormulaError
from support import (
    RECIPES,
    a_tree,
    by_rank,
    same_bits,
)

PARTIAL = {
    "dicts without leaves of others": {"l": {"b": 0.25}, "h": 0.5},
    "upper levels without leaves of others": {"l": 0.25, "h": 0.5},
    "anything for leaves of others": {"l": {"W": 7.0, "b": 0.25}, "h": 0.5, "z": 7.0},
    "a tree for one leaf of others": {"l": {"W": {"deep": 7.0}, "b": 0.25}, "h": 0.5},
    "by path within": {"l": {"b": fl.by_path(lambda path: {"b": 0.25}[path[-1]])}, "h": 0.5},
}  # fmt: skip


AROUND = {
    "nothing": (lambda tree: tree, lambda tree: tree),
    "another class of dicts": (collections.OrderedDict, collections.OrderedDict),
    "a list": (lambda tree: {"of": [tree, np.ones((1, 2))]}, lambda lr: {"of": [lr, 7.0]}),
    "a tuple": (lambda tree: (np.ones((1, 2)), tree), lambda lr: ({"any": 7.0}, lr)),
}  # fmt: skip


@pytest.mark.parametrize("case", PARTIAL)
@pytest.mark.parametrize("around", AROUND)
def test_a_tree_of_settings_of_a_part_may_leave_out_the_leaves_of_others(case, around):
    params, settings = AROUND[around]
    w = params({"l": {"W": np.ones((2, 2)), "b": np.ones(2)}, "h": np.ones(2), "z": {"W": [np.ones((1, 2))]}})
    lr = settings(PARTIAL[case])
    opt = fl.partition({"m": fl.SGD(1.0), "r": fl.SGD(lr)}, lambda path, shape: "m" if len(shape) == 2 else "r")
    for _ in range(2):
        steps = opt.update(w)
        found = steps["of"][0] if around == "a list" else steps[1] if around == "a tuple" else steps
        assert (found["l"]["b"].tolist(), found["h"].tolist()) == ([-0.25] * 2, [-0.5] * 2)
        opt.hyper["r.lr"] = lr


@pytest.mark.parametrize("lr", [{"l": {"b": 0.25}}, {"l": {"b": 0.25}, "h": 0.5, "x": 1.0}, {"l": [0.25], "h": 0.5},
                                {"l": {"b": {"deep": 0.25}}, "h": 0.5}, [0.25, 0.5]], ids=str)  # fmt: skip
def test_a_tree_of_settings_of_a_part_has_all_its_leaves_and_no_others(lr):
    w = {"l": {"W": np.ones((2, 2)), "b": np.ones(2)}, "h": np.ones(2)}
    opt = fl.mask(lambda path, shape: len(shape) == 1, fl.SGD(lr))
    with pytest.raises(ValueError, match=r"upper levels \('h', 'l/b'; leaves of other parts may have anything\)\. Got"):
        opt.step(w, w)
    with pytest.raises(ValueError, match=r"upper levels \('h', 'l/W', 'l/b'\)\. Got"):
        fl.SGD(lr).step(w, w)


def test_trees_of_settings_and_of_names_are_taken_by_key_whatever_the_order_of_their_dicts():
    ordered, ones = collections.OrderedDict, {"b": 1.0, "W": 1.0, "c": {"z": 1.0, "y": 1.0}}
    orders = [lambda tree: tree, ordered, lambda tree: ordered(sorted(tree.items())),
              lambda tree: ordered(reversed(tree.items())),
              lambda tree: {**tree, "c": ordered(sorted(tree["c"].items()))}]  # fmt: skip
    for of_params in orders:
        for of_settings in orders:
            w = of_params(ones)
            rates = of_settings({"b": 0.5, "W": 0.25, "c": {"z": 0.125, "y": 0.0}})
            names = of_settings({"b": "half", "W": "quarter", "c": {"z": "half", "y": "quarter"}})
            stepped = fl.SGD(rates).step(w, w)
            assert (stepped["b"], stepped["W"], stepped["c"]) == (0.5, 0.75, {"z": 0.875, "y": 1.0})
            stepped = fl.partition({"half": fl.SGD(0.5), "quarter": fl.SGD(0.25)}, names).step(w, w)
            assert (stepped["b"], stepped["W"], stepped["c"]) == (0.5, 0.75, {"z": 0.5, "y": 0.75})


def test_a_setting_takes_effect_at_the_next_step_by_whichever_name():
    opt = RECIPES["partition"]()
    for name, value, found in (("weights.lr", 0.5, "nadam.lr"), ("rest.momentum.lr", 0.25, "rest.lr"),
                               ("max_norm", 2.0, "rest.clip_norm.max_norm"), ("beta1", 0.5, "weights.beta1"),
                               ("average.decay", 0.5, "decay")):  # fmt: skip
        if name == "weights.lr":
            found = "weights.nadam.lr"
        opt.hyper[name] = value
        assert opt.hyper[found] == value
    opt.decay, opt.parts["rest"].momentum = 0.75, 0.0
    assert opt.parts["rest"].decay == 0.75
    assert set(opt.hyper) == {"weights.lr", "beta1", "beta2", "eps", "max_norm", "rest.lr", "momentum", "decay"}
    assert dict(opt.hyper)["rest.lr"] == 0.25
    w = a_tree(0)
    opt.step(w, a_tree(1))
    alone, v = fl.chain(fl.clip_norm(2.0), fl.Momentum(0.25, momentum=0.0)), a_tree(0)
    alone.step(v["a"], a_tree(1)["a"])
    assert same_bits(w["a"], v["a"])
    with pytest.raises(AttributeError, match=r'opt.hyper\["weights.lr"\] or opt.hyper\["rest.lr"\]'):
        _ = opt.lr
    with pytest.raises(KeyError, match=r"no hyper-parameter 'rate'. Known: .*weights.lr"):
        opt.hyper["rate"] = 1.0
    with pytest.raises(ValueError, match="lr of Nadam must be ≥ 0"):
        opt.parts["weights"].lr = -1.0
    assert "parts" in dir(opt)


def test_what_it_is_written_as_makes_it_again():
    tree = {"a": "x", "b": ["y", "x"]}
    for made, written in (
        (fl.partition({"x": fl.SGD(0.1), "y": None}, tree),
         "partition({'x': SGD(lr=0.1), 'y': None}, {'a': 'x', 'b': ['y', 'x']})"),
        (fl.partition({"x": fl.chain(fl.l2(0.1), fl.SGD(0.1))}, by_rank, engine="native"),
         "partition({'x': chain(l2(rate=0.1), SGD(lr=0.1))}, by_rank, engine='native')"),
        (fl.mask([True, False], fl.SGD, nonfinite="skip"), "mask([True, False], SGD(lr=0.001), nonfinite='skip')"),
    ):  # fmt: skip
        assert repr(made) == written
        assert repr(eval(written, {"by_rank": by_rank}, vars(fl))) == written


PARTS = {"x": fl.SGD(), "y": fl.Adam()}
WRONG = {
    "no parts": (lambda: fl.partition({}, by_rank), TypeError, r"dict of optimizers by name: partition\(.*Got"),
    "a list of parts": (lambda: fl.partition([fl.SGD()], by_rank), TypeError, "dict of optimizers by name"),
    "nothing to step": (lambda: fl.partition({"x": None}, by_rank), TypeError, "dict of optimizers by name"),
    "a name with a dot": (lambda: fl.partition({"a.b": fl.SGD()}, by_rank), ValueError, "text without"),
    "a name that is none": (lambda: fl.partition({3: fl.SGD()}, by_rank), ValueError, "text without"),
    "a modifier": (lambda: fl.partition({"x": fl.l2(0.1)}, by_rank), FormulaError,
                   r"l2 is a modifier: .* chain\(l2\(rate=fallline.by_path\(...\)\), ...\)"),
    "a masked modifier": (lambda: fl.mask(lambda path: True, fl.weight_decay(0.1)), FormulaError,
                          r"A mask is made of optimizers.*weight_decay\(rate=fallline.by_path\(...\)\)"),
    "a number": (lambda: fl.partition({"x": 0.1}, by_rank), FormulaError, "Got 0.1"),
    "a partition within": (lambda: fl.partition({"x": fl.partition(PARTS, by_rank)}, by_rank), FormulaError,
                           "cannot have a partition in it: one partition with all parts does the same"),
    "a function for a part": (lambda: fl.partition({"x": lambda g: g}, by_rank), FormulaError, "each a chain: part"),
    "nothing for a mask": (lambda: fl.mask(lambda path: True, None), TypeError, "an optimizer for the leaves that are"),
    "options of a part": (lambda: fl.partition({"x": fl.SGD(engine="native")}, by_rank), FormulaError,
                          r"engine='native' of SGD is for the whole partition: give it to partition\(...\)"),
    "an engine that is none": (lambda: fl.partition(PARTS, by_rank, engine="gpu"), ValueError, "engine of partition"),
    "one name for all": (lambda: fl.partition(PARTS, "x"), TypeError, "function of the leaf's path, or a tree"),
    "a label of no argument": (lambda: fl.partition(PARTS, lambda: "x"), TypeError, r"of path and shape, under that"),
    "a label whose shape has another name": (lambda: fl.partition(PARTS, lambda path, s: "x"), TypeError,
                                             r"of path and shape, under that name. Got .*\(path, s\)"),
    "a label of three": (lambda: fl.partition(PARTS, lambda path, shape, dtype: "x"), TypeError, "dtype"),
    "an unknown name in a tree": (lambda: fl.partition(PARTS, {"a": "x", "b": "z"}), ValueError,
                                  "must name the part of each leaf: 'x', 'y'. Got 'z' for b"),
    "an unknown name": (lambda: fl.partition(PARTS, lambda path: "z").step(a_tree(0), a_tree(0)), ValueError,
                        "must name the part of each leaf: 'x', 'y'. Got 'z' for a"),
    "a label of another structure": (lambda: fl.partition(PARTS, {"a": "x"}).step(a_tree(0), a_tree(0)), ValueError,
                                     r"structure of the parameters .*\('a', 'b'\)"),
    "a mask of names": (lambda: fl.mask(lambda path: "x", fl.SGD()).step(1.0, 1.0), TypeError, "must be True"),
    "a mask turned round": (lambda: fl.mask(fl.SGD(), lambda path: True), (TypeError, FormulaError), "Got"),
    "no parameters": (lambda: fl.partition({"x": fl.chain(fl.l2(0.1), fl.SGD()), "y": fl.SGD()}, lambda path: "y")
                      .update(a_tree(0)), TypeError, "needs the parameters"),
    "a first gradient of None": (lambda: fl.partition(PARTS, lambda path: "x").update({"a": None}), ValueError,
                                 "cannot know a leaf whose gradient is None"),
    "no average": (lambda: fl.partition(PARTS, by_rank).averaged, AttributeError, "keeps no average"),
}  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_no_partition_is_refused_with_what_to_write_instead(wrong):
    call, kind, message = WRONG[wrong]
    with pytest.raises(kind, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_optimizers_are_lent_and_left_alone():
    own = fl.Momentum(0.5)
    opt, w = fl.partition({"x": own, "y": own}, {"a": "x", "b": "y"}), a_tree(0)
    opt.step(w, a_tree(1))
    opt.parts["x"].lr = 0.1
    assert (own.t, own.lr, opt.parts["y"].lr) == (0, 0.5, 0.5)
    own.step(1.0, 1.0)
