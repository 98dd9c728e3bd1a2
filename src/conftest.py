"""Doctests of what needs a peer are collected where that is installed."""

from importlib.util import find_spec

PEERS = {"torch": "torch", "optax": "optax", "mpi": "mpi4py", "_functional": "jax", "_engines/jax": "jax"}
collect_ignore_glob = [f"fallline/{room}/*" for room, peer in PEERS.items() if not find_spec(peer)]
