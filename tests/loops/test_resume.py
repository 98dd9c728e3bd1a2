"""A run of `descend` with a checkpoint goes on where it was, with the bits of one that was never ended."""

from __future__ import annotations

import os
import signal
import sys
import time

import numpy as np
import pytest

import fallline as fl
from fallline._loops.stopping import Status
from needed import need
from places import ROOT
from support import end_of, every_engine, every_optimiser, frozen, memory_of, run_alone, start_alone

pytestmark = pytest.mark.slow


class Cut(Exception):  # noqa: N818
    """What ends a run of the test."""


def start():
    return {"W": np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(2, 3), "b": np.ones(2)}


def value_and_grad(params, batch):
    grads = {"W": params["W"] - np.float32(batch), "b": 2 * params["b"]}
    return float((grads["W"] ** 2).sum() + (params["b"] ** 2).sum()), grads


def go(opt, file=None, steps=7, params=None, **how):
    return fl.descend(value_and_grad, start() if params is None else params, opt, steps=steps, batches=[0.1, -0.2, 0.3],
                      progress=False, checkpoint=file, **how)  # fmt: skip


def seen(run, opt):
    return frozen(run.params), run.values.tobytes(), run.t, run.status, run.message, memory_of(opt)


def cut_at(step):
    def callback(point):
        if point.t == step:
            raise Cut
    return callback


@every_optimiser
@every_engine
def test_a_run_cut_at_any_step_goes_on_with_the_same_bits(name, engine, tmp_path):
    opt = fl.OPTIMIZERS[name](engine=engine)
    expected = seen(go(opt), opt)
    for step in range(7):
        file = tmp_path / f"{step}.safetensors"
        with pytest.raises(Cut):
            go(fl.OPTIMIZERS[name](engine=engine), file, callback=cut_at(step))
        again = fl.OPTIMIZERS[name](engine=engine)
        assert seen(go(again, file), again) == expected
        once_more = fl.OPTIMIZERS[name](engine=engine)  # a run that is through is told again
        assert seen(go(once_more, file), once_more) == expected


def test_every_way_to_stop_is_told_again(tmp_path):
    for k, (how, status) in enumerate([({"target": 1.3}, "TARGET"), ({"patience": 2}, "PATIENCE"), ({}, "STEPS")]):
        first, again = fl.SGD(0.5), fl.SGD(0.5)
        told = [seen(go(opt, tmp_path / str(k), steps=40, **how), opt) for opt in (first, again)]
        assert told[0] == told[1]
        assert told[0][3] is Status[status]


@pytest.mark.parametrize("how", [{"patience": 5}, {"target": 0.9}, {"patience": 9, "target": 1e-9}], ids=str)
@pytest.mark.parametrize("every", [1, 3])
def test_the_best_value_and_the_patience_outlive_a_cut(how, every, tmp_path):
    def walk(opt, file=None, callback=None):
        return go(opt, file, 60, callback=callback, checkpoint_every=every if file else None, **how)

    opt = fl.Momentum(0.3)
    expected, steps = seen(walk(opt), opt), opt.t
    assert 3 < steps < 60
    for step in range(1, steps, 2):
        file = tmp_path / f"{step}"
        with pytest.raises(Cut):
            walk(fl.Momentum(0.3), file, cut_at(step))
        again = fl.Momentum(0.3)
        assert seen(walk(again, file), again) == expected


def test_a_run_that_is_through_goes_further_if_it_is_given_more_steps(tmp_path):
    expected_opt, opt = fl.Adam(0.1), fl.Adam(0.1)
    expected = seen(go(expected_opt, steps=9), expected_opt)
    go(opt, tmp_path / "run", steps=4)
    fresh = fl.Adam(0.1)
    assert seen(go(fresh, tmp_path / "run", steps=9), fresh) == expected
    assert go(fl.Adam(0.1), tmp_path / "run", steps=3).message.startswith("took all 9 steps: raise steps")


