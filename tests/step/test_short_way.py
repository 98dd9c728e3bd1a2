"""The short way of a call like the last one: it must not be possible to tell that it was taken, but by a clock."""

import gc
import subprocess
import sys
import threading
import warnings
import weakref

import numpy as np
import pytest

import fallline as fl
from needed import need
from support import every_engine


def test_gradients_are_not_kept_alive():
    class Watched(np.ndarray):
        pass

    opt, w = fl.Adam(), np.ones(3)
    seen = []
    for _ in range(5):
        g = np.ones(3)
        owner = g.view(Watched)
        view = np.asarray(owner)
        seen.append(weakref.ref(owner))
        opt.step(w, view)
        del g, owner, view
    gc.collect()
    assert not any(ref() is not None for ref in seen)


def test_a_parameter_that_was_resized_in_place_is_noticed():
    w = np.ones(1000)
    opt = fl.SGD(1.0)
    for _ in range(3):
        opt.step(w, np.ones(1000))
    w.resize(10, refcheck=False)
    with pytest.raises(ValueError, match=r"must have the shape \(1000,\)"):
        opt.step(w, np.ones(1000))
    with pytest.raises(ValueError, match=r"must have the shape \(1000,\)"):
        opt.step(w, np.ones(10))


INTERRUPTED = """
import random, signal
import numpy as np, fallline as fl

def on_alarm(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGALRM, on_alarm)
rng, steps, hits = random.Random(0), 0, 0
opt, w, g = fl.SGD(1.0), np.zeros(200_000), np.ones(200_000)
for _ in range(3):
    opt.step(w, g)
while hits < 200:
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 2e-3))
        while True:
            opt.step(w, g)
    except KeyboardInterrupt:
        hits += 1
    assert w[0] == w[-1] == -opt.t, (w[0], w[-1], opt.t)
    assert (w == w[0]).all()
"""


def test_an_interrupt_at_any_moment_of_a_plain_step_leaves_a_whole_number_of_steps():
    subprocess.run([sys.executable, "-c", INTERRUPTED], check=True, timeout=120)


def test_optimizers_may_step_from_several_threads_at_once():
    n, results, errors = 200_000, {}, []
    gradients = [np.random.default_rng(k).standard_normal(n) for k in range(5)]

    def work(k):
        try:
            opt, w = fl.Adam(0.1), np.ones(n)
            for g in gradients:
                opt.step(w, g)
            results[k] = w.tobytes()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(set(results.values())) == 1
    assert len(results) == 8


def outcomes(call):
    """What a call gives with either engine: its result, or what it raised, in words."""
    found = []
    for engine in ("reference", "native"):
        try:
            found.append(call(engine))
        except Exception as error:
            found.append(repr(error))
    return found


def steps_of_a_refused_shape(opt, w):
    with pytest.raises(ValueError, match="must have the shape"):
        opt.step(w, [np.ones(3), np.ones(3)])


def steps_of_no_number(opt, w):
    opt.step(w, [np.full(3, np.nan), np.ones(2)])


def steps_of_moved_parameters(opt, w):
    opt.step([a.copy() for a in w], [np.ones(3), np.ones(2)])


def steps_of_another_dtype(opt, w):
    opt.step(w, [np.ones(3, np.float32), np.ones(2)])


def steps_without_a_gradient(opt, w):
    opt.step(w, [np.ones(3), None])


@pytest.mark.parametrize("call", [steps_of_a_refused_shape, steps_of_no_number, steps_of_moved_parameters,
                                  steps_of_another_dtype, steps_without_a_gradient])  # fmt: skip
def test_schedules_are_asked_as_often_as_on_the_long_way(call):
    def asked(engine):
        seen = []
        opt = fl.SGD([lambda t: seen.append(t) or 0.1, lambda t: seen.append(-t) or 0.2], engine=engine,
                     nonfinite="skip")  # fmt: skip
        w = [np.ones(3), np.ones(2)]
        for k in range(12):
            (call if k % 4 == 3 else fl.SGD.step)(opt, *((w,) if k % 4 == 3 else (w, [np.ones(3), np.ones(2)])))
        return seen, opt.t, opt.skipped, [a.tobytes() for a in w]

    reference, native = outcomes(asked)
    assert reference == native


def test_what_is_wrong_with_a_gradient_is_said_before_what_is_wrong_with_a_schedule():
    opt, w = fl.SGD(lambda t: 0.1 if t < 4 else -1.0, nonfinite="skip"), np.ones(3)
    for _ in range(4):
        opt.step(w, np.ones(3))
    opt.step(w, np.full(3, np.nan))
    with pytest.raises(ValueError, match="must have the shape"):
        opt.step(w, np.ones(4))
    with pytest.raises(ValueError, match="from its schedule at t=4"):
        opt.step(w, np.ones(3))
    assert (opt.t, opt.skipped) == (4, 1)


def test_a_schedule_whose_numbers_overflow_on_the_way_does_so_in_silence():
    opt, w = fl.SGD(lambda t: 1 / (1 + np.exp(np.float64(200 * t)))), np.zeros(1)
    for _ in range(8):
        opt.step(w, np.ones(1))
    assert w[0] == -0.5


