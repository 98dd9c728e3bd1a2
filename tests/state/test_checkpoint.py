"""Checkpoints: one file, whole or not there, from which a run goes on to the bit."""

from __future__ import annotations

import collections
import copy
import functools
import os

import numpy as np
import pytest

import fallline as fl
from fallline._optimizer.keeping import save
from fallline._state.checkpoint import load as read_contents
from fallline._state.file import CODES
from needed import need
from places import TOOLS
from support import (
    RECIPES,
    a_tree,
    by_rank,
    every_engine,
    every_recipe,
    everything_of,
    frozen,
    gauged,
    halving,
    run_alone,
    same_bits,
    signed_average,
    stepped,
    walk,
)

Point = collections.namedtuple("Point", "x y")
NEEDED = {
    "own rule": {"rules": [signed_average]},
    "numbers": {"rules": [gauged]},
    "schedule": {"lr": halving},
    "tree": {"lr": {"a": halving, "b": 0.0}},
    "partition": {"label": by_rank},
    "around a partition": {"label": by_rank},
}


# ---- a run goes on ---------------------------------------------------------------------------------------------------


@every_recipe
@every_engine
def test_a_run_saved_at_any_step_goes_on_to_the_bit(recipe, engine, path):
    whole, w = RECIPES[recipe](engine=engine), a_tree(100)
    for cut in range(5):
        whole.save(path, w)
        again, v = fl.load(path, **NEEDED.get(recipe, {}))
        same, u = RECIPES[recipe](engine=engine), None
        u = same.load(path)
        assert (type(again), repr(again)) == (type(whole), repr(whole))
        twin, x = copy.deepcopy(whole), copy.deepcopy(w)
        walk(twin, x, range(cut, 6))
        for resumed, y in ((again, v), (same, u)):
            assert everything_of(resumed) == everything_of(whole)
            assert same_bits(y, w)
            walk(resumed, y, range(cut, 6))
            assert same_bits(y, x)
            assert everything_of(resumed) == everything_of(twin)
        walk(whole, w, [cut])


def test_leaves_of_several_dtypes_and_short_steps_go_on_to_the_bit(path):
    w = {"a": np.linspace(-1, 1, 7), "b": np.linspace(-2, 2, 5, dtype=np.float32), "c": [np.zeros((0, 2)), np.ones(())],
         "half": np.linspace(-1, 1, 9).astype(np.float16),
         "brain": np.linspace(-1, 1, 5).astype(need("ml_dtypes").bfloat16)}
    opt = fl.Nadam(0.1)
    for _ in range(6):
        opt.save(path, w)
        again, v = fl.load(path)
        twin, u = copy.deepcopy(opt), copy.deepcopy(w)
        for _ in range(4):
            again.step(v, {**v, "b": v["b"] * v["b"]})
            twin.step(u, {**u, "b": u["b"] * u["b"]})
        assert same_bits(v, u)
        assert everything_of(again) == everything_of(twin)
        opt.step(w, {**w, "b": w["b"] * w["b"]})


@pytest.mark.parametrize("options", [{}, {"engine": "reference", "nonfinite": "skip", "threads": 2}])
def test_options_come_back(options, path):
    opt = fl.chain(fl.clip_value(1.0), fl.clip_value(0.5), fl.Adam(), fl.weight_decay(lr=0.5), **options)
    opt.save(path)
    again = fl.load(path)
    assert repr(again) == repr(opt)
    assert everything_of(again) == everything_of(opt)


def test_rules_that_share_a_name_are_told_apart_by_what_they_compute(path):
    rules = [fl.before(lambda g: g + g), fl.before(lambda g: g * 3), fl.rule(lambda g, *, lr=0.1: -lr * g)]
    opt = fl.chain(*rules)
    opt.save(path)
    for order in (rules, rules[::-1]):
        assert fl.load(path, rules=order).update(1.0) == opt.fresh().update(1.0)


def test_state_in_files_is_saved_and_loaded_into(path, tmp_path):
    opt, w = stepped(state_dir=tmp_path)
    opt.save(path, w)
    again, v = fl.load(path)
    assert again.state_dir is None
    other = fl.Adam(state_dir=tmp_path)
    other.load(path)
    for each, x in ((opt, w), (again, v), (other, copy.deepcopy(w))):
        walk(each, x, range(4, 7))
        assert same_bits(x, w)
        assert everything_of(each) == everything_of(opt)


