"""A Ray head of a test's own: free ports on loopback, a token, and an end that touches no other."""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_PORTS = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "runtime-env-agent-port",
    "ray-client-server-port",
    "metrics-export-port",
)
_STARTS = 60.0  # seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """A running head.

    Attributes:
        address: host:port, for RAY_ADDRESS.
        metrics: URL of the node's figures, in Prometheus' text form.
        environment: with which its clients must run.
    """

    address: str
    metrics: str
    environment: dict[str, str]


@contextmanager
def ray_head(cpus: int, **more: str) -> Iterator[Head]:
    """Start a head with this many CPUs; stop it, and only it, at the end of the block.

    Args:
        cpus: that it has to give.
        more: environment variables for it and its clients.
    """
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # sockets allow no longer path
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    head = Head(
        address=f"127.0.0.1:{ports['port']}",
        metrics=f"http://127.0.0.1:{ports['metrics-export-port']}/metrics",
        environment=_environment(ports["dashboard-port"]) | more,
    )
    options = [f"--{name}={port}" for name, port in ports.items()]
    options += ["--head", "--block", "--disable-usage-stats", f"--num-cpus={cpus}"]
    options += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-gpus=0"]
    options += ["--min-worker-port=0", "--max-worker-port=0", f"--temp-dir={folder}"]
    ray = Path(sys.executable).with_name("ray")
    with Path(folder, "head.log").open("wb") as log:
        process = subprocess.Popen(
            [ray, "start", *options],
            env=head.environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(ports["dashboard-port"], process, Path(folder, "head.log"))
        yield head
    finally:
        _end(psutil.Process(process.pid))
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _environment(dashboard_port: int) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "RAY_ADDRESS")  # the job must run the code that it was sent
    }
    return inherited | {
        "PATH": os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")]),
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard_port}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "OMP_NUM_THREADS": "1",
        "RAY_metrics_report_interval_ms": "500",  # else ten seconds
    }


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _STARTS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError(f"no head came up:\n{log.read_text()}")


def _end(head: psutil.Process) -> None:
    """End the head with all that it started, by their ids; no other Ray on the machine is told."""
    with suppress(psutil.NoSuchProcess):
        started = [*head.children(recursive=True), head]
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(started, timeout=20)