def test_an_optimizer_that_has_stepped_before_the_run_keeps_its_count(tmp_path):
    def stepped():
        opt, w = fl.Adam(lambda t: 0.1 / (1 + t)), start()
        for _ in range(3):
            opt.step(w, {"W": np.ones((2, 3), np.float32), "b": np.ones(2)})
        return opt

    opt, again = stepped(), fl.Adam(lambda t: 0.1 / (1 + t))
    expected = seen(go(opt), opt)
    with pytest.raises(Cut):
        go(stepped(), tmp_path / "run", callback=cut_at(3 + 4))
    again._stepper.holders[""].settings["adam.lr"].__qualname__ = opt.lr.__qualname__
    assert seen(go(again, tmp_path / "run"), again) == expected


def test_skipped_steps_are_counted_as_taken(tmp_path):
    def sometimes(params, batch):
        value, grads = value_and_grad(params, batch)
        return value, {**grads, "b": grads["b"] * (np.nan if batch == 0.3 else 1)}

    def walk(opt, file, callback=None):
        return fl.descend(sometimes, start(), opt, steps=8, batches=lambda t: 0.1 * (t + 1), progress=False,
                          checkpoint=file, callback=callback)  # fmt: skip

    opts = [fl.SGD(0.1, nonfinite="skip") for _ in range(3)]
    expected = seen(walk(opts[0], None), opts[0])
    with pytest.raises(Cut):
        walk(opts[1], tmp_path / "run", cut_at(5))
    assert seen(walk(opts[2], tmp_path / "run"), opts[2]) == expected


@pytest.mark.parametrize("library", ["torch", "jax", "floats"])
def test_parameters_come_back_as_the_kind_that_they_are(library, tmp_path):
    if library == "torch":
        torch = need("torch")
        make = lambda: {"a": torch.nn.Parameter(torch.ones(3)), "b": torch.ones(2, dtype=torch.float64)}  # noqa: E731
    elif library == "jax":
        jax = need("jax")
        make = lambda: {"a": jax.numpy.ones(3), "b": jax.numpy.full(2, 2.0)}  # noqa: E731
    else:
        make = lambda: {"a": 1.0, "b": np.float32(2.0)}  # noqa: E731

    def evaluate(params):
        detached = {k: p.detach() if hasattr(p, "detach") else p for k, p in params.items()}
        return sum(float((p * p).sum()) if hasattr(p, "sum") else float(p * p) for p in detached.values()), detached

    def walk(opt, file, callback=None):
        return fl.descend(evaluate, make(), opt, steps=6, progress=False, checkpoint=file, callback=callback)

    expected = walk(fl.Adam(0.1), None)
    with pytest.raises(Cut):
        walk(fl.Adam(0.1), tmp_path / "run", cut_at(3))
    found = walk(fl.Adam(0.1), tmp_path / "run")
    for name, p in expected.params.items():
        assert type(found.params[name]) is type(p)
        assert getattr(found.params[name], "requires_grad", None) == getattr(p, "requires_grad", None)
        same = [np.asarray(evaluate(run.params)[1][name]).tobytes() for run in (found, expected)]
        assert same[0] == same[1]
    assert found.values.tobytes() == expected.values.tobytes()


KILLS = """
import sys

sys.path.insert(0, sys.argv[1])
from reliability.kills import survive

print(survive(10, seed=int(sys.argv[2])), "runs came through 10 kills, seed", sys.argv[2])
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_no_run_is_lost_to_kills_at_random_moments_and_none_differs():
    print(run_alone(KILLS, str(ROOT), int(time.time())))


LEFT = """
import sys
import numpy as np, fallline as fl

def value_and_grad(w):
    if sys.argv[2] == "signalled" and opt.t == 5:
        print("ready", flush=True)
        while True:
            sum(range(1000))
    return float(w @ w), 2 * w

opt = fl.Momentum(0.01)
run = fl.descend(value_and_grad, np.arange(5.0), opt, steps=9, progress=False, checkpoint=sys.argv[1] or None,
                 checkpoint_every=1000 if sys.argv[1] else None)
