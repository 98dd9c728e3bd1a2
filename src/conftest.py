"""Doctests of what needs a peer are collected where that is installed."""

from importlib.util import find_spec

collect_ignore_glob = [f"fallline/{room}/*" for room, peer in {"torch": "torch", "mpi": "mpi4py"}.items()
                       if not find_spec(peer)]
