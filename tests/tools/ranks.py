"""Starts real ranks of an MPI job, on this machine, and cleans up after them."""

import glob
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from needed import missing, need

TOOLS = Path(__file__).parent


def launcher() -> str:
    """The path of mpiexec: the one beside this Python, which goes with mpi4py, or any."""
    need("mpi4py")
    beside = Path(sys.executable).parent / "mpiexec"
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    return found or missing("mpiexec")


def begun(n: int, script: str, *args: object, aborts: bool = True) -> subprocess.Popen:
    """A job of so many ranks that run a script of this folder; with `aborts` an exception of one ends all."""
    path = os.pathsep.join([str(TOOLS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [launcher(), "-n", str(n), sys.executable, "-W", "error", *(["-m", "mpi4py"] if aborts else []),
               str(TOOLS / script), *map(str, args)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, text=True, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(job: subprocess.Popen, within: float) -> tuple[int, str]:
    """The exit status of a job, and what it said; killed, with all its ranks, if it takes longer than that."""
    try:
        out, err = job.communicate(timeout=within)
        return job.returncode, out + err
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        out, err = job.communicate()
        raise AssertionError(f"the ranks have not ended within {within} s:\n{out}{err}") from None
    finally:
        swept()


def swept() -> None:
    """Remove the shared memory that ranks left which were killed."""
    for left in glob.glob("/dev/shm/mpich_*"):
        if os.stat(left).st_uid == os.getuid() and not in_use(left):
            os.unlink(left)


def in_use(file: str) -> bool:
    """Whether a process has a file of shared memory mapped."""
    for maps in glob.glob("/proc/[0-9]*/maps"):
        try:
            if file in Path(maps).read_text():
                return True
        except OSError:
            continue
    return False


def started(n: int, script: str, *args: object, within: float = 240) -> str:
    """What a job said that has come to its end."""
    status, said = ended(begun(n, script, *args), within)
    assert status == 0, said
    return said
