"""Doctests of what needs a peer are collected where that is installed."""

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("torch") else ["fallline/torch/*"]
