"""``waypost serve`` with its gateway killed, and killed itself."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import processes
from support.gateway import arguments, knn_artifact
from support.load import Ask, Load
from support.served import IN_TIME_S, Command, command

pytestmark = [
    pytest.mark.ray,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

WORKERS = 16
ENDED_S = 30.0


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[Command]:
    folder: Path = tmp_path_factory.mktemp("kills")
    args = arguments(knn_artifact(folder / "artifact"))
    app = {"name": "app", "import_path": "waypost.serve.app:build", "args": args}
    with command({"applications": [app]}, folder) as found:
        found.until(lambda: "Ctrl-C stops it" in found.said())
        yield found


def workers(server: Command, title: str) -> list[int]:
    """Return the ids of the workers whose titles begin with ``title``."""
    found = processes.descendants(server.process.pid)
    return [pid for pid, name in found if name.startswith(f"ray::{title}")]


def gateways(server: Command) -> list[int]:
    return workers(server, "ServeReplica:app:Gateway")


async def test_requests_wait_while_the_only_gateway_is_killed(server):
    async with Load(f"{server.url}/v1", [Ask("cook")], workers=WORKERS) as load:
        await load.finished(10 * WORKERS)
        server.until(lambda: bool(workers(server, "IDLE")))
        standing_by = workers(server, "IDLE")
        (gateway,) = gateways(server)
        fault = load.clock()
        os.kill(gateway, signal.SIGKILL)
        await load.finished(10 * WORKERS, IN_TIME_S)
    # each worker loses at most the request it has open, and none is refused
    lost = [sample for sample in load.samples if not sample.ok]
    assert len(lost) <= WORKERS
    assert {sample.end for sample in lost} <= {"lost", "cut"}
    assert all(sample.start <= fault + 0.5 for sample in lost)
    # a process with all imports stood by, which saves most of the time without a gateway
    (successor,) = gateways(server)
    assert successor in standing_by
    server.until(lambda: bool(workers(server, "IDLE")))


def test_a_killed_server_leaves_no_process_and_no_port(server):
    left = [server.process.pid, *(pid for pid, _ in processes.descendants(server.process.pid))]
    assert len(left) > 5
    server.process.kill()
    server.process.wait()
    end = time.monotonic() + ENDED_S
    while any(Path(f"/proc/{pid}").exists() for pid in left):
        assert time.monotonic() < end, [pid for pid in left if Path(f"/proc/{pid}").exists()]
        time.sleep(0.1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 5)
