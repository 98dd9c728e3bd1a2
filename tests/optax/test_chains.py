"""What fallline has of its own goes into a transformation: chains, partitions, settings by leaf, whole leaves."""

from __future__ import annotations

import numpy as np
import pytest

import fallline as fl
from needed import need
from of_optax import differing, jitted, leaves, on_device, walked
from support import gauged, halving, signed_average

jax, optax, transform = need("jax"), need("optax"), need("fallline.optax").transform
jnp = jax.numpy

SHAPES = {"W": (3, 2), "b": (2,)}
RATES = {"W": np.linspace(0.1, 0.2, 6, dtype=np.float32).reshape(3, 2), "b": 0.01}


@fl.rule(whole_leaf=True)
def by_row(g, x, t, m=0, row=fl.shaped("eps", lambda shape: shape[:1]), *, lr: fl.NonNegative = 0.1, eps=1e-3):
    """Divides each row by a norm of its own."""
    m = 0.5 * m + 0.5 * g
    row = 0.5 * row + 0.5 * np.square(g).reshape(len(g), -1).mean(1)
    return -lr * m / t / np.sqrt(row).reshape(-1, *[1] * (g.ndim - 1)) - 0.01 * x, m, row


def by_rank(path, shape):
    return "weights" if len(shape) == 2 else "rest"


MAKERS = {
    "chain": lambda **o: fl.chain(fl.clip_norm(0.5), fl.Adam(0.1), fl.weight_decay(0.1), fl.average(0.9), **o),
    "by leaf": lambda **o: fl.Adam(lr={"W": 0.1, "b": 0.01}, **o),
    "by coordinate": lambda **o: fl.Adam(lr=RATES, **o),
    "by path": lambda **o: fl.chain(fl.Adam(0.1), fl.weight_decay(fl.by_path(lambda p: 0.1 if p == "W" else 0.0)), **o),
    "schedules by leaf": lambda **o: fl.Adam(lr={"W": lambda t: 0.1 / (1 + t), "b": 0.1}, **o),
    "numbers": lambda **o: fl.Optimizer(gauged, **o),
    "own rule": lambda **o: fl.Optimizer(signed_average, **o),
    "partition": lambda **o: fl.partition({"weights": fl.Nadam(0.1), "rest": MAKERS["chain"]()}, by_rank, **o),
    "around": lambda **o: fl.chain(fl.clip_norm(0.5), MAKERS["partition"](), fl.weight_decay(0.1), **o),
    "mask": lambda **o: fl.mask({"W": True, "b": False}, fl.Adam(0.1), **o),
    "accumulate": lambda **o: fl.accumulate(3, MAKERS["chain"](), **o),
    "accumulate around": lambda **o: fl.accumulate(2, MAKERS["partition"](), **o),
    "accumulate within": lambda **o: fl.partition({"weights": fl.accumulate(2, fl.Adam(0.1)), "rest": fl.SGD(0.1)},
                                                  by_rank, **o),
    "accumulate, weighted": lambda **o: fl.accumulate(2, fl.Adam(0.1), weight=0.5, **o),
    "whole leaves": lambda **o: fl.chain(fl.clip_norm(0.5), by_row(lr=0.1), fl.weight_decay(0.1), **o),
    "Muon": lambda **o: fl.Muon(0.1, **o),
}
SUMMING = ("chain", "numbers", "partition", "around", "accumulate", "accumulate around", "whole leaves")


@pytest.mark.parametrize("recipe", MAKERS)
def test_it_comes_to_where_the_native_engine_does(recipe):
    make = MAKERS[recipe]
    params, grads = leaves(0, shapes=SHAPES), [leaves(seed, shapes=SHAPES) for seed in range(1, 11)]
    found, state = walked(transform(make()), params, grads)
    opt, expected = make(engine="native"), {path: array.copy() for path, array in params.items()}
    for g in grads:
        opt.step(expected, g)
    if recipe in SUMMING:
        for path in params:
            np.testing.assert_allclose(found[path], expected[path], rtol=2e-6, atol=2e-7)
    else:
        assert differing(found, expected) == 0
    assert {int(own.count) for own in (state.values() if isinstance(state, dict) else [state])} >= {opt.t}


@pytest.mark.parametrize("recipe", ["accumulate around", "whole leaves", "numbers"])
def test_it_runs_in_a_scan_with_its_start_and_for_many_at_once(recipe):
    tx, steps = transform(MAKERS[recipe]()), 6
    starts = [leaves(seed, shapes=SHAPES) for seed in (0, 50)]
    each = [[leaves(100 * run + seed, shapes=SHAPES) for seed in range(steps)] for run in range(2)]

    def run(params, grads):
        def step(carry, g):
            params, state = carry
            updates, state = tx.update(g, state, params)
            return (optax.apply_updates(params, updates), state), None
        return jax.lax.scan(step, (params, tx.init(params)), grads)[0]

    stack = lambda *arrays: jnp.stack(arrays)  # noqa: E731
    stacked = [jax.tree.map(stack, *grads) for grads in each]
    many = jax.jit(jax.vmap(run))(jax.tree.map(stack, *starts), jax.tree.map(stack, *stacked))
    for k in range(2):
        alone = walked(tx, starts[k], each[k])
        for one, two in zip(jax.tree.leaves(many), jax.tree.leaves(alone), strict=True):
            np.testing.assert_allclose(one[k], two, rtol=1e-5, atol=1e-6)


