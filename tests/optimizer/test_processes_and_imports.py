"""An optimizer in other processes, without llvmlite, and what importing the library loads."""

import subprocess
import sys

import numpy as np
import pytest

import fallline as fl
from needed import need

IN_A_SCRIPT = """
import pickle, multiprocessing
import numpy as np, fallline as fl

@fl.rule
def mine(g, m=0, *, lr=0.5):
    return -lr*g, m

def work(opt):
    return opt.step(np.ones(2), np.ones(2)).tolist()

if __name__ == "__main__":
    opt = fl.Optimizer(mine)
    opt.step(np.ones(2), np.ones(2))
    assert pickle.loads(pickle.dumps(opt)).t == 1
    for way in ("spawn", "fork"):
        with multiprocessing.get_context(way).Pool(1) as pool:
            assert pool.apply(work, (opt,)) == [0.5, 0.5]
"""


@pytest.mark.slow
def test_a_rule_of_a_script_travels_to_other_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(IN_A_SCRIPT)
    subprocess.run([sys.executable, script], check=True, timeout=120)


FORKING = """
import os, threading, time
import numpy as np, fallline as fl

fl.Adam().step(np.ones(3), np.ones(3))
stop = False

def compile_for_ever():
    k = 0
    while not stop:
        k += 1
        def formula(g, *, lr=0.1):
            for _ in range(k):
                g = g + 1
            return -lr*g
        fl.Optimizer(fl.rule(formula)).step(np.ones(3), np.ones(3))

threads = [threading.Thread(target=compile_for_ever) for _ in range(2)]
for thread in threads:
    thread.start()
hung = 0
for _ in range(20):
    time.sleep(0.02)
    child = os.fork()
    if child == 0:
        fl.Nadam().step(np.ones(200_000), np.ones(200_000))
        os._exit(0)
    deadline = time.monotonic() + 20
    while os.waitpid(child, os.WNOHANG) == (0, 0):
        if time.monotonic() > deadline:
            os.kill(child, 9)
            os.waitpid(child, 0)
            hung += 1
            break
        time.sleep(0.005)
stop = True
for thread in threads:
    thread.join()
raise SystemExit(hung)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="fork is not had here")
def test_a_forked_child_works_even_if_other_threads_were_compiling():
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKING], check=True, timeout=550)


def test_the_engine_says_what_runs_and_why():
    need("llvmlite")
    opt = fl.Adam()
    assert opt.engine == "auto: chosen at the first step"
    opt.step(np.ones(2), np.ones(2))
    assert opt.engine.startswith("native: ")
    asked = fl.Adam(engine="reference")
    asked.step(np.ones(2), np.ones(2))
    assert asked.engine == "reference: asked for"


WITHOUT_LLVMLITE = """
import sys, warnings
sys.modules["llvmlite"] = None
import numpy as np, fallline as fl
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    opts = [fl.Adam(), fl.SGD()]
    for opt in opts:
        opt.step(np.ones(2), np.ones(2))
assert all(opt.engine.startswith("reference: llvmlite is missing") for opt in opts), opts[0].engine
assert len(seen) == 1 and "pip install llvmlite" in str(seen[0].message), seen
try:
    fl.Adam(engine="native").step(np.ones(2), np.ones(2))
except ImportError as error:
    assert "pip install llvmlite" in str(error)
else:
    raise SystemExit("native ran without llvmlite")
"""


def test_without_llvmlite_the_reference_engine_runs_and_says_so_once():
    subprocess.run([sys.executable, "-c", WITHOUT_LLVMLITE], check=True)


HEAVY = ["scipy", "optree", "llvmlite", "rich", "typer", "sklearn", "joblib", "plotly", "jinja2", "array_api_compat"]
PEERS = ["torch", "jax"]  # which can be loaded only where they are installed


@pytest.mark.parametrize("modules", [HEAVY, PEERS], ids=["dependencies", "peers"])
def test_import_fallline_loads_numpy_and_nothing_heavy(modules):
    for module in modules:
        need(module)
    code = f"import sys, fallline; print([m for m in {modules!r} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
