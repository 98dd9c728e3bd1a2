"""A call that raises has changed nothing, whatever was called before it, on the long way and on the short one."""

from __future__ import annotations

import copy
import functools
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fallline as fl
from bad_calls import BAD_GRADIENT_SHAPES, BAD_GRADIENTS, BAD_PARAMETERS, OTHER_PARAMETERS, read_only
from of_state import with_array, with_leaf, without
from support import (
    RATE_STARTS,
    WITH_RATE,
    a_tree,
    every_engine,
    every_optimiser,
    everything_of,
    frozen,
    memory_of,
    picture,
    same_bits,
    update,
)

SEQUENCES = int(os.environ.get("FALLLINE_SEQUENCES", 12))  # for each rule, engine and kind of rate


class StopError(Exception):
    """What a function of the test raises."""


@dataclass
class Rate:
    """A schedule that can be made to go astray."""

    broken: object = False

    def __call__(self, t):
        if self.broken == "raises":
            raise StopError
        return {"negative": -1.0, "NaN": np.nan, "text": "fast"}.get(self.broken, 0.1 / (1 + t))


class Unreadable:
    """A gradient whose library raises when it is read."""

    dtype, shape, ndim = np.dtype("float64"), (2, 3), 2

    def __array__(self, dtype=None, copy=None):
        raise StopError

    __array_namespace__ = None


def stop(path):
    raise StopError


def make(name, engine, rate):
    return fl.OPTIMIZERS[name](engine=engine, **({"lr": rate} if rate and name in WITH_RATE else {}))


@functools.cache
def a_file(name, schedule):
    """The bytes of a file that fits: of an optimizer of this kind after three steps."""
    opt, w = make(name, "auto", Rate() if schedule else None), a_tree(0)
    for seed in range(3):
        opt.step(w, a_tree(seed))
    with tempfile.TemporaryDirectory() as folder:
        opt.save(Path(folder, "good"), w)
        return Path(folder, "good").read_bytes()


class Watched:
    """An optimizer that is also asked for what it must refuse, and its twin, which is not."""

    def __init__(self, name, engine, schedule, folder):
        self.name, self.folder = name, Path(folder)
        self.rate = Rate() if schedule else None
        self.opt, self.twin = make(name, engine, self.rate), make(name, engine, Rate() if schedule else None)
        self.w, self.v = a_tree(0), a_tree(0)

    def both(self, call):
        """A good call of optimizer and parameters: both must answer alike."""
        ours, theirs = call(self.opt, self.w), call(self.twin, self.v)
        assert same_bits(ours, theirs)
        assert same_bits(self.w, self.v)
        assert memory_of(self.opt) == memory_of(self.twin)

    def refused(self, call, *brought):
        """A bad call: it must raise, and leave everything, what it brought included, as it was."""
        before = picture(self.opt, self.w), everything_of(self.opt), frozen(brought)
        with pytest.raises((TypeError, ValueError, StopError, fl.FalllineError, OSError)):
            call()
        assert (picture(self.opt, self.w), everything_of(self.opt), frozen(brought)) == before

    @property
    def file(self):
        return a_file(self.name, self.rate is not None)

    def written(self, content):
        path = self.folder / "file"
        path.write_bytes(content)
        return path


# ---- good calls, which both get: of (optimizer, parameters, seed, all of it) -----------------------------------------


def without_b(tree):
    return {**tree, "b": None}


def stepped_by_itself(opt, w):
    return opt.step(w, w)


def written_over_the_gradient(opt, seed):
    g = a_tree(seed)
    return update(opt, g, out=g)


def a_state_from_elsewhere(opt, seed, whole):
    other = make(whole.name, "reference", whole.rate)
    update(other, a_tree(seed))
    opt.load_state_dict(other.state_dict())


def a_setting(opt, seed):
    name = list(opt.hyper)[seed % len(opt.hyper)]
    # what only starts the state is refused later
    starts = any(key.endswith(f".{name}") for key in opt._chain.only_start()) or type(opt).__name__ in RATE_STARTS
    if not starts and not callable(opt.hyper[name]):
        opt.hyper[name] = opt.hyper[name] * 0.9


