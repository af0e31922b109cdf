"""CPU time and memory of the processes of a measured server."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from waypost.bench import _usage as usage

ROLLUP = """\
aaaa-ffff ---p 00000000 00:00 0    [rollup]
Rss:              200000 kB
Pss:              125000 kB
Pss_Dirty:         90000 kB
Anonymous:         80000 kB
"""


@contextmanager
def titled(title: str, code: str = "import time; time.sleep(60)"):
    """Run Python under another title, as Ray's workers do."""
    process = subprocess.Popen([title, "-c", code], executable=sys.executable)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_memory_is_in_millions_of_bytes():
    found = usage.memory_of(ROLLUP)
    assert (found.rss_mb, found.pss_mb) == (204.8, 128.0)


def test_a_process_that_has_ended_has_no_memory_and_no_cpu():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    with pytest.raises(OSError):
        usage.memory(process.pid)
    assert usage.Cpu(process.pid).since() == 0.0
    assert usage.replicas(process.pid, "Gateway") == []


@pytest.mark.parametrize(
    "command",
    [
        "/v/ray/core/src/ray/raylet/raylet --raylet_socket_name=x",
        "/v/ray/core/src/ray/gcs/gcs_server --log_dir=logs",
        "/v/bin/python -u /v/ray/_private/log_monitor.py --session-dir=session",
        "/v/bin/python -u /v/ray/dashboard/agent.py --node-ip-address=127.0.0.1",
        "ray-dashboard-StateHead-0 (/v/bin/python -c from multiprocessing.spawn)",
        "ray::DashboardAgent",
        "ray::ServeController.run_control_loop",
    ],
)
def test_rays_own_processes_manage(command):
    assert usage.manages(command)


@pytest.mark.parametrize(
    "command",
    [
        "/v/bin/python -m waypost.cli serve config.yaml",
        "ray::ServeReplica:waypost:Gateway",
        "ray::ProxyActor",
        "haproxy -db -f /tmp/haproxy.cfg",
        "node start-server.js --headless",
    ],
)
def test_what_requests_pass_does_not_manage(command):
    assert not usage.manages(command)


def test_replicas_are_known_by_their_titles():
    title = "ray::ServeReplica:waypost:Gateway"
    assert usage.is_replica(title, "Gateway")
    assert usage.is_replica(f"{title}.handle_request_streaming", "Gateway")
    assert not usage.is_replica(f"{title}OfOthers", "Gateway")
    assert not usage.is_replica("ray::ServeReplica:waypost:Router", "Gateway")


def test_cpu_is_that_of_descendants_that_see_requests():
    burn = "while True: pass"
    starts = "".join(
        f"subprocess.Popen([{title!r}, '-c', {burn!r}], executable={sys.executable!r})\n"
        for title in ("ray::ServeController", "worker")
    )
    code = f"import subprocess, time\n{starts}time.sleep(60)"
    with titled("server", code) as server:
        until = time.monotonic() + 20
        while len(found := list(usage.tree(server.pid))) < 3:
            assert time.monotonic() < until
            time.sleep(0.02)
        (worker,) = (one for one, command in found if command.startswith("worker"))
        try:
            cpu, begun = usage.Cpu(server.pid), worker.cpu_times().user
            time.sleep(0.3)
            used = cpu.since()
            assert 0 <= used <= worker.cpu_times().user - begun + 0.1
        finally:
            for one, _ in found[1:]:
                one.kill()