def test_many_rates_at_once_are_as_each_alone():
    """But for the last digit: of what all rates share, as √v, XLA makes the inverse once, and multiplies by it."""
    params, g, rates = leaves(0, shapes=SHAPES), leaves(1, shapes=SHAPES), jnp.array([0.001, 0.1, 0.5])

    def first(lr):
        tx = transform(fl.AdamW(), lr=lr)
        return tx.update(g, tx.init(params), params)[0]

    many = jax.jit(jax.vmap(first))(rates)
    alone = jax.tree.map(lambda *each: jnp.stack(each), *map(jax.jit(first), rates))
    for path in SHAPES:
        np.testing.assert_allclose(many[path], alone[path], rtol=2 * np.finfo(np.float32).eps)


@pytest.mark.slow
def test_large_leaves_that_numpy_steps_do_not_block_each_other():
    shape = (2048, 2048)
    tx = transform(fl.Optimizer(by_row, lr=0.1))
    params = {name: jnp.ones(shape) for name in "abc"}

    @jax.jit
    def run(params):
        def step(carry, _):
            params, state = carry
            updates, state = tx.update(jax.tree.map(lambda p: p + 1, params), state, params)
            return (optax.apply_updates(params, updates), state), None
        return jax.lax.scan(step, (params, tx.init(params)), None, length=5)[0]

    found, state = run(params)
    assert int(state.count) == 5
    assert np.isfinite(found["c"]).all()


def test_numbers_that_are_state_keep_their_digits_over_a_thousand_steps():
    """Prodigy's estimate and Schedule-Free's weights, each in two numbers of float32."""
    for opt, native in ((fl.Prodigy(), fl.Prodigy()), (fl.ScheduleFreeSGD(0.1), fl.ScheduleFreeSGD(0.1))):
        x = np.array([3.0, -2.0, 1.0], np.float32)
        step, carry = jitted(transform(opt)), on_device((x, None))
        carry = carry[0], transform(opt).init(carry[0])
        for _ in range(1000):
            g = x * np.float32(0.5)
            native.step(x, g)
            carry = step(carry, g)
        np.testing.assert_allclose(carry[0], x, rtol=1e-5, atol=1e-7)
        for slot, own in carry[1].numbers.items():
            np.testing.assert_allclose(np.float64(own).sum(), native.state[slot], rtol=1e-9)


class TestSettings:
    """Hyper-parameters given to a transformation are in the place of the optimizer's."""

    params = leaves(0, shapes=SHAPES)
    g = leaves(1, shapes=SHAPES)

    def first(self, opt, **settings):
        tx = transform(opt, **settings)
        return tx.update(self.g, tx.init(self.params), self.params)[0]

    @pytest.mark.parametrize("lr", [0.5, {"W": 0.5, "b": 0.1}, lambda t: 0.5 / (1 + t), RATES,
                                    {"W": halving, "b": 0.5}], ids=["number", "tree", "schedule", "arrays", "both"])
    def test_numbers_trees_schedules_and_arrays(self, lr):
        expected = fl.Adam(lr=lr).update(self.g)
        assert differing(self.first(fl.Adam(0.3), lr=lr), expected) == 0
        assert differing(jax.jit(lambda: self.first(fl.Adam(0.3), lr=lr))(), expected) == 0

    @pytest.mark.parametrize("lr", [0.5, {"W": 0.5, "b": 0.1}, RATES], ids=["number", "tree", "arrays"])
    def test_they_may_be_traced(self, lr):
        found = jax.jit(lambda lr: self.first(fl.Adam(0.3), lr=lr))(lr)
        expected = fl.Adam(lr=jax.tree.map(lambda v: np.float64(np.float32(v)), lr)).update(self.g)
        for path in SHAPES:
            np.testing.assert_allclose(found[path], expected[path], rtol=1e-6)

    def test_by_the_name_of_their_rule_too(self):
        chain = fl.chain(fl.Adam(0.1), fl.weight_decay(0.1))
        expected = fl.chain(fl.Adam(0.1), fl.weight_decay(0.5)).update(self.g, params=self.params)

        @jax.jit
        def first(rate, g, params):
            tx = transform(chain, **{"weight_decay.rate": rate})
            return tx.update(g, tx.init(params), params)[0]

        assert differing(first(0.5, self.g, self.params), expected) == 0

    def test_of_a_part(self):
        opt = fl.partition({"weights": fl.Adam(0.1), "rest": fl.SGD(0.1)}, by_rank)
        one = jax.jit(lambda lr: self.first(opt, **{"rest.lr": lr}))(0.5)
        np.testing.assert_allclose(one["b"], -0.5 * self.g["b"])
        assert differing(one["W"], fl.Adam(0.1).update(self.g["W"])) == 0

    def test_the_optimizer_stays_as_it_is(self):
        opt, w = fl.Adam(0.1), self.params
        opt.update(w)
        self.first(opt, lr=0.5)
        assert (opt.lr, opt.t) == (0.1, 1)
        assert int(transform(opt).init(w).count) == 0
