"""A race on the workers of a dask scheduler: the bytes of one process, also where a worker is killed in the middle."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import fallline as fl
from needed import need
from races import command, same_bytes

pytestmark = pytest.mark.slow


ENDING = """
import os, signal
import numpy as np
import fallline as fl

def value_and_grad(x):
    if "ENDS" in os.environ:
        os.kill(int(os.environ["ENDS"]), signal.SIGKILL)
    return float(x @ x), 2 * x

def ending(seed):
    return fl.race.Problem(np.array([3.0, seed % 7]), value_and_grad, name="ending")
"""


@pytest.fixture
def scheduler(tmp_path):
    """A real scheduler on this machine: its address, its process, and what starts a worker with such an environment."""
    need("distributed")
    running, file = [], tmp_path / "scheduler.json"

    def start(*arguments, **environment):
        command = [sys.executable, "-m", "dask", *arguments, "--host", "127.0.0.1", "--no-dashboard"]
        with (tmp_path / f"log{len(running)}").open("w") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | environment)
        running.append(process)
        return process

    try:
        process = start("scheduler", "--port", "0", "--scheduler-file", str(file))
        deadline = time.monotonic() + 30
        while not (file.exists() and (text := file.read_text())):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        address = json.loads(text)["address"]

        def worker(**environment):
            return start("worker", address, "--nthreads", "1", "--no-nanny", **environment)

        yield address, process, worker
    finally:
        for process in reversed(running):
            process.kill()
            process.wait()


@contextlib.contextmanager
def connected(address):
    """A client, once both workers are there."""
    from distributed import Client

    with Client(address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=30)
        yield client


def test_two_workers_give_the_bytes_of_one_process_on_several_problems(scheduler, tmp_path, capsys):
    address, _, worker = scheduler
    worker(), worker()
    with connected(address):
        pass
    given = ["--problem", "bowl,saddle", "--optimizers", "SGD,Adam", "--steps", "20", "--repeats", "2"]
    assert command(*given, "--jobs", "1", "--out", str(tmp_path / "here")) == 0
    assert command(*given, "--cluster", address, "--out", str(tmp_path / "there")) == 0
    for name in ("bowl", "saddle"):
        here, there = (same_bytes(fl.race.load(tmp_path / where / name)) for where in ("here", "there"))
        assert here == there


def test_a_worker_killed_in_the_middle_of_a_run_changes_nothing(scheduler):
    joblib = need("joblib")
    address, _, worker = scheduler
    mortal = worker(DIES="1")
    worker()

    def value_and_grad(x):
        if "DIES" in os.environ and x[0] != 3.0:
            os.kill(os.getpid(), signal.SIGKILL)
        return float(x @ x), 2 * x

    problem = fl.race.Problem(np.array([3.0, 1.0]), value_and_grad, name="mortal")
    here = fl.race.run(problem, ["SGD", "Adam"], jobs=1, steps=20, surfaces=())
    with connected(address) as client, joblib.parallel_config(backend="dask", client=client):
        there = fl.race.run(problem, ["SGD", "Adam"], steps=20, surfaces=())
    assert mortal.wait(timeout=30) == -signal.SIGKILL
    assert same_bytes(here) == same_bytes(there)


def test_a_lost_scheduler_is_said_in_one_line_and_the_race_goes_on_without_it(scheduler, tmp_path, capsys, monkeypatch):
    address, process, worker = scheduler
    worker(ENDS=str(process.pid))
    worker()
    with connected(address):
        pass
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.py").write_text(ENDING)
    given = ["--problem", "own.py:ending", "--optimizers", "SGD", "--steps", "20", "--repeats", "2"]
    assert command(*given, "--cluster", address, "--out", "lost") == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"fallline: The cluster at {address} was lost (")
    assert err.endswith("--resume goes on.\n")
    assert err.count("\n") == 1
    assert command(*given, "--jobs", "1", "--out", "lost", "--resume") == 0
    assert command(*given, "--jobs", "1", "--out", "whole") == 0
    assert same_bytes(fl.race.load("lost")) == same_bytes(fl.race.load("whole"))


def test_a_cluster_that_cannot_be_used_is_refused_in_one_line(scheduler, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("fallline.race.protocol.cluster.SECONDS", 1)
    address, _, _ = scheduler
    for cluster, said in (
        ("nonsense", "must be the address of a dask scheduler that answers, as tcp://host:8786. Got 'nonsense'"),
        ("tcpx://host:1", "Got 'tcpx://host:1' (unknown address scheme"),
        ("tcp://127.0.0.1:1", "Got 'tcp://127.0.0.1:1' (Timed out"),
        (address, "cluster must have workers"),
    ):
        assert command("--problem", "bowl", "--out", str(tmp_path), "--cluster", cluster) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("fallline: ")
        assert said in err
        assert err.count("\n") == 1


def test_workers_with_another_fallline_are_refused(scheduler, tmp_path, capsys, monkeypatch):
    address, _, worker = scheduler
    worker(), worker()
    with connected(address):
        pass
    monkeypatch.setattr("fallline.__version__", "99")
    assert command("--problem", "bowl", "--out", str(tmp_path), "--cluster", address) == 2
    err = capsys.readouterr().err
    assert err.startswith("fallline: Workers of cluster must have the versions of this process, fallline 99 and NumPy")
    assert err.count("\n") == 1
