"""Doctests of what needs a peer are collected where that is installed."""

import os
from importlib.util import find_spec

os.environ.setdefault("KERAS_BACKEND", "torch")  # before Keras is imported
PEERS = {"keras/*": ("keras", "torch", "jax"), "torch/*": ("torch",), "optax/*": ("optax",), "mpi/*": ("mpi4py",),
         "_functional/*": ("jax",), "_engines/jax/*": ("jax",), "_step/calls/jitted.py": ("jax",)}  # fmt: skip
collect_ignore_glob = [f"fallline/{files}" for files, peers in PEERS.items() if not all(map(find_spec, peers))]