GOOD = {
    "step": lambda opt, w, seed, whole: opt.step(w, a_tree(seed)),
    "update": lambda opt, w, seed, whole: update(opt, a_tree(seed), w),
    "update, out=": lambda opt, w, seed, whole: written_over_the_gradient(opt, seed),
    "step without a leaf": lambda opt, w, seed, whole: opt.step(w, without_b(a_tree(seed))),
    "step by the parameters themselves": lambda opt, w, seed, whole: stepped_by_itself(opt, w),
    "load_state_dict": lambda opt, w, seed, whole: a_state_from_elsewhere(opt, seed, whole),
    "load": lambda opt, w, seed, whole: opt.load(whole.written(whole.file)),
    "assign a setting": lambda opt, w, seed, whole: a_setting(opt, seed),
    "assign t": lambda opt, w, seed, whole: setattr(opt, "t", seed % 100),
    "reset": lambda opt, w, seed, whole: opt.reset(),
}


def move(whole):
    whole.w, whole.v = copy.deepcopy(whole.w), copy.deepcopy(whole.v)


# ---- calls that must be refused, which the twin does not get ---------------------------------------------------------


BAD_TREES = {  # of (parameters, gradient)
    "an empty tree of gradients": lambda w, g: (w, {}),
    "an empty tree of parameters": lambda w, g: ({}, g),
    "empty trees, not as before": lambda w, g: ({}, {}),
    "None for the parameters": lambda w, g: (None, g),
    "None for the gradients": lambda w, g: (w, None),
    "the same array twice": lambda w, g: ({"a": w["a"], "b": w["a"]}, {"a": g["a"], "b": g["a"]}),
    "a leaf within another": lambda w, g: ({"a": w["b"].ravel()[:4], "b": w["b"]}, g),
    "parameters of zero strides": lambda w, g: ({**w, "a": np.broadcast_to(1.0, 4)}, g),
    "longdouble": lambda w, g: ({**w, "a": w["a"].astype(np.longdouble)}, g),
    "a gradient that cannot be read": lambda w, g: (w, {**g, "b": Unreadable()}),
}
ONLY_AFTER = {"empty trees, not as before"}  # a first step
BAD_OUTS = {
    "read-only": lambda g, out: {**out, "b": read_only(out["b"])},
    "a leaf too few": lambda g, out: {"a": out["a"]},
    "overlapping": lambda g, out: (lambda wide: {"a": wide[:4], "b": wide[1:].reshape(2, 3)})(np.ones(7)),
    "of zero strides": lambda g, out: {**out, "b": np.broadcast_to(1.0, (2, 3))},
    "float32": lambda g, out: {key: leaf.astype(np.float32) for key, leaf in out.items()},
    "numbers": lambda g, out: {**out, "a": 1.0},
    "another shape": lambda g, out: {**out, "a": np.ones(5)},
}
BAD_VALUES = {"out of range": -1.0, "NaN": np.nan, "text": "0.1", "None": None, "a tree with one out of range":
              {"a": 0.5, "b": -1.0}, "a list of another length": [0.5, 0.5, 0.5], "one per coordinate, misshapen":
              np.full(3, 0.5), "a function of the path that raises": fl.by_path(stop)}  # fmt: skip
BEFORE_SHAPES = {"a list of another length", "one per coordinate, misshapen", "a function of the path that raises"}
BAD_COUNTS = {"negative": -1, "a fraction": 0.5, "too large": 2**63, "text": "7", "None": None}
BAD_STATES = {
    "no dict": lambda d: [d],
    "a missing key": lambda d: without(d, "t"),
    "t below 0": lambda d: {**d, "t": -1},
    "t as text": lambda d: {**d, "t": "7"},
    "a later format": lambda d: {**d, "format": 999},
    "another rule": lambda d: {**d, "rules": {"another": "built in"}},
    "no state": lambda d: {**d, "state": None},
    "no leaves": lambda d: {**d, "leaves": 7},
    "a setting out of range": lambda d: {**d, "hyper": dict.fromkeys(d["hyper"], -1.0)},
    "a setting too few": lambda d: {**d, "hyper": {}},
    "a leaf with a count below 0": lambda d: with_leaf(d, "a", t=-1),
    "a leaf too few": lambda d: {**d, "leaves": without(d["leaves"], "b")},
}
BAD_ARRAYS = {"misshapen": lambda a: np.zeros(a.size + 1), "objects": lambda a: np.zeros(a.shape, object),
              "integers": lambda a: np.zeros(a.shape, int), "None": lambda a: None}  # fmt: skip