@pytest.mark.parametrize("factor", [1.0, 1 + 2.0**-50, 1 + 2.0**-25, 1 + 2.0**-24, 2.0])
def test_what_is_too_large_for_a_dtype_is_refused_on_the_short_way_too(factor):
    largest = float(np.finfo(np.float32).max)

    @fl.rule
    def grown(g, t, *, lr=0.1, by=1.0):
        return -lr * by ** (0.5 * t) * g

    def stepped(engine):
        opt, w = fl.Optimizer(grown, lr=lambda t: largest * factor if t == 4 else 0.1, engine=engine), np.ones(3, "f4")
        for _ in range(4):
            opt.step(w, np.ones(3, "f4"))
        opt.step(w, np.ones(3, "f4"))
        return w.tobytes()

    reference, native = outcomes(stepped)
    assert reference == native
    assert ("too large" in str(native)) == (factor > 1)


@pytest.mark.parametrize("nested", [False, True])
def test_a_dropped_optimizer_is_gone_at_once_and_its_schedule_with_it(nested):
    def schedule(t):
        return 0.1

    opt, w = fl.Adam(schedule), [np.ones(3)] if nested else np.ones(3)
    gc.collect()
    gc.disable()
    try:
        for _ in range(5):
            opt.step(w, [np.ones(3)] if nested else np.ones(3))
        seen = weakref.ref(schedule)
        del opt, schedule
        assert seen() is None
    finally:
        gc.enable()


def at_the_last_moment(monkeypatch, act):
    """Have something done once, when a step is about to run: by a finaliser, a handler of signals, another thread."""
    from fallline._step import plan

    real, acts = plan.perform, [act]

    def perform(*given):
        if acts:
            acts.pop()()
        return real(*given)

    monkeypatch.setattr(plan, "perform", perform)


def test_a_step_from_within_a_step_is_refused_and_that_one_goes_on(monkeypatch):
    n = 20_000
    opt, w = fl.SGD(1.0), [np.zeros(n), np.zeros(3)]
    for _ in range(3):
        opt.step(w, [np.ones(n), np.ones(3)])

    def step_too():
        with pytest.raises(fl.BusyOptimizer):
            opt.step(w, [np.full(n, 10.0), np.ones(3)])

    at_the_last_moment(monkeypatch, step_too)
    opt.step(w, [np.ones(n), np.ones(3)])
    assert opt.t == 4
    opt.step(w, [np.ones(n), np.ones(3)])
    assert (w[0] == -5).all()
    assert opt.t == 5


def test_strides_that_change_under_a_step_do_not_lead_it_astray(monkeypatch):
    opt, w = fl.SGD(1.0), np.zeros((2, 20_000))
    wide = np.arange(80_000.0).reshape(2, 40_000)
    for _ in range(3):
        opt.step(w, np.zeros((2, 40_000))[:, ::2])
    g = wide[:, ::2]
    expected = -g

    def turn():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            g.strides = (0, 0)

    at_the_last_moment(monkeypatch, turn)
    opt.step(w, g)
    assert g.strides == (0, 0)
    assert (w == expected).all()


def test_another_librarys_flush_to_zero_reaches_neither_schedules_nor_scalars():
    torch = need("torch")

    @fl.rule
    def faint(g, t, *, lr=0.0, by=0.5):
        return -lr * by ** (0.5 * t) * 1e-150 * g

    def run(engine, flush):
        opts = [fl.SGD(lambda t: np.float64(1e-155) * 1e-160, engine=engine),
                fl.Optimizer(faint, lr=1e-165, engine=engine)]
        found = []
        try:
            if not torch.set_flush_denormal(flush):
                pytest.skip("this processor does not flush")
            for opt in opts:
                w = np.zeros(3)
                for _ in range(6):
                    opt.step(w, np.full(3, 1e308))
                found.append(w.tobytes())
        finally:
            torch.set_flush_denormal(False)
        return found

    expected = run("reference", False)
    assert np.zeros(3).tobytes() not in expected
    assert run("native", True) == run("native", False) == run("reference", True) == expected


@pytest.mark.parametrize(("asked", "set_by_it"), [("lr", "beta1"), ("beta1", "lr"), ("beta2", "lr")])
def test_what_a_schedule_sets_takes_effect_at_the_next_step(asked, set_by_it):
    def stepped(engine):
        def schedule(t):
            if t > 2:
                setattr(opt, set_by_it, 0.05 + 0.01 * t)
            return 0.5

        opt, w = fl.Adam(engine=engine, **{"lr": 0.1, asked: schedule}), np.ones(3)
        for t in range(8):
            opt.step(w, np.full(3, 0.3 + t))
        return w.tobytes()

    reference, native = outcomes(stepped)
    assert reference == native


@every_engine
@pytest.mark.parametrize("g", [1.0, -1.0])
@pytest.mark.parametrize("start", [2.0, -2.0, np.float32(2.0), [2.0], {"a": 2.0, "b": 0.5}, 0.0], ids=str)
def test_a_number_that_comes_to_0_is_stepped_once(engine, g, start):
    import optree

    grads, opt, w = optree.tree_map(lambda x: g, start), fl.SGD(0.5, engine=engine), start
    for t in range(1, 9):
        w = opt.step(w, grads)
        assert opt.t == t
        assert w == optree.tree_map(lambda x, t=t: x - g * 0.5 * t, start)
