"""What cannot be done right is refused by name, before anything has changed."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from bad_calls import BAD_GRADIENT_SHAPES, BAD_GRADIENTS, BAD_PARAMETERS, OTHER_PARAMETERS, read_only
from needed import need
from support import (
    BY_SIGN,
    OF_THE_LEAF,
    a_tree,
    assert_refused,
    build,
    every_engine,
    every_optimiser,
    every_optimiser_or_precision,
    frozen,
    picture,
    same_bits,
    update,
    walk_together,
)


def same_shapes(w):
    """A good gradient for whatever parameters came."""
    if isinstance(w, dict):
        return {key: same_shapes(leaf) for key, leaf in w.items()}
    if isinstance(w, list):
        return [same_shapes(leaf) for leaf in w]
    return 1.0 if isinstance(w, float) else np.ones_like(w)


@every_optimiser
@every_engine
def test_parameters_that_cannot_be_stepped_are_refused(name, engine):
    opt, twin, w, v = build(name, engine), build(name, engine), a_tree(0), a_tree(0)
    for seeds in ((1, 2), (3,)):
        for spoil, message in BAD_PARAMETERS.values():
            bad = spoil(w)
            before = frozen(bad)
            assert_refused(lambda bad=bad: opt.step(bad, a_tree(10)), message, opt, w)
            assert frozen(bad) == before
        walk_together(opt, w, twin, v, seeds)


@every_optimiser
@every_engine
def test_gradients_of_the_wrong_kind_are_refused(name, engine):
    opt, twin, w, v = build(name, engine), build(name, engine), a_tree(0), a_tree(0)
    for seeds in ((1, 2), (3,)):
        for kind, (spoil, message) in BAD_GRADIENTS.items():
            bad = spoil(a_tree(10))
            assert_refused(lambda bad=bad: opt.step(w, bad), message, opt, w)
            assert_refused(lambda bad=bad: opt.update(bad, params=w), message, opt, w)
            if kind != "complex numbers" or opt.t:  # a first update knows no other dtype than the gradient's
                assert_refused(lambda bad=bad: update(opt, bad, w), message, opt, w)
        walk_together(opt, w, twin, v, seeds)


@every_optimiser
@every_engine
def test_gradients_that_do_not_fit_are_refused(name, engine):
    opt, twin, w, v = build(name, engine), build(name, engine), a_tree(0), a_tree(0)
    for seeds in ((1, 2), (3,)):
        for spoil, message in BAD_GRADIENT_SHAPES.values():
            bad = spoil(a_tree(10))
            assert_refused(lambda bad=bad: opt.step(w, bad), message, opt, w)
            if opt.t:  # a first update takes a tree of any shape
                assert_refused(lambda bad=bad: update(opt, bad, w), message, opt, w)
        walk_together(opt, w, twin, v, seeds)


@every_optimiser
@every_engine
def test_parameters_unlike_those_before_are_refused(name, engine):
    opt, twin, w, v = build(name, engine), build(name, engine), a_tree(0), a_tree(0)
    walk_together(opt, w, twin, v, (1, 2))
    for change, message in OTHER_PARAMETERS.values():
        other = change(w)
        before = frozen(other)
        assert_refused(lambda other=other: opt.step(other, same_shapes(other)), message, opt, w)
        assert frozen(other) == before
    walk_together(opt, w, twin, v, (3,))


@every_optimiser
@every_engine
@pytest.mark.parametrize("steps", [0, 2])
def test_the_same_array_twice_is_refused(name, engine, steps):
    opt = build(name, engine)
    apart, g = [np.ones(3), np.ones(3)], [np.ones(3), np.full(3, 2.0)]
    for _ in range(steps):
        opt.step(apart, g)
    w = np.ones(3)
    before = picture(opt, w)
    with pytest.raises(ValueError, match=r"\b0\b.*\b1\b"):
        opt.step([w, w], g)
    assert picture(opt, w) == before


@every_engine
@pytest.mark.parametrize(
    "views",
    [
        lambda base: [base[:5], base[4:9]],
        lambda base: [base[4:9], base[:5]],
        lambda base: [base[:5], base[4::-1]],
        lambda base: [base[:9:2], base[1:6]],
        lambda base: [base[:5], base[2:3]],
    ],
)
def test_views_that_share_an_element_are_refused(engine, views):
    base = np.random.default_rng(0).standard_normal(10)
    before, opt = base.copy(), fl.SGD(engine=engine)
    w = views(base)
    with pytest.raises(ValueError, match=r"overlap|memory"):
        opt.step(w, [np.ones_like(leaf) for leaf in w])
    np.testing.assert_array_equal(base, before)
    assert opt.t == 0


@every_engine
@pytest.mark.parametrize("several", [iter, lambda w: (leaf for leaf in w), lambda w: dict(enumerate(w)).values(), set])
def test_what_gives_its_leaves_but_is_no_tree_is_refused_with_the_remedy(engine, several):
    w, opt = [1.0, 2.0], fl.SGD(engine=engine)
    for call in (lambda: opt.step(several(w), w), lambda: opt.update(several(w))):
        with pytest.raises(TypeError, match=r"is no tree: pass a list, list\(\.\.\.\)"):
            call()
    if several is not set:
        with pytest.raises(ValueError, match=r"is no tree: pass a list, list\(\.\.\.\)"):
            opt.step(w, several(w))
    assert opt.t == 0


@every_engine
def test_a_torch_module_is_refused_with_what_to_pass_in_its_place(engine):
    model = need("torch").nn.Linear(2, 1)
    w = {name: p.detach() for name, p in model.named_parameters()}
    g = {name: p * 0 for name, p in w.items()}
    for opt in (fl.SGD(engine=engine), fl.mask(lambda path: True, fl.SGD(), engine=engine)):
        for _ in range(2):  # before the first step, and after
            for call, remedy in ((lambda opt=opt: opt.step(model, g), r"pass dict\(model\.named_parameters\(\)\)"),
                                 (lambda opt=opt: opt.step(w, model), r"pass \{name: p\.grad for name, p in model\.n")):
                with pytest.raises((TypeError, ValueError), match=f"Linear(,|. It) .*is no tree: {remedy}"):
                    call()
            opt.step(w, g)


@every_engine
def test_an_array_that_overlaps_itself_is_refused(engine):
    w = np.lib.stride_tricks.as_strided(np.ones(3), shape=(4, 3), strides=(0, 8))
    opt = fl.SGD(engine=engine)
    with pytest.raises(ValueError, match=r"overlap|memory|itself"):
        opt.step(w, np.ones((4, 3)))
    np.testing.assert_array_equal(w, np.ones((4, 3)))
    assert opt.t == 0


@every_engine
def test_a_gradient_that_overflows_when_it_is_cast_counts_as_not_finite(engine):
    opt = fl.Adam(engine=engine)
    w = a_tree(0, np.float32)
    before = picture(opt, w)
    with pytest.raises(fl.NonFiniteGradient, match=r"\bb\b"):
        opt.step(w, {"a": np.ones(4), "b": np.full((2, 3), 1e300)})
    assert picture(opt, w) == before


@pytest.mark.needs("a formula of coordinates")
@every_optimiser_or_precision
@every_engine
def test_propagate_lets_a_non_finite_gradient_through_at_its_own_coordinate(name, engine, dtype):
    """And at all others of a leaf of which the rule takes the norm."""
    for bad in (np.nan, np.inf, -np.inf):
        opt, twin = build(name, engine, nonfinite="propagate"), build(name, engine)
        w, v = np.ones(5, dtype), np.ones(5, dtype)
        poisoned = np.array([1.0, -1.0, bad, 2.0, 0.0], dtype)
        with np.errstate(all="ignore"):
            opt.step(w, poisoned)
        twin.step(v, np.where(np.isfinite(poisoned), poisoned, np.zeros_like(poisoned)))
        assert opt.t == 1
        assert opt.skipped == 0
        assert not np.isfinite(w[2]) or (name in BY_SIGN and np.isinf(bad))
        assert same_bits(np.delete(w, 2), np.delete(v, 2)) or name in OF_THE_LEAF


def test_a_non_finite_gradient_error_is_a_value_error_of_the_library():
    assert issubclass(fl.NonFiniteGradient, ValueError)


BAD_OUTPUTS = {
    "another shape": (lambda: np.zeros(4), r"out.*\(3,\).*\(4,\)"),
    "integers": (lambda: np.zeros(3, np.int64), r"out.*int64"),
    "another precision": (lambda: np.zeros(3, np.float32), r"out.*float32"),
    "a read-only array": (lambda: read_only(np.zeros(3)), r"out.*read-only"),
    "another structure": (lambda: [np.zeros(3)], r"out.*structure"),
}


@every_optimiser
@every_engine
def test_outputs_that_cannot_take_the_increment_are_refused(name, engine):
    opt = build(name, engine)
    for _ in range(2):
        for make, message in BAD_OUTPUTS.values():
            bad = make()
            assert_refused(lambda bad=bad: update(opt, np.ones(3), out=bad), message, opt, bad)
        update(opt, np.ones(3))


@every_optimiser
@every_engine
def test_the_state_cannot_be_used_as_an_output(name, engine):
    opt = build(name, engine)
    update(opt, np.ones(3))
    for tree in opt.state.values():
        assert_refused(lambda tree=tree: update(opt, np.ones(3), out=tree), "out", opt, tree)


@every_engine
def test_a_chain_that_reads_the_parameters_asks_for_them(engine):
    opt = fl.Optimizer(fl.chain(fl.Adam(), fl.weight_decay(0.01)), engine=engine)
    with pytest.raises((TypeError, ValueError), match="params"):
        opt.update(np.ones(3))
    assert opt.t == 0
    opt.update(np.ones(3), params=np.ones(3))
    assert opt.t == 1


def test_update_takes_the_parameters_and_the_output_by_name_alone():
    """In optax's order, update(grads, state, params), the increment would overwrite the parameters."""
    chained = fl.chain(fl.Adam(), fl.weight_decay())
    for opt in (fl.SGD(), chained, fl.mask(lambda path: True, fl.SGD()), fl.accumulate(2, chained)):
        for _ in range(3):  # the short way too
            w, g = {"W": np.ones(2)}, {"W": np.array([5.0, 5.0])}
            for misplaced in ((w,), (None, w), (w, w), (None,)):
                assert_refused(lambda opt=opt, g=g, misplaced=misplaced: opt.update(g, *misplaced),
                               r"update takes params and out by name: opt\.update\(grads, params=w\)", opt, w)
            opt.update(g, params=w)
