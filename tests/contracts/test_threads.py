"""Threads of our own: never in the way, at rest, at exit, after a fork, when interrupted; and the same bits throughout.

What concerns the whole process (its threads, its end, its children) is tried out in a process of its own.
"""

import os
import signal
import threading
from functools import cache

import numpy as np
import pytest

import fallline as fl
from fallline._arrays.trees import flatten
from support import every_dtype, every_optimiser, run_alone, update

pytestmark = pytest.mark.slow

LARGE, SMALL = 300_001, 30_000  # coordinates: worth several threads, and not

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is not had here")
needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity cannot be set here")


@pytest.fixture
def with_threads():
    """`set_num_threads`, undone afterwards."""
    yield fl.set_num_threads
    fl.set_num_threads(None)


# ---- the same bits ---------------------------------------------------------------------------------------------------


def everything_of(opt, tree):
    """The bits of a tree and of the state."""
    return [leaf.tobytes() for part in (tree, *opt.state.values()) for leaf in flatten(part)[0]]


CALLS = {
    "step": lambda opt, w, g, out: opt.step(w, g),
    "update": lambda opt, w, g, out: update(opt, g, w),
    "update with out=": lambda opt, w, g, out: update(opt, g, w, out=out),
}
BACK_TO_BACK = 6  # calls, the first of which wakes the workers: the others find them awake
CHUNKS_AND_A_BIT = 150_001  # and one coordinate more than a whole number of vectors


@cache
def numbers(seed, dtype):
    return np.random.default_rng(seed).standard_normal(CHUNKS_AND_A_BIT).astype(dtype)


def bits_of_a_run(name, dtype, call, **options):
    opt, w, out = fl.OPTIMIZERS[name](**options), numbers(0, dtype).copy(), np.empty(CHUNKS_AND_A_BIT, dtype)
    for _ in range(BACK_TO_BACK):
        result = CALLS[call](opt, w, numbers(1, dtype), out)
    return everything_of(opt, result)


@every_optimiser
@every_dtype
def test_every_call_gives_the_bits_of_the_reference_engine_for_any_number_of_threads(name, dtype, with_threads):
    for call in CALLS:
        expected = bits_of_a_run(name, dtype, call, engine="reference")
        for nonfinite in ("raise", "propagate"):
            for threads in (1, 2, 3, 7):
                with_threads(threads)
                assert bits_of_a_run(name, dtype, call, nonfinite=nonfinite) == expected, (call, nonfinite, threads)


def a_whole_run(k):
    """A run of the k-th optimiser on large arrays, on small ones, or on a tree of both, by turns."""
    rng = np.random.default_rng(k)
    sizes = [{"w": LARGE}, {"w": 100}, {"a": 5, "b": LARGE, "c": SMALL, "d": 0}][k % 3]
    opt = list(fl.OPTIMIZERS.values())[k % len(fl.OPTIMIZERS)]()
    w = {name: rng.standard_normal(n) for name, n in sizes.items()}
    for _ in range(200 if k % 3 == 1 else 10):
        opt.step(w, {name: rng.standard_normal(n) for name, n in sizes.items()})
    return everything_of(opt, w)


