"""A Ray head on loopback with its own ports and token, ended by the ids of its processes."""

from __future__ import annotations

import http.client
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.processes import descendants
from waypost.bench._processes import free_ports

_START_S = 180.0
_END_S = 3.0
"""Seconds to wait before SIGKILL. Ray takes 20 s or more to end by itself; tests do not wait."""


@dataclass(frozen=True)
class RayHead:
    """A running head.

    Attributes:
        address: URL of its dashboard, which accepts jobs.
        token: Token that it requires.
        pid: Process id of ``ray start --block``, the root of its processes.
        log: File of its output.
    """

    address: str
    token: str
    pid: int
    log: Path

    @property
    def environment(self) -> dict[str, str]:
        """This process's environment with the variables that a client of this head needs."""
        own = {k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "RAY_JOB_ID")}
        auth = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token}
        return {**own, **auth, "RAY_API_SERVER_ADDRESS": self.address}

    def workers(self, name: str) -> list[int]:
        """Return the process ids of tasks and actors whose title contains a name.

        Only these may be killed: Ray's agents have similar titles, and killing one ends the head.
        """
        titles = descendants(self.pid)
        return [pid for pid, title in titles if title.startswith("ray::") and name in title]


@contextmanager
def ray_head(folder: Path, python: str = sys.executable, cpus: int = 4) -> Iterator[RayHead]:
    """Run a head during the block.

    Args:
        folder: Folder for its logs and sockets; a socket's path is limited to 107 bytes.
        python: Interpreter for the head and for jobs without their own environment.
        cpus: Number of logical CPUs.
    """
    gcs, dashboard, agent = free_ports(3)
    # Ray reads its token once per process: if this one has used Ray, a new token is refused.
    token = os.environ.get("RAY_AUTH_TOKEN") or secrets.token_hex(16)
    bin_folder = Path(python).parent
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith("RAY_")},
        "PATH": f"{bin_folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    options = {
        "node-ip-address": "127.0.0.1",
        "port": gcs,
        "dashboard-host": "127.0.0.1",
        "dashboard-port": dashboard,
        "dashboard-agent-listen-port": agent,
        "temp-dir": folder,
        "num-cpus": cpus,
        "object-store-memory": 200_000_000,
    }
    words = [f"--{name}={value}" for name, value in options.items()]
    log = folder / "head.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [str(bin_folder / "ray"), "start", "--head", "--block", *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    try:
        head = RayHead(f"http://127.0.0.1:{dashboard}", token, process.pid, log)
        _wait(head, process)
        yield head
    finally:
        _end(process)


def _wait(head: RayHead, process: subprocess.Popen[bytes]) -> None:
    asks = {"Authorization": f"Bearer {head.token}"}
    deadline = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < deadline:
        connection = http.client.HTTPConnection(head.address.removeprefix("http://"), timeout=5)
        try:
            connection.request("GET", "/api/version", headers=asks)
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            time.sleep(0.2)
        finally:
            connection.close()
    raise RuntimeError(f"the head did not start:\n{head.log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    below = [pid for pid, _ in descendants(process.pid)]
    process.terminate()
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in below:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
