"""Threads of our own in a process: at rest, at its end, and in the processes that it starts."""

import os
import subprocess
import sys

import pytest

from support import output_of, run_alone, start_alone

pytestmark = pytest.mark.slow

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="fork is not had here")

# ---- at rest ---------------------------------------------------------------------------------------------------------

RESTING = """
import threading, time
import numpy as np, fallline as fl

fl.set_num_threads(3)
opt, w, g = fl.SGD(1.0), np.zeros(300_001), np.ones(300_001)
for _ in range(5):
    opt.step(w, g)
assert threading.active_count() == 3
before = time.process_time()
time.sleep(0.5)
print(time.process_time() - before)
"""


def test_threads_without_work_use_no_processor():
    assert float(run_alone(RESTING)) < 0.05


LATE = """
import random, time
import numpy as np, fallline as fl

fl.set_num_threads(4)
rng, opt, w, g = random.Random(0), fl.SGD(1.0), np.zeros(120_000, np.float32), np.ones(120_000, np.float32)
for _ in range(2000):
    opt.step(w, g)
    if rng.random() < 0.5:
        time.sleep(rng.uniform(0, 3e-4))  # workers spin, go to sleep, or sleep when the next step comes
assert (w == -2000).all()
"""


def test_no_step_waits_for_a_worker_that_comes_late():
    run_alone(LATE)


LOST = """
import ctypes, random, threading, time
import numpy as np, fallline as fl

fl.set_num_threads(4)
opt, w, g = fl.SGD(1.0), np.zeros(300_001, np.float32), np.ones(300_001, np.float32)
opt.step(w, g)
for worker in [thread for thread in threading.enumerate() if thread.name == "fallline"]:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(worker.ident), ctypes.py_object(SystemExit))
    for _ in range(100):
        opt.step(w, g)
        time.sleep(random.uniform(0, 3e-4))
    worker.join()
assert threading.active_count() == 1
assert (w == -301).all()
"""


def test_no_step_waits_for_a_worker_that_is_lost():
    run_alone(LOST)


# ---- at the end ------------------------------------------------------------------------------------------------------

ENDING = """
import atexit, sys, threading, time
import numpy as np, fallline as fl

fl.set_num_threads(3)

def steps(n=20):
    opt, w, g = fl.SGD(1.0), np.zeros(300_001), np.ones(300_001)
    while n:
        opt.step(w, g)
        n -= 1

exec(sys.argv[1])
"""


@pytest.mark.parametrize("ending", [
    "steps()",
    "steps(); time.sleep(0.05)",
    "threading.Thread(target=steps).start()",
    "steps(); threading.Thread(target=steps, args=(-1,), daemon=True).start(); steps()",
    "atexit.register(steps)",
])  # fmt: skip
def test_the_interpreter_ends_at_once_and_without_a_word_whatever_the_threads_are_at(ending):
    for process in [start_alone(ENDING, ending) for _ in range(2)]:
        assert output_of(process, timeout=30) == ""


# ---- in other processes ----------------------------------------------------------------------------------------------

FORKING = """
import copy, os, threading, time
import numpy as np, fallline as fl

fl.set_num_threads(2)
g = np.random.default_rng(0).standard_normal(300_001)
opt, w = fl.Adam(0.1), np.ones(300_001)

def three_steps(opt, w):
    for _ in range(3):
        opt.step(w, g)
    return w.tobytes() + opt.state["v"].tobytes()

def child_is_well(expected):
    child = os.fork()
    if child == 0:
        same = three_steps(opt, w) == expected
        own = [thread.name for thread in threading.enumerate()].count("fallline") == 1
        os._exit(0 if same and own else 1 if own else 2)
    for _ in range(4000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status) == 0
        time.sleep(0.005)
    os.kill(child, 9)
    os.waitpid(child, 0)
    return False

stop = False

def step_for_ever():
    while not stop:
        three_steps(fl.Adam(0.1), np.ones(300_001))

three_steps(opt, w)
expected = three_steps(copy.deepcopy(opt), w.copy())
assert all(child_is_well(expected) for _ in range(4)), "forked with workers awake"
time.sleep(0.02)
assert all(child_is_well(expected) for _ in range(4)), "forked with workers asleep"
other = threading.Thread(target=step_for_ever)
other.start()
wells = [child_is_well(expected) for _ in range(8)]
stop = True
other.join()
assert all(wells), "forked while another thread was stepping"
assert three_steps(opt, w) == expected, "the parent"
"""


@needs_fork
def test_a_forked_child_steps_with_threads_of_its_own():
    run_alone(FORKING)


ELSEWHERE = """
import multiprocessing, sys, threading
import numpy as np, fallline as fl

def four_steps(opt, w):
    fl.set_num_threads(2)
    for k in range(4):
        opt.step(w, np.linspace(-1, 1 + k, w.size, dtype=w.dtype))
    return w.tobytes(), opt.state["m"].tobytes(), threading.active_count()

if __name__ == "__main__":
    opt, w = fl.Nadam(0.1), np.ones(300_001, np.float32)
    four_steps(opt, w)
    there = []
    for way in multiprocessing.get_all_start_methods():
        with multiprocessing.get_context(way).Pool(1) as pool:
            there.append((way, *pool.apply_async(four_steps, (opt, w)).get(timeout=30)))
    here = four_steps(opt, w)
    for way, *found, threads in there:
        assert found == list(here[:2]), way
        assert threads == 2, (way, threads)
"""


def test_an_optimizer_goes_on_in_a_process_started_in_any_way_with_threads_of_its_own(tmp_path):
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE)
    subprocess.run([sys.executable, "-W", "ignore::DeprecationWarning", script], check=True, timeout=90)