def test_a_file_without_parameters_gives_the_optimizer_alone(path):
    opt, _ = stepped()
    opt.save(path)
    assert isinstance(fl.load(path), fl.Adam)
    assert fl.Adam().load(path) is None
    for params in (0.0, np.zeros(0), {}, []):  # but whatever is given is there
        fl.SGD().save(path, params)
        assert same_bits(fl.load(path)[1], params)


def test_a_stepped_optimizer_takes_over_a_file(path):
    opt, w = stepped()
    opt.save(path, w)
    other, _ = stepped(steps=6)
    v = other.load(path)
    walk(opt, w, range(4, 8))
    walk(other, v, range(4, 8))
    assert same_bits(v, w)


def test_what_is_loaded_is_saved_again_as_the_same_bytes(path):
    opt, w = stepped("chain")
    opt.save(path, w)
    first = path.read_bytes()
    again, v = fl.load(path)  # whose state still waits
    again.save(path, v)
    assert path.read_bytes() == first


def test_a_process_of_its_own_goes_on(path):
    opt, w = stepped("chain")
    opt.save(path, w)
    walk(opt, w, [4])
    script = ("import sys, fallline as fl; sys.path[:0] = sys.argv[2:]; from support import walk; "
              "opt, w = fl.load(sys.argv[1]); walk(opt, w, [4]); opt.save(sys.argv[1], w)")
    run_alone(script, path, *TOOLS)
    _, v = fl.load(path)
    assert same_bits(v, w)


# ---- rules and functions ---------------------------------------------------------------------------------------------


def altered_average():
    @fl.rule
    def signed_average(g, m=0, *, lr: fl.NonNegative = 1e-2, beta: fl.Fraction = 0.9):
        m = beta * m + (1 - beta) * g
        return lr * fl.sign(m), m
    return signed_average


@functools.cache
def a_class_of_ones_own():
    class Signed(fl.Optimizer):
        rule = signed_average
    return Signed


def test_rules_and_classes_of_ones_own_are_given_again(path):
    Signed = a_class_of_ones_own()
    Signed(0.5).save(path)
    assert repr(fl.load(path, rules=[Signed])) == "Signed(lr=0.5, beta=0.9)"
    fl.chain(Signed(0.5), fl.weight_decay()).save(path)
    assert repr(fl.load(path, rules=[signed_average])) == "chain(Signed(lr=0.5, beta=0.9), weight_decay(rate=0.01))"


