"""`fallline.torch` beside torch.optim: the same parameters, keys and files, and runs that go from one to the other."""

from __future__ import annotations

import copy
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fallline as fl
from needed import need
from of_torch import bytes_of, far, net, through_a_file, train

NAMES = [name for name in fl.dialects.torch.__all__ if name != "Muon"]  # that one is for matrices
CASES = {
    **{name: (name, {}) for name in NAMES},
    "SGD with momentum": ("SGD", {"momentum": 0.9, "dampening": 0.1, "weight_decay": 0.1}),
    "SGD ahead": ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "maximize": True}),
    "Adam with the largest": ("Adam", {"amsgrad": True, "weight_decay": 0.1, "betas": (0.8, 0.9)}),
    "AdamW with the largest": ("AdamW", {"amsgrad": True, "maximize": True}),
    "RMSprop centered": ("RMSprop", {"centered": True, "momentum": 0.5}),
    "Adagrad that falls": ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.1}),
    "NAdam decoupled": ("NAdam", {"decoupled_weight_decay": True, "weight_decay": 0.1}),
    "RAdam with decay": ("RAdam", {"weight_decay": 0.1}),
}
every_case = pytest.mark.parametrize(("name", "how"), CASES.values(), ids=CASES)
# Of the way that parameters go in 12 steps: torch's NAdam has a product, and its ASGD a rate, in float32. Adadelta's
# first steps are √eps times a sign, so that where gradients nearly vanish their rounding shows.
GOOD_TO = {"NAdam": 1e-6, "ASGD": 1e-7, "Adadelta": 1e-5}


def both(name, how, seed=0):
    """A model with torch's optimizer and one like it with ours."""
    torch, ours, theirs = need("torch"), net(seed), net(seed)
    return (theirs, getattr(torch.optim, name)(theirs.parameters(), **how),
            ours, getattr(fl.torch, name)(ours.parameters(), **how))  # fmt: skip


def near(name, model, other, start):
    assert far(model, other) <= GOOD_TO.get(name, 1e-10) * max(far(model, start), 1e-3)


@every_case
def test_it_steps_as_torch_does(name, how):
    theirs, t, ours, o = both(name, how)
    train(theirs, t, 12)
    train(ours, o, 12)
    near(name, ours, theirs, net())
    for group, own in zip(t.param_groups, o.param_groups):
        assert {key: value for key, value in group.items() if key != "params"} == {
            key: own[key] for key in group if key != "params"}
    for p, q in zip(t.state, o.state):
        its = {key for key, value in t.state[p].items() if value is not None}
        assert its - {"mu"} <= {*o.state[q]}
        for key in its & {"step"}:
            assert t.state[p][key] == o.state[q][key]


@every_case
@pytest.mark.parametrize("order", ["torch, then ours", "ours, then torch", "ours twice"])
def test_a_run_goes_on_from_the_others_file(name, how, order):
    first, then = {"torch, then ours": ("torch.optim", "ours"), "ours, then torch": ("ours", "torch.optim"),
                   "ours twice": ("ours", "ours")}[order]
    torch = need("torch")
    made = {"torch.optim": getattr(torch.optim, name), "ours": getattr(fl.torch, name)}
    model = net()
    opt = made[first](model.parameters(), **how)
    train(model, opt, 6)
    weights, state = through_a_file(model.state_dict(), opt.state_dict())
    again = net(1)
    again.load_state_dict(weights)
    other = made[then](again.parameters(), **how)
    other.load_state_dict(state)
    train(model, opt, 6, first=6)
    train(again, other, 6, first=6)
    if order == "ours twice":
        assert bytes_of(again) == bytes_of(model)
    else:
        near(name, again, model, net())


@pytest.mark.parametrize("name", NAMES)
def test_the_signature_and_the_keys_of_groups_are_torchs(name):
    torch = need("torch")
    theirs, ours = (inspect.signature(getattr(module, name)).parameters for module in (torch.optim, fl.torch))
    own = {"engine", "nonfinite", "threads", "state_dir"}
    assert [(key, p.default) for key, p in theirs.items()] == [
        (key, ours[key].default) for key in theirs]
    flags = {"foreach", "fused", "capturable", "differentiable", "maximize", "decoupled_weight_decay"}
    assert {*ours} - {*theirs} <= own | flags
    t, o = both(name, {})[1::2]
    assert {*t.defaults} <= {*o.defaults}