UNFIT_ARRAYS = {"float32": lambda a: a.astype(np.float32), "byte-swapped": lambda a: a.astype(">f8")}
BAD_FILES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[:-40],
    "a bit flipped in the arrays": lambda content: content[:-50] + bytes([content[-50] ^ 1]) + content[-49:],
    "a bit flipped in the header": lambda content: content[:60] + bytes([content[60] ^ 1]) + content[61:],
    "text": lambda content: b"hello " * 30,
}


def bad_tree(kind, spoil):
    def calls(whole, seed):
        w, g = spoil(copy.deepcopy(whole.w), a_tree(seed))
        if whole.opt._stepper.binding or kind not in ONLY_AFTER:
            yield lambda: whole.opt.step(w, g), w, g
    return calls


def bad_parameters(table):
    def of(kind):
        def calls(whole, seed):
            w, g = table[kind][0](copy.deepcopy(whole.w)), a_tree(seed)
            if table is BAD_PARAMETERS or whole.opt._stepper.binding:
                yield lambda: whole.opt.step(w, g), w, g
        return calls
    return of


def bad_gradients(table):
    def of(kind):
        def calls(whole, seed):
            g = table[kind][0](a_tree(seed))
            yield lambda: whole.opt.step(whole.w, g), g
            yield lambda: whole.opt.update(g, params=whole.w), g
            if whole.opt._stepper.binding:
                yield lambda: update(whole.opt, g, whole.w), g
        return calls
    return of


def bad_out(spoil):
    def calls(whole, seed):
        g = a_tree(seed)
        out = spoil(g, a_tree(seed + 1))
        yield lambda: update(whole.opt, g, whole.w, out=out), g, out
    return calls


def bad_value(kind):
    def calls(whole, seed):
        for name in whole.opt.hyper if whole.opt._stepper.binding or kind not in BEFORE_SHAPES else ():
            yield lambda name=name: whole.opt.hyper.__setitem__(name, BAD_VALUES[kind]), BAD_VALUES[kind]
    return calls


def bad_schedule(kind):
    def calls(whole, seed):
        if whole.rate and callable(whole.opt.hyper.get("lr")):
            g = a_tree(seed)

            def broken(call):
                whole.rate.broken = kind
                try:
                    call()
                finally:
                    whole.rate.broken = False

            yield lambda: broken(lambda: whole.opt.step(whole.w, g)), g
            yield lambda: broken(lambda: update(whole.opt, g, whole.w)), g
    return calls


def bad_state(spoil, needs_leaves=False):
    def calls(whole, seed):
        d = whole.opt.state_dict()
        if whole.opt._stepper.binding is None and not d["state"] and spoil is BAD_STATES["a leaf too few"]:
            return  # nothing says yet that there is another leaf
        if d["leaves"] or not needs_leaves:
            bad = spoil(d)
            yield lambda: whole.opt.load_state_dict(bad), bad
    return calls


def bad_array(spoil, unfit=False):
    def calls(whole, seed):
        d = whole.opt.state_dict()
        for slot in d["state"] if whole.opt._stepper.binding or not unfit else ():
            for path, array in d["state"][slot].items():
                bad = with_array(d, spoil(array), slot, path)
                yield lambda bad=bad: whole.opt.load_state_dict(bad), bad
    return calls


def bad_file(spoil):
    return lambda whole, seed: [(lambda: whole.opt.load(whole.written(spoil(whole.file))),)]


def another_optimizers_file(whole, seed):
    def loading():
        path = whole.folder / "another"
        if not path.exists():
            (fl.SGD() if whole.name != "SGD" else fl.Momentum()).save(path)
        whole.opt.load(path)
    yield (loading,)


def a_file_of_other_leaves(whole, seed):
    def loading():
        path = whole.folder / "other leaves"
        if not path.exists():
            other = make(whole.name, "auto", whole.rate)
            update(other, {"a": np.ones(4), "z": np.ones(2)})
            other.save(path)
        whole.opt.load(path)
    if whole.opt._stepper.binding:
        yield (loading,)


