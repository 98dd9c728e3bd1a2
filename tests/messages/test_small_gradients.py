"""Whoever uses the form in which a second moment starts at ε, where it hardly moves, is told once."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

import fallline as fl
from needed import need
from support import NAMES, WITH_EPS_ZERO, WITHOUT_DECAY, a_tree, same_bits

SILENT = [name for name in NAMES if name not in WITH_EPS_ZERO]


def said(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return [str(warning.message) for warning in caught]


def steps(opt, sizes, leaves=1):
    w = [np.ones(3) for _ in range(leaves)]
    return lambda: [opt.step(w, [np.array([size, -size / 2, 0.0])] * leaves) for size in sizes]


@pytest.mark.parametrize("name", WITH_EPS_ZERO)
@pytest.mark.parametrize("engine", ["native", "reference", "eager"])
def test_one_warning_names_what_to_set_at_the_first_step_and_none_at_those_behind(name, engine):
    cls = fl.OPTIMIZERS[name]
    root = float(np.sqrt(cls.rule.hyper["eps"].default))
    told = said(steps(cls(engine=engine), [root / 2, root / 2, root / 2]))
    assert len(told) == 1
    assert told[0].startswith(f"All gradients at the first step are below √eps of {name}, {root:.3g}; the largest is "
                              f"{root / 2:.3g}.")  # fmt: skip
    assert f"so that {name} may hardly move. Give it eps=0," in told[0]
    assert told[0].endswith(" or scale the loss up.")
    assert said(steps(cls(engine=engine), [root * 2, root / 2])) == []
    assert said(steps(cls(engine=engine), [0.0, 0.0])) == []
    assert said(steps(cls(engine=engine, eps=0.0), [root / 2])) == []


@pytest.mark.parametrize("name", SILENT)
def test_rules_that_are_not_damped_say_nothing(name):
    assert said(steps(fl.OPTIMIZERS[name](), [1e-12])) == []


@pytest.mark.parametrize("name", [name for name in WITH_EPS_ZERO if name not in ("AdaBelief", "LAMB", "Prodigy")])
def test_what_is_said_is_true(name):
    """At a hundredth of √ε a walk is a tenth as long as without ε, or less: but for AdaBelief, whose ε is 1e-16, and
    for LAMB and Prodigy, which find the length of a step by themselves."""
    cls, lengths = fl.OPTIMIZERS[name], []
    for given in ({}, {"eps": 0.0}):
        opt, w = cls(**given, **WITHOUT_DECAY[name]), np.ones(1)
        said(lambda opt=opt, w=w: [opt.step(w, np.full(1, 1e-6)) for _ in range(100)])
        lengths.append(abs(w.item() - 1))
    assert lengths[0] < 0.1 * lengths[1]


def test_all_gradients_of_a_tree_must_be_small():
    w, tiny = a_tree(0), {"a": np.full(4, 1e-9), "b": np.full((2, 3), 1e-9)}
    assert len(said(lambda: fl.Adam().step(w, tiny))) == 1
    assert said(lambda: fl.Adam().step(w, {**tiny, "b": np.eye(2, 3)})) == []
    assert len(said(lambda: fl.Adam().step(w, {**tiny, "b": None}))) == 1
    assert len(said(lambda: fl.Adam(eps={"a": 1e-8, "b": 1e-12}).step(w, tiny))) == 1
    assert said(lambda: fl.Adam(eps={"a": 1e-8, "b": 0.0}).step(w, tiny)) == []
    assert len(said(lambda: fl.Adam(eps=fl.by_path(lambda path: 1e-8)).update(tiny))) == 1
    assert said(lambda: fl.Adam().step([], [])) == []


def test_wrappers_say_it_of_the_rule_within_and_once():
    w, g = {"a": np.ones(2), "b": np.ones(2)}, {"a": np.full(2, 1e-9), "b": np.full(2, 1e-9)}
    label = {"a": "x", "b": "y"}
    made = {
        "chain": lambda: fl.chain(fl.clip_norm(), fl.Adam(), fl.average()),
        "accumulate": lambda: fl.accumulate(3, fl.Adam()),
        "mask": lambda: fl.mask({"a": True, "b": False}, fl.Adam()),
        "partition": lambda: fl.partition({"x": fl.SGD(), "y": fl.Adam()}, label),
        "two of a kind": lambda: fl.partition({"x": fl.Adam(), "y": fl.Adam(0.1)}, label),
        "around a partition": lambda: fl.chain(fl.clip_norm(), fl.partition({"x": fl.SGD(), "y": fl.Adam()}, label)),
    }  # fmt: skip
    for make in made.values():
        opt = make()
        (told,) = said(lambda opt=opt: [opt.step(w, g) for _ in range(7)])
        assert "below √eps of Adam, 0.0001; the largest is 1e-09" in told
    large = {**g, "a": np.ones(2)}  # which is not the part's, but one of all gradients
    assert said(lambda: made["partition"]().step(w, large)) == []
    assert said(lambda: fl.chain(fl.l2(0.1), fl.Adam()).step(w, g)) == []  # to Adam the gradient is 0.1


def test_of_gathered_gradients_the_mean_counts():
    w, tiny = np.ones(2), np.full(2, 1e-9)
    opt = fl.accumulate(3, fl.Adam())
    assert said(lambda: [opt.step(w, g) for g in (tiny, np.ones(2), np.ones(2))]) == []
    opt = fl.accumulate(3, fl.Adam())
    assert len(said(lambda: [opt.step(w, g) for g in (np.ones(2), -np.ones(2), tiny)])) == 1


@pytest.mark.parametrize("library", ["torch", "jax"])
def test_arrays_of_other_libraries_are_looked_at_too(library):
    made = need("torch").tensor if library == "torch" else need("jax.numpy").asarray
    for size, times in ((1e-9, 1), (1.0, 0)):
        assert len(said(lambda size=size: fl.Adam().step(made([1.0, 2.0]), made([size, -size])))) == times
    assert len(said(lambda: fl.Adam().step(1.0, 1e-9))) == 1
    assert len(said(lambda: fl.Adam().step(np.ones(2, complex), np.array([1e-9j, 0])))) == 1


def test_it_is_of_an_optimizers_first_step_and_not_of_one_that_goes_on(path):
    g = np.full(2, 1e-9)
    opt, w = fl.Adam(), np.ones(2)
    opt.step(w, np.ones(2))
    opt.save(path)
    other = fl.Adam()
    other.load(path)
    assert said(lambda: other.step(w, g)) == []
    assert len(said(lambda: opt.fresh().step(w, g))) == 1
    opt.reset()
    assert len(said(lambda: opt.step(w, g))) == 1


def test_it_points_at_the_line_of_the_caller_and_as_an_error_it_changes_nothing():
    opt, w, g = fl.Adam(), np.ones(2), np.full(2, 1e-9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fl.Adam().step(w, g)
        fl.minimize(lambda x: 1e-9 * float(x @ x), [1.0], jac=lambda x: 2e-9 * x, method=fl.Adam(), tol=0.0,
                    options={"maxiter": 2})  # fmt: skip
    assert [warning.filename for warning in caught] == [__file__] * 2
    w, before = np.ones(2), np.ones(2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="All gradients"):
            opt.step(w, g)
    assert same_bits(w, before)
    assert (opt.t, dict(opt.state)) == (0, {})