def test_optimizers_stepped_by_several_python_threads_get_the_bits_of_one_after_the_other(with_threads):
    with_threads(3)
    runs, together, start = range(12), {}, threading.Barrier(12)

    def work(k):
        start.wait()
        together[k] = a_whole_run(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [k for k in runs if together.get(k) != a_whole_run(k)] == []


# ---- how many --------------------------------------------------------------------------------------------------------

COUNT = """
import os, sys, threading
import numpy as np, fallline as fl

for said, lengths, workers in eval(sys.argv[1]):
    exec(said)
    opt, w = fl.SGD(), [np.ones(n, np.float32) for n in lengths]
    for _ in range(3):
        opt.step(w, [np.ones_like(a) for a in w])
    names = sorted(thread.name for thread in threading.enumerate())
    assert names == ["MainThread"] + ["fallline"] * workers, (said, lengths, names)
"""
ONE_PROCESSOR = "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); fl.set_num_threads(None)"


@pytest.mark.parametrize(("environment", "cases"), [
    ({}, [("fl.set_num_threads(3)", [SMALL], 0),
          ("fl.set_num_threads(3)", [SMALL // 10] * 10, 0),
          ("fl.set_num_threads(1)", [LARGE], 0),
          ("fl.set_num_threads(2)", [LARGE // 8] * 8, 1),
          ("fl.set_num_threads(3)", [LARGE], 2)]),
    ({"FALLLINE_NUM_THREADS": "1"}, [("", [LARGE], 0), ("fl.set_num_threads(2)", [LARGE], 1)]),
    ({"FALLLINE_NUM_THREADS": "4"}, [("fl.set_num_threads(2)", [LARGE], 1), ("fl.set_num_threads(None)", [LARGE], 3)]),
    pytest.param({}, [(ONE_PROCESSOR, [LARGE], 0), ("fl.set_num_threads(2)", [LARGE], 1)], marks=needs_affinity),
])  # fmt: skip
def test_a_large_step_hires_a_worker_for_each_thread_but_the_callers_and_a_small_one_none(environment, cases):
    run_alone(COUNT, cases, **environment)


@pytest.mark.parametrize("given", ["abc", "0", "-2", "1.5"])
@pytest.mark.parametrize("steps_before", [0, 5])
def test_a_number_of_threads_that_is_none_is_refused_by_name_and_changes_nothing(given, steps_before, with_threads,
                                                                                 monkeypatch):  # fmt: skip
    with_threads(None)
    monkeypatch.delenv("FALLLINE_NUM_THREADS", raising=False)
    opt, w, g = fl.SGD(1.0), np.zeros(LARGE, np.float32), np.ones(LARGE, np.float32)
    for _ in range(steps_before):
        opt.step(w, g)
    monkeypatch.setenv("FALLLINE_NUM_THREADS", given)
    with pytest.raises(ValueError, match=rf"^FALLLINE_NUM_THREADS must be a whole number ≥ 1. Got '{given}'\.$"):
        opt.step(w, g)
    assert opt.t == steps_before
    assert (w == -steps_before).all()
    monkeypatch.setenv("FALLLINE_NUM_THREADS", "2")
    opt.step(w, g)
    assert (w == -steps_before - 1).all()


@pytest.mark.parametrize("n", [0, -1, 1.5, True, "2"])
def test_set_num_threads_refuses_what_is_no_number_of_threads(n, with_threads):
    with pytest.raises(ValueError, match=rf"must be a whole number ≥ 1, or None for all processors. Got {n!r}\.$"):
        with_threads(n)


# ---- one optimizer, several threads ----------------------------------------------------------------------------------


def test_while_a_thread_has_an_optimizer_at_work_others_are_refused_and_change_nothing():
    inside, go_on = threading.Event(), threading.Event()

    def rate(t):
        if t == 2:
            inside.set()
            assert go_on.wait(30)
        return 1.0

    opt, w, g = fl.Momentum(rate), np.zeros(5), np.ones(5)
    for _ in range(2):
        opt.step(w, g)
    saved, before = opt.state_dict(), w.copy()
    thread = threading.Thread(target=opt.step, args=(w, g))
    thread.start()
    assert inside.wait(30)
    try:
        for call in (lambda: opt.step(w, g), lambda: opt.update(g), lambda: opt.update(g, out=np.empty(5)),
                     lambda: setattr(opt, "lr", 0.5), lambda: setattr(opt, "t", 7), opt.state_dict, opt.reset,
                     lambda: opt.load_state_dict(saved), lambda: opt.adapt(w), lambda: opt.lookahead(w)):  # fmt: skip
            with pytest.raises(fl.BusyOptimizer, match=r"opt\.fresh\(\)"):
                call()
        assert opt.t == 2
        assert w.tobytes() == before.tobytes()
        assert opt.fresh().step(w.copy(), g) is not None
    finally:
        go_on.set()
        thread.join()
    assert opt.t == 3
    opt.step(w, g)
    twin, v = fl.Momentum(1.0), np.zeros(5)
    for _ in range(4):
        twin.step(v, g)
    assert v.tobytes() == w.tobytes()


@pytest.mark.parametrize("size", [10, 300_000])
def test_threads_that_step_one_optimizer_at_once_take_whole_steps_or_are_refused(size):
    opt, w, taken = fl.SGD(1.0), np.zeros(size), []

    def work():
        for _ in range(200):
            g = np.ones(size)  # gone after the call, so that nobody may go on reading it
            try:
                opt.step(w, g)
            except fl.BusyOptimizer:
                continue
            taken.append(1)

    opt.step(w, np.ones(size))
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert opt.t == len(taken) + 1
    assert (w == -opt.t).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_forked_while_another_thread_steps_can_go_on():
    run_alone("""
import os, threading
import numpy as np, fallline as fl

inside, go_on = threading.Event(), threading.Event()
opt, w = fl.SGD(lambda t: (inside.set(), go_on.wait(30), 1.0)[-1]), np.zeros(5)
thread = threading.Thread(target=opt.step, args=(w, np.ones(5)))
thread.start()
inside.wait(30)
child = os.fork()
if not child:
    go_on.set()
    opt.step(w, np.ones(5))
    os._exit(0 if opt.t == 1 and (w == -1).all() else 1)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
go_on.set()
thread.join()
assert opt.t == 1
""")


# ---- when interrupted ------------------------------------------------------------------------------------------------

INTERRUPTED = """
import random, signal, sys, time
import numpy as np, fallline as fl

signal.signal(signal.SIGALRM, signal.default_int_handler)  # as Ctrl-C does
fl.set_num_threads(2)
rng, torn = random.Random(0), 0
layout, options, warm, steps = sys.argv[1], {"engine": sys.argv[2]}, int(sys.argv[3]), float(sys.argv[4])

def make():
    if layout == "plain":
        return [np.ones(200_001, np.float32)], [np.full(200_001, 0.1, np.float32)]
    return ([np.ones(100_001, np.float32), np.ones(100_001), np.ones((100_001, 2))[:, 0]],
            [np.full(100_001, 0.1, np.float32), np.full(100_001, 0.1), np.full(100_001, 0.1)])

def begin():
    opt.reset()
    w, g = make()
    return w, g, opt.fresh(), [a.copy() for a in w]

def step_until_interrupted():
    try:
        signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, steps * step_time))
        while True:
            opt.step(w, g)
    except KeyboardInterrupt:
        pass

def pictures(opt, w):
    return [a.tobytes() for part in (w, *opt.state.values()) for a in part]

opt = fl.Adam(0.1, **options)
opt.step(*make())  # imports and compiles, which is not what is interrupted here
opt.reset()
w, g = make()
start = time.perf_counter()
opt.step(w, g)
step_time = time.perf_counter() - start
for k in range(30):
    if k % 5 == 0 or not warm:
        w, g, twin, v = begin()
        for _ in range(warm):
            opt.step(w, g)
    step_until_interrupted()
    try:
        opt.step(w, g)
    except fl.TornOptimizer:
        torn += 1
        w, g, twin, v = begin()
    while twin.t < opt.t:
        twin.step(v, g)
    assert pictures(opt, w) == pictures(twin, v), (k, opt.t)
print(torn)
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="timers are not had here")
@pytest.mark.parametrize(("layout", "engine", "warm", "steps", "may_be_torn"), [
    ("plain", "native", 3, 4, False),
    ("plain", "native", 0, 1.5, False),
    ("mixed", "native", 0, 3, True),
    ("mixed", "native", 3, 4, False),
    ("plain", "reference", 0, 3, True),
])  # fmt: skip
def test_an_interrupt_leaves_a_whole_number_of_steps_or_a_torn_optimizer(layout, engine, warm, steps, may_be_torn):
    assert int(run_alone(INTERRUPTED, layout, engine, warm, steps)) == 0 or may_be_torn