BAD = {
    **{f"step: {kind}": bad_tree(kind, spoil) for kind, spoil in BAD_TREES.items()},
    **{f"parameters: {kind}": bad_parameters(BAD_PARAMETERS)(kind) for kind in BAD_PARAMETERS},
    **{f"other parameters: {kind}": bad_parameters(OTHER_PARAMETERS)(kind) for kind in OTHER_PARAMETERS},
    **{f"gradient: {kind}": bad_gradients(BAD_GRADIENTS)(kind) for kind in BAD_GRADIENTS},
    **{f"gradient: {kind}": bad_gradients(BAD_GRADIENT_SHAPES)(kind) for kind in BAD_GRADIENT_SHAPES},
    **{f"out: {kind}": bad_out(spoil) for kind, spoil in BAD_OUTS.items()},
    **{f"setting: {kind}": bad_value(kind) for kind in BAD_VALUES},
    **{f"t: {kind}": lambda whole, seed, t=t: [(lambda: setattr(whole.opt, "t", t),)] for kind, t in
       BAD_COUNTS.items()},
    **{f"schedule: {kind}": bad_schedule(kind) for kind in ("raises", "negative", "NaN", "text")},
    **{f"state: {kind}": bad_state(spoil, "leaf" in kind) for kind, spoil in BAD_STATES.items()},
    **{f"state array: {kind}": bad_array(spoil) for kind, spoil in BAD_ARRAYS.items()},
    **{f"state array: {kind}": bad_array(spoil, unfit=True) for kind, spoil in UNFIT_ARRAYS.items()},
    **{f"file: {kind}": bad_file(spoil) for kind, spoil in BAD_FILES.items()},
    "file: none": lambda whole, seed: [(lambda: whole.opt.load(whole.folder / "none"),)],
    "file: a folder": lambda whole, seed: [(lambda: whole.opt.load(whole.folder),)],
    "file: another optimizer's": another_optimizers_file,
    "file: of other leaves": a_file_of_other_leaves,
}  # fmt: skip


def act(whole, what, seed):
    """A call by its name; how often something was refused."""
    if what == "move":
        move(whole)
    elif what in GOOD:
        whole.both(lambda opt, w: GOOD[what](opt, w, seed, whole))
    else:
        calls = list(BAD[what](whole, seed))
        for call, *brought in calls:
            whole.refused(call, *brought)
        return len(calls)
    return 0


@every_optimiser
@every_engine
@pytest.mark.parametrize("schedule", [False, True], ids=["numbers", "schedule"])
def test_after_any_sequence_of_good_and_bad_calls_only_the_good_have_happened(name, engine, schedule, tmp_path):
    word = st.one_of(st.just("step"), st.sampled_from([*GOOD, "move"]), st.sampled_from(list(BAD)))

    @settings(max_examples=SEQUENCES, deadline=None)
    @given(st.lists(st.tuples(word, st.integers(0, 2**16)), min_size=1, max_size=16))
    def check(actions):
        with tempfile.TemporaryDirectory(dir=tmp_path) as folder:
            whole = Watched(name, engine, schedule, folder)
            for what, seed in actions:
                act(whole, what, seed)
            act(whole, "step", 0)

    check()


@pytest.mark.slow
@every_optimiser
@pytest.mark.parametrize("engine", ["reference", "native", "eager"])
def test_every_kind_of_bad_call_is_refused_before_the_first_step_and_after_some(name, engine, tmp_path):
    whole = Watched(name, engine, True, tmp_path)
    tally = dict.fromkeys(BAD, 0)
    for warm in (0, 4):
        for seed in range(warm):
            act(whole, "step", seed)
        for seed, what in enumerate(BAD):
            tally[what] += act(whole, what, seed)
            if warm:  # what comes after it goes the short way again
                act(whole, "step", seed)
    never = {what for what in BAD if not tally[what]}
    without_slots = not whole.opt.state
    assert never == {what for what in BAD if (what.startswith("schedule") and not callable(whole.opt.hyper.get("lr")))
                     or (what.startswith("state array") and without_slots)}