GROUPS = [{"lr": 0.02}, {"weight_decay": 0.1, "betas": (0.8, 0.9)}, {"amsgrad": True}, {"maximize": True}]


def grouped(model, k=4):
    return [{"params": [p], **how} for p, how in zip(model.parameters(), GROUPS[:k])]


@pytest.mark.parametrize("make", [
    lambda torch, o: torch.optim.lr_scheduler.OneCycleLR(o, 0.05, total_steps=20),
    lambda torch, o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20),
    lambda torch, o: torch.optim.lr_scheduler.CyclicLR(o, 1e-3, 1e-2, step_size_up=4, cycle_momentum=True),
    lambda torch, o: torch.optim.lr_scheduler.SequentialLR(o, [
        torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=5), torch.optim.lr_scheduler.ExponentialLR(o, 0.9)], [5]),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:The epoch parameter in `scheduler.step")  # within torch's SequentialLR
def test_groups_with_settings_and_flags_of_their_own_follow_torchs_schedulers(make):
    torch = need("torch")
    theirs, ours = net(), net()
    t, o = torch.optim.Adam(grouped(theirs), lr=0.01), fl.torch.Adam(grouped(ours), lr=0.01)
    train(theirs, t, 20, make(torch, t))
    train(ours, o, 20, make(torch, o))
    assert far(theirs, ours) < 1e-11
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0)
    for _ in range(3):
        plateau.step(1.0)
    assert o.param_groups[0]["lr"] < 0.02


def test_one_norm_is_that_of_all_groups_and_one_step_is_one_native_call(monkeypatch):
    torch = need("torch")
    model, w = net(), None
    opt = fl.torch.Optimizer(grouped_by_rate(model), fl.chain(fl.clip_norm(0.1), fl.SGD(1.0)))
    plain = [p.detach().clone() for p in model.parameters()]
    train(model, opt, 1)
    norm = torch.sqrt(sum((p.grad**2).sum() for p in model.parameters()))
    for p, before, rate in zip(model.parameters(), plain, (1.0, 1.0, 0.5, 0.5)):
        w = before - rate * p.grad * (0.1 / norm)
        torch.testing.assert_close(p.detach(), w, rtol=1e-12, atol=1e-12)
    from fallline._step.plan import Plan

    train(model, opt, 2)
    runs, run = [], Plan.run
    monkeypatch.setattr(Plan, "run", lambda self: runs.append(1) or run(self))
    train(model, opt, 3)
    assert len(runs) <= 3


def grouped_by_rate(model):
    params = list(model.parameters())
    return [{"params": params[:2]}, {"params": params[2:], "lr": 0.5}]


def test_a_tensor_may_be_the_rate():
    torch = need("torch")
    theirs, ours = net(), net()
    rate = torch.tensor(0.01, dtype=torch.float64)
    t, o = torch.optim.Adam(theirs.parameters(), lr=0.01), fl.torch.Adam(ours.parameters(), lr=rate)
    train(theirs, t, 3)
    train(ours, o, 3)
    t.param_groups[0]["lr"] = 0.5
    rate.fill_(0.5)
    train(theirs, t, 3, first=3)
    train(ours, o, 3, first=3)
    assert far(theirs, ours) < 1e-12


def test_deep_copies_go_their_own_way_with_the_same_bits():
    model = net()
    opt = fl.torch.AdamW(model.parameters(), lr=0.01)
    for steps in (0, 3):
        train(model, opt, steps)
        again, other = copy.deepcopy((model, opt))
        train(model, opt, 4)
        train(again, other, 4)
        assert bytes_of(again) == bytes_of(model)
        assert all(p is not q for p, q in zip(opt.state, other.state))


@pytest.mark.slow
def test_every_configuration_and_every_error_of_torchs_own_tests_is_ours():
    need("torch")
    need("expecttest")  # which torch's tests import
    script = Path(__file__).parents[1] / "tools" / "torch_database.py"
    done = subprocess.run([sys.executable, "-W", "ignore", script], capture_output=True, text=True, check=False)
    assert done.stdout == ""
    assert re.fullmatch(r"\d{3} configurations and \d{2,3} errors", done.stderr.strip().splitlines()[-1])
