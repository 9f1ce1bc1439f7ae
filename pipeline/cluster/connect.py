"""The one way to Ray: the cluster of RAY_ADDRESS, or a private Ray on this machine."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

_KNOCK = 5.0  # seconds until a head that does not answer is given up


@contextmanager
def connected() -> Iterator[None]:
    """Be connected to Ray for the length of the block.

    A connection that stands is used, and left as it was found. Else the cluster of RAY_ADDRESS is
    joined, or a private Ray is started on this machine, which ends with the block.

    Raises:
        RayError, ConnectionError: there is no such cluster, or none starts.
    """
    if ray.is_initialized():
        yield
        return
    _connect()
    try:
        yield
    finally:
        ray.shutdown()


def from_anywhere(place: str) -> str:
    """Return a URI as it is, and a local path from the root: workers stand in other folders."""
    return place if "://" in place else os.path.abspath(place)


def _connect() -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody is told of this build
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if address := os.environ.get("RAY_ADDRESS"):
        _knock(address)
        ray.init(logging_level=logging.WARNING, log_to_driver=False)
    else:
        # A private instance on this machine: what Ray says of tokens and restarts is for clusters.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(
            address="local",  # without it, Ray joins any cluster that it finds a trace of
            logging_level=logging.ERROR,
            log_to_driver=False,
            include_dashboard=False,
        )
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray put a handler of its own there


def _knock(address: str) -> None:
    """Raise ConnectionError where nothing listens: Ray would try for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not port.isdigit():  # auto, local: Ray finds it or says so at once
        return
    try:
        socket.create_connection((host, int(port)), timeout=_KNOCK).close()
    except OSError as error:
        raise ConnectionError(f"no Ray answers at {address}: {error}") from error