print(run.t, run.params.tobytes().hex(), run.values.tobytes().hex())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_asked_to_leave_saves_before_it_does(number, tmp_path):
    file = str(tmp_path / "run")
    process = start_alone(LEFT, file, "signalled")
    assert process.stdout.readline().strip() == "ready"
    process.send_signal(number)
    _, errors = end_of(process)
    assert process.returncode == (-number if number == signal.SIGTERM else process.returncode) != 0
    assert ("KeyboardInterrupt" in errors) == (number == signal.SIGINT)
    opt = fl.Momentum()
    opt.load(file)
    assert opt.t == 5
    assert run_alone(LEFT, file, "on its own") == run_alone(LEFT, "", "on its own")


def test_what_cannot_be_written_is_an_error_at_once_and_the_old_file_stays(tmp_path):
    calls = []

    def counted(params, batch):
        calls.append(1)
        return value_and_grad(params, batch)

    for wrong in (tmp_path / "no folder" / "run", tmp_path):
        with pytest.raises(fl.CheckpointError, match=str(wrong)):
            fl.descend(counted, start(), fl.SGD(), steps=3, batches=[0.0], progress=False, checkpoint=wrong)
    assert not calls
    assert run_alone("""
import resource, sys
import numpy as np, fallline as fl

def value_and_grad(w):
    if opt.t == 4:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
    return float(w @ w), 2 * w

opt = fl.SGD(0.01)
try:
    fl.descend(value_and_grad, np.ones(1000), opt, steps=9, progress=False, checkpoint=sys.argv[1], checkpoint_every=2)
except fl.CheckpointError as error:
    again = fl.SGD()
    again.load(sys.argv[1])
    print(opt.t, again.t, "File too large" in str(error))
""", str(tmp_path / "run")).split() == ["4", "2", "True"]
    assert os.listdir(tmp_path) == ["run"]


def test_files_of_something_else_are_refused_and_change_nothing(tmp_path):
    file = tmp_path / "run"
    go(fl.Adam(), file, steps=3)
    fl.Adam().save(tmp_path / "no run")
    (tmp_path / "text").write_text("hello")
    opt = fl.Adam()
    for path, params, message in (
        (tmp_path / "no run", None, "holds no run of descend"),
        (tmp_path / "text", None, "no checkpoint"),
        (file, {"W": np.ones((2, 3), np.float32)}, "parameter 'b' is float64 of shape"),
        (file, {"W": np.ones((2, 3)), "b": np.ones(2)}, "parameter 'W' is float32.*here it is float64"),
        (file, {"W": np.ones((3, 2), np.float32), "b": np.ones(2)}, "parameter 'W'"),
        (file, np.ones(3), "of another run"),
    ):  # fmt: skip
        with pytest.raises(fl.CheckpointError, match=message):
            go(opt, path, params=params)
        assert opt.t == 0
    with pytest.raises(fl.CheckpointError, match=r"sgd|SGD"):
        go(fl.SGD(), file)
    with pytest.raises(TypeError, match="checkpoint_every of descend needs a file"):
        go(opt, checkpoint_every=2)
    for wrong, error in ((0, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match="checkpoint_every of descend must be a whole number ≥ 1"):
            go(opt, file, checkpoint_every=wrong)
    with pytest.raises(TypeError, match="batches of descend must be a sequence or a function"):
        fl.descend(value_and_grad, start(), opt, steps=3, batches=iter([0.1]), checkpoint=file)


def test_a_run_that_had_finished_is_as_it_was_when_it_ended(tmp_path):
    torch = need("torch")

    def run():
        opt = fl.chain(fl.Adam(0.1), fl.average(0.5))
        params = {"W": torch.ones(2, 2), "b": torch.ones(2, dtype=torch.bfloat16)}
        with torch.no_grad():
            found = fl.descend(lambda w: (float(w["W"].sum()), w), params, opt, steps=3, progress=False,
                               checkpoint=tmp_path / "run")
        return found, opt

    (first, opt), (again, other) = run(), run()
    assert (again.t, other.t) == (first.t, opt.t) == (3, 3)
    for path, average in opt.averaged.items():
        assert type(other.averaged[path]) is torch.Tensor
        assert torch.equal(other.averaged[path], average)
        assert torch.equal(again.params[path], first.params[path])
    assert other.state["m"]["W"].tobytes() == opt.state["m"]["W"].tobytes()
