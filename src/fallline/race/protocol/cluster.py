"""A dask scheduler in the place of processes here, once it and its workers are known to give the same bits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import CancelledError
from typing import Any

import numpy as np

import fallline

SECONDS = 10  # to wait for the scheduler, and for a first worker


class ClusterError(Exception):
    """A cluster that cannot be used, or was lost."""


@contextlib.contextmanager
def on_cluster(address: str) -> Iterator[None]:
    """A context in which all runs of a race go to the workers of the dask scheduler at `address`.

    A run whose worker is lost is given to another one by the scheduler.

    Raises ClusterError where dask.distributed is missing, no scheduler answers, it has no worker, one has another
    fallline or NumPy than this process, or scheduler or too many workers are lost.
    """
    try:
        from distributed import Client, KilledWorker
        from distributed.comm import get_address_host_port
    except ImportError:
        raise ClusterError('A race on a cluster needs dask.distributed: pip install "fallline[cluster]"') from None
    from joblib import parallel_config

    try:
        get_address_host_port(address)  # a client that was given nonsense would not end
        client = Client(address, timeout=SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ClusterError("cluster must be the address of a dask scheduler that answers, as tcp://host:8786. "
                           f"Got {address!r} ({error}).") from None
    with client:
        _check_workers(client, address)
        try:
            with parallel_config(backend="dask", client=client):
                yield
        except (CancelledError, KilledWorker) as error:
            raise ClusterError(f"The cluster at {address} was lost ({error}). --resume goes on.") from error


def _check_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=SECONDS)
    except TimeoutError:
        raise ClusterError(f"cluster must have workers. The scheduler at {address} has none after {SECONDS} s: "
                           f"dask worker {address} starts one.") from None
    for worker, found in client.run(versions, on_error="return").items():
        if found != versions():
            raise ClusterError(f"Workers of cluster must have the versions of this process, {versions()}, as only then "
                               f"bits are the same. {worker} has {found}.")


def versions() -> str:
    """Those that decide bits."""
    return f"fallline {fallline.__version__} and NumPy {np.__version__}"
