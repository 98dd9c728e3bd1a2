"""Ranks of an MPI job that are killed at random moments: the job ends, no file is lost, and the run goes on to the bit
on another number of ranks. `python -m mpi4py -m reliability.ranks FOLDER PAUSE`, under mpiexec, is one such run."""

from __future__ import annotations

import glob
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import fallline as fl

__all__ = ["begun", "ended", "endure", "expected", "launcher", "pids", "result"]

ROOT = Path(__file__).parent.parent
SIZE, STEPS = 20_011, 60
PATIENCE = 120.0  # seconds in which a job must have ended


# ---- a run -----------------------------------------------------------------------------------------------------------


def optimizer() -> Any:
    return fl.chain(fl.clip_norm(1.0), fl.Adam(fl.schedules.cosine(0.1, steps=STEPS)))


def target() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(SIZE)


def run(folder: str, pause: float) -> None:
    """descend on the ranks of this job, each with a part of a vector; the file is saved every other step."""
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    Path(folder, f"pid.{comm.rank}").write_text(str(os.getpid()))
    start, stop = (SIZE * r // comm.size for r in (comm.rank, comm.rank + 1))
    goal = target()[start:stop]

    def value_and_grad(x: np.ndarray) -> tuple[float, np.ndarray]:
        time.sleep(pause)
        return float(np.square(np.concatenate(comm.allgather(x - goal))).sum()), 2 * (x - goal)

    found = fl.descend(value_and_grad, np.zeros(stop - start), fl.mpi.domain_parallel(optimizer()), steps=STEPS,
                       checkpoint=Path(folder, "run.safetensors"), checkpoint_every=2)
    whole = np.concatenate(comm.allgather(found.params))
    if comm.rank == 0:
        Path(folder, "result").write_text(_digest(whole, Path(folder, "run.safetensors")))


def expected() -> str:
    """What one process comes to, that nobody touches."""
    goal = target()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.safetensors")
        found = fl.descend(lambda x: (float(np.square(x - goal).sum()), 2 * (x - goal)), np.zeros(SIZE), optimizer(),
                           steps=STEPS, checkpoint=file, checkpoint_every=2)
        return _digest(found.params, file)


def _digest(params: np.ndarray, file: Path) -> str:
    return f"{hashlib.sha256(params.tobytes()).hexdigest()} {hashlib.sha256(file.read_bytes()).hexdigest()}"


def result(folder: Path) -> str:
    """What a run has come to."""
    return (folder / "result").read_text()


# ---- jobs ------------------------------------------------------------------------------------------------------------


def launcher() -> str | None:
    """The path of mpiexec: the one beside this Python, which goes with its mpi4py, or any."""
    beside = Path(sys.executable).parent / "mpiexec"
    return str(beside) if beside.exists() else shutil.which("mpiexec")


def begun(n: int, *command: object, aborts: bool = True) -> subprocess.Popen[str]:
    """A job of so many ranks, each `python` with these arguments; if it `aborts`, an exception on one ends all."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    started = [launcher(), "-n", str(n), sys.executable, "-W", "error", *(["-m", "mpi4py"] if aborts else [])]
    yielding = {"PYTHONPATH": path, "MPIR_CVAR_POLLS_BEFORE_YIELD": "1"}  # more ranks than processors give way
    return subprocess.Popen([*map(str, started), *map(str, command)], env={**os.environ, **yielding}, text=True,
                            start_new_session=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(job: subprocess.Popen[str], within: float = PATIENCE) -> tuple[int, str]:
    """The exit status of a job, and what it said; raises AssertionError, and kills it, if it takes longer than that."""
    try:
        out, err = job.communicate(timeout=within)
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        out, err = job.communicate()
        raise AssertionError(f"the ranks have not ended within {within} s:\n{out}{err}") from None
    finally:
        sweep()
    return job.returncode, out + err


def sweep() -> None:
    """Remove the shared memory that killed ranks have left, which no process has in use."""
    left = [file for file in glob.glob("/dev/shm/mpich_*") if os.stat(file).st_uid == os.getuid()]
    used = _mapped() if left else ""
    for file in left:
        if file not in used:
            Path(file).unlink(missing_ok=True)


def _mapped() -> str:
    """What all processes have mapped."""
    found = []
    for maps in glob.glob("/proc/[0-9]*/maps"):
        try:
            found.append(Path(maps).read_text())
        except OSError:
            continue
    return "".join(found)


def pids(folder: Path, n: int, job: subprocess.Popen[str], within: float = PATIENCE) -> list[int]:
    """The processes of a run's ranks, once all have begun."""
    until = time.monotonic() + within
    files = [folder / f"pid.{rank}" for rank in range(n)]
    while not all(file.exists() and file.read_text() for file in files):
        assert job.poll() is None, ended(job)[1]
        assert time.monotonic() < until, "the ranks have not begun"
        time.sleep(0.02)
    found = [int(file.read_text()) for file in files]
    for file in files:
        file.unlink()
    return found


# ---- killed ----------------------------------------------------------------------------------------------------------


def endure(kills: int, seed: int = 0) -> int:
    """Kill a rank so many times, run after run, each job on another number of ranks; returns how many runs came
    through.

    Raises AssertionError if a job hangs, or a run does not come to what one process does.
    """
    rng, runs, struck, wanted = random.Random(seed), 0, 0, expected()
    while struck < kills:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            while not (folder / "result").exists():
                struck += _strike(folder, rng, struck < kills)
            assert result(folder) == wanted, "the result differs after kills"
            assert sorted(os.listdir(folder)) == ["result", "run.safetensors"], os.listdir(folder)
        runs += 1
    return runs


def _strike(folder: Path, rng: random.Random, kills: bool) -> bool:
    """Start or take up the run, and kill a rank after a while; whether that came in time."""
    n = rng.choice((1, 2, 3, 4))
    job = begun(n, "-m", "reliability.ranks", folder, 0.005)
    ranks: Sequence[int] = pids(folder, n, job)
    time.sleep(rng.uniform(0.0, 1.2))
    if kills and job.poll() is None:
        try:
            os.kill(rng.choice(ranks), signal.SIGKILL)
        except ProcessLookupError:
            kills = False
    status, said = ended(job)
    assert status == 0 or kills, said
    return status != 0


if __name__ == "__main__":
    run(sys.argv[1], float(sys.argv[2]))
