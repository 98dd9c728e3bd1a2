"""What `descend` says of a run is true, whatever its optimizer; new settings count when a run is made longer."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fallline as fl
from fallline.schedules import cosine
from methods import PROBLEMS, bowl, methods, uphill
from support import drawn, frozen


class CutError(Exception):
    """What a run of the tests is cut by."""


def expected_end(values, points, counts, climbs, target, patience, scheduled):
    """How many values a run has by the words of its docstring, and why it ends there."""
    best, waited, stood = None, 0, 0
    for n, value in enumerate(values):
        height = value if climbs else -value
        if target is not None and height >= (target if climbs else -target):
            return n + 1, "TARGET"
        moved, stepped = n == 0 or points[n] != points[n - 1], n == 0 or counts[n] != counts[n - 1]
        stood = 0 if moved else stood + stepped
        if best is None or height > best:
            best, waited = height, 0
        else:
            waited += moved
        at_rest = not scheduled and patience is not None and stood >= max(patience, 2)
        if patience is not None and (waited >= patience or at_rest):
            return n + 1, "PATIENCE"
    return len(values), "STEPS"


@pytest.mark.slow
@drawn(150)
@given(
    method=methods(),
    problem=st.sampled_from(list(PROBLEMS)),
    start=st.tuples(st.floats(-2, 2), st.floats(-2, 2)),
    target=st.one_of(st.none(), st.sampled_from([-0.5, 0.1, 1e6])),
    patience=st.one_of(st.none(), st.integers(1, 6)),
    cut=st.integers(0, 40),
    batches=st.booleans(),
)
def test_descend_ends_where_it_says_and_again_after_a_cut(
    method, problem, start, target, patience, cut, batches, tmp_path_factory
):
    opt, climbs = method
    fun = uphill(PROBLEMS[problem]) if climbs else PROBLEMS[problem]
    noisy = {"batches": lambda t: math.sin(t)} if batches else {}

    def value_and_grad(w, *batch):
        value, grad = fun(w)
        return value + 0.1 * sum(batch), grad

    def run(opt, **options):
        with np.errstate(all="ignore"):
            return fl.descend(value_and_grad, np.array(start), opt, steps=40, progress=False, **noisy, **options)

    seen, walker = [], opt.fresh()
    whole = run(walker, callback=lambda point: seen.append((point.value, frozen(point.params), walker.t)))
    if whole.status.name == "DIVERGED":
        return
    end, why = expected_end(*zip(*seen), climbs, target, patience, any(map(callable, opt.hyper.values())))
    stopped = run(opt.fresh(), target=target, patience=patience)
    assert (len(stopped.values), stopped.status.name) == (end, why)
    assert frozen(stopped.values) == frozen(whole.values[:end])

    def cuts(point):
        if point.t >= cut:
            raise CutError

    file = tmp_path_factory.mktemp("run") / "run"
    options = {"target": target, "patience": patience, "checkpoint": file}
    with contextlib.suppress(CutError):
        run(opt.fresh(), callback=cuts, **options)
    again = run(opt.fresh(), **options)
    assert frozen([again.params, again.values]) == frozen([stopped.params, stopped.values])
    assert (again.status, again.message, again.t) == (stopped.status, stopped.message, stopped.t)


def made_longer(first, second, file, steps=10, callback=None):
    def value_and_grad(w):
        return bowl(w)

    fl.descend(value_and_grad, np.full(2, 3.0), first, steps=5, progress=False, checkpoint=file, callback=callback)
    return fl.descend(value_and_grad, np.full(2, 3.0), second, steps=steps, progress=False, checkpoint=file)


def own(t):
    return 0.1 / (1 + t)


SETTINGS = [
    (0.1, 0.5), (cosine(0.1, steps=5), cosine(0.1, steps=10)), (0.1, cosine(0.1, steps=10)),
    (cosine(0.1, steps=5), 0.1), (own, 0.1), (0.1, own), (own, lambda t: 0.3),
    (np.full(2, 0.1), np.full(2, 0.2)), (np.full(2, 0.1), 0.2),
]  # fmt: skip
KINDS = {
    "SGD": lambda lr: fl.SGD(lr),
    "chain": lambda lr: fl.chain(fl.clip_norm(3.0), fl.Momentum(lr), fl.weight_decay(0.1)),
    "partition": lambda lr: fl.partition({"all": fl.Momentum(lr), "none": fl.SGD()}, lambda path: "all"),
    "accumulate": lambda lr: fl.accumulate(2, fl.Momentum(lr)),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pair", SETTINGS, ids=range(len(SETTINGS)))
def test_new_settings_count_when_a_run_is_made_longer(kind, pair, tmp_path):
    first, second = map(KINDS[kind], pair)
    found = made_longer(first, second, tmp_path / "run")
    # the same by hand: five steps, then the settings, then five more
    opt = KINDS[kind](pair[0])
    begun = fl.descend(bowl, np.full(2, 3.0), opt, steps=5, progress=False)
    opt.hyper["all.lr" if kind == "partition" else "lr"] = pair[1]
    expected = fl.descend(bowl, begun.params, opt, steps=5, progress=False)
    assert frozen([found.params, found.values[5:]]) == frozen([expected.params, expected.values])
    assert repr(second) == repr(opt)
    # and once more, as settings that were given before are none that are new
    again = KINDS[kind](pair[1])
    assert frozen(fl.descend(bowl, np.full(2, 3.0), again, steps=10, progress=False,
                             checkpoint=tmp_path / "run").params) == frozen(found.params)


def test_what_was_set_within_a_run_is_the_files(tmp_path):
    first = fl.SGD(0.1)

    def halve(point):
        if point.t == 2:
            first.lr = 0.05

    second = fl.SGD(0.1)
    made_longer(first, second, tmp_path / "run", callback=halve)
    assert second.lr == 0.05
    third = fl.SGD(0.2)
    made_longer(fl.SGD(0.1), third, tmp_path / "run", steps=12)
    assert third.lr == 0.2


def test_a_new_setting_that_only_starts_the_state_is_refused(tmp_path):
    with pytest.raises(fl.CheckpointError, match=r"adam\.eps can only be chosen at its start: give 1e-08, as before"):
        made_longer(fl.Adam(0.1), fl.Adam(0.1, eps=0.0), tmp_path / "run")
    with pytest.raises(fl.CheckpointError, match=r"accumulate\.n can only be chosen at its start: give 2\.0, as"):
        made_longer(fl.accumulate(2, fl.SGD()), fl.accumulate(4, fl.SGD()), tmp_path / "other")
