"""Real ranks of an MPI job, on this machine, or a skip by name where there is no MPI."""

from pathlib import Path

from reliability.ranks import begun, ended, launcher, pids

from needed import missing, need

__all__ = ["begun", "ended", "need_ranks", "pids", "started"]

TOOLS = Path(__file__).parent


def need_ranks() -> None:
    """mpi4py and mpiexec."""
    need("mpi4py")
    if launcher() is None:
        missing("mpiexec")


def started(n: int, script: str, *args: object) -> str:
    """What a job of so many ranks that run a script of this folder has said, once it has come to its end."""
    need_ranks()
    status, said = ended(begun(n, TOOLS / script, *args), within=400)
    assert status == 0, said
    return said