REFUSED = {
    "a rule that is not given": (lambda: fl.Optimizer(signed_average), {}, "needs the rule 'signed_average'.*rules="),
    "another formula": (lambda: fl.Optimizer(signed_average), {"rules": [altered_average()]},
                        "made by a formula signed_average of fingerprint 4cfa.*here is"),
    "a class that is not given": (lambda: a_class_of_ones_own()(), {"rules": [signed_average]}, "the class Signed"),
    "a function that is not given": (lambda: fl.SGD(halving), {}, "lr of SGD was 'halving' .*give it again"),
    "another function": (lambda: fl.SGD(halving), {"lr": abs}, "lr of SGD was 'halving' .*is 'abs' here"),
    "a number where a function was": (lambda: fl.SGD(halving), {"lr": 0.1}, "lr of SGD was 'halving' .*is 0.1 here"),
    "a function where none was": (lambda: fl.SGD(0.5), {"lr": halving}, "lr of SGD was 0.5 .*is restored"),
    "a number given": (lambda: fl.SGD(0.5), {"lr": 0.5}, "lr of SGD was 0.5 .*is restored"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_what_was_saved_is_refused_with_both_named(case, path):
    make, arguments, message = REFUSED[case]
    make().save(path)
    with pytest.raises(fl.CheckpointError, match=message):
        fl.load(path, **arguments)


def test_arguments_that_make_no_sense_are_the_callers_mistake(path):
    fl.SGD().save(path)
    with pytest.raises(TypeError, match="SGD has no hyper-parameter 'rate'"):
        fl.load(path, rate=0.1)
    for rules in ([halving], halving, fl.schedules.constant(1)):
        with pytest.raises(TypeError, match=r"rules must be a list of rules .* Got (halving|constant)"):
            fl.load(path, rules=rules)
    assert fl.load(path, rules=fl.rules.sgd).t == fl.load(path, rules=fl.SGD).t == 0


@every_engine
def test_another_optimizers_file_is_refused_by_name_and_changes_nothing(engine, path):
    fl.Adam().save(path)
    for opt, message in ((fl.SGD(engine=engine), "its rules are adam; those of SGD are sgd"),
                         (stepped("AdaMax", engine=engine)[0], "its rules are adam; those of AdaMax are adamax")):
        before = everything_of(opt)
        with pytest.raises(fl.CheckpointError, match=message):
            opt.load(path)
        assert everything_of(opt) == before
    opt = stepped(engine=engine)[0]
    other = fl.Adam(engine=engine)
    other.step({"a": np.ones(4), "c": 1.0}, {"a": np.ones(4), "c": 1.0})
    other.save(path)
    before = everything_of(opt)
    with pytest.raises(fl.CheckpointError, match=r"leaves of the state .*missing 'b'; unexpected 'c'"):
        opt.load(path)
    assert everything_of(opt) == before


# ---- parameters ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CODES)
def test_every_dtype_travels_to_the_bit(name, path):
    dtype = np.dtype(getattr(need("ml_dtypes"), name)) if name == "bfloat16" else np.dtype(name)
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 2 if name == "bool" else 256, 24 * dtype.itemsize, np.uint8)
    x = raw.view(dtype).reshape(4, 6)
    arrays = {"x": x, "strided": x[::2, ::-1], "fortran": np.asfortranarray(x), "0-d": np.array(x[0, 0]),
              "empty": x[:0], "a/b": x[0], "__metadata__": x[1], "digest": x[2]}  # fmt: skip
    params = None if name in ("int64", "int32", "uint8", "bool") else {**arrays, "0": [x], 0: (x[0, 0], None)}
    save((opt := fl.SGD())._stepper, opt._built(), path, params, arrays, {"best": 1.5})
    contents = read_contents(path)
    assert frozen(contents.arrays) == frozen(arrays)
    assert contents.extra == {"best": 1.5}
    assert frozen(contents.params) == frozen(params)
    assert params is None or all(type(v) is type(params[k]) for k, v in contents.params.items())


def test_other_byte_orders_and_subclasses_come_back_as_plain_arrays(path):
    fl.SGD().save(path, [np.arange(3.0).astype(">f8"), np.arange(3.0).view(np.memmap), np.float32(0.1), 0.1])
    _, (swapped, sub, scalar, number) = fl.load(path)
    assert same_bits([swapped, sub], [np.arange(3.0)] * 2)
    assert (type(swapped), type(sub), type(scalar), type(number)) == (np.ndarray, np.ndarray, np.float32, float)


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_arrays_of_other_libraries_come_back_as_numpy_arrays(library, path):
    xp = need("jax.numpy" if library == "jax" else "torch")
    ml_dtypes = need("ml_dtypes")
    w = {"w": xp.asarray(np.linspace(-1, 1, 5, dtype=np.float32))}
    opt = fl.Adam()
    w = opt.step(w, w)
    half = {"half": xp.asarray(np.ones(3, np.float32)).astype(xp.bfloat16)} if library == "jax" else {
        "half": xp.ones(3, dtype=xp.bfloat16, requires_grad=True)}
    opt.save(path, w)
    again, v = fl.load(path)
    assert same_bits(v["w"], np.asarray(w["w"]))
    assert everything_of(again) == everything_of(opt)
    fl.SGD().save(path, half)
    assert fl.load(path)[1]["half"].dtype == ml_dtypes.bfloat16


@pytest.mark.parametrize(("params", "error", "message"), [
    ({"a": np.ones(4)}, ValueError, "missing 'b'"),
    ({"a": np.ones(4), "b": np.ones(3)}, ValueError, "'b' must have the shape"),
    ({"a": np.ones(4), "b": np.ones((2, 3), np.float32)}, TypeError, "'b' must be float64"),
])  # fmt: skip
def test_parameters_that_are_not_the_optimizers_are_refused(params, error, message, path):
    opt, w = stepped()
    opt.save(path, w)
    before = path.read_bytes()
    with pytest.raises(error, match=message):
        opt.save(path, params)
    assert path.read_bytes() == before


@pytest.mark.parametrize(("params", "message"), [
    ([np.ones(3, int)], "Got int64"),
    ({1.5: 1.0}, "made of dicts .with strings or integers as keys., lists and tuples.*Got dict"),
    ({"p": Point(1.0, "text")}, "parameter 'p/1' must be .*str"),
    (["text"], "str"),
    (np.ma.masked_array([1.0]), "masked"),
])  # fmt: skip
def test_parameters_that_a_file_cannot_hold_are_refused(params, message, path):
    with pytest.raises(TypeError, match=message):
        fl.SGD().save(path, params)
    assert os.listdir(path.parent) == []
