"""A node leaves its cluster: preStop of a pod."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from waypost.serve import leave

RAYLET = [
    "/usr/lib/python3/dist-packages/ray/core/src/ray/raylet/raylet",
    "--raylet_socket_name=sockets/raylet",
    "--node_ip_address=10.1.2.3",
    "--gcs-address=10.1.2.1:6379",
    "--node_id=ab12cd",
]


def test_a_raylet_tells_its_node_and_its_head() -> None:
    assert leave.node_of(7, RAYLET) == leave.Node("ab12cd", "10.1.2.1", 6379, 7)
    inside = [word.replace("10.1.2.1:", "[fd00::1]:") for word in RAYLET]
    node = leave.node_of(7, inside)
    assert node is not None
    assert (node.host, node.head) == ("fd00::1", "fd00::1:6379")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["ray::IDLE"],
        RAYLET[:-1],
        [word for word in RAYLET if "gcs" not in word],
        # an agent has the same flags
        [sys.executable, "dashboard/agent.py", *RAYLET[1:]],
    ],
)
def test_other_processes_are_no_node(words: list[str]) -> None:
    assert leave.node_of(7, words) is None


class Time:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def waited(left: Iterator[int], answers: Iterator[bool], within_s: float) -> tuple[str, float]:
    time = Time()
    why = leave.wait(
        lambda: next(left), lambda: next(answers), within_s, clock=time, sleep=time.sleep
    )
    return why, time.now - 100.0


def always(value: int) -> Iterator[int]:
    while True:
        yield value


def test_it_returns_when_the_last_replica_is_gone() -> None:
    why, seconds = waited(iter([2, 2, 1, 0]), iter([True] * 3), 690)
    assert (why, seconds) == ("no replica is left after 2 s", 1.5)


def test_it_waits_no_longer_than_it_may() -> None:
    why, seconds = waited(always(1), iter([True] * 100), 20)
    assert (why, seconds) == ("replicas that have not finished in 20 s: 1", 20.0)


def test_it_does_not_wait_for_a_cluster_that_is_deleted() -> None:
    answers = iter([True] * 10 + [False] * 200)
    why, seconds = waited(always(1), answers, 690)
    assert why == "the head is gone for 30 s; replicas that end with it: 1"
    assert seconds == pytest.approx(34.5, abs=1)


def test_a_head_that_comes_back_is_waited_for() -> None:
    answers = iter(([True] + [False] * 50) * 20)
    why, _ = waited(iter([1] * 1000 + [0]), answers, 690)
    assert why.startswith("no replica is left")


def test_a_head_answers_or_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert leave.head_answers(leave.Node("ab", "127.0.0.1", port, 1))
    assert not leave.head_answers(leave.Node("ab", "127.0.0.1", port, 1))


def test_replicas_are_counted_among_the_children_of_the_raylet() -> None:
    node = leave.Node("ab", "127.0.0.1", 1, os.getpid())
    before = leave.replicas(node)
    titled = ["ray::ServeReplica:waypost:Gateway", "-c", "input()"]
    with subprocess.Popen(titled, executable=sys.executable, stdin=subprocess.PIPE) as child:
        assert leave.replicas(node) == before + 1
        assert child.stdin is not None
        child.stdin.close()
    assert leave.replicas(node) == before


def test_a_raylet_that_is_gone_has_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass
    assert leave.replicas(leave.Node("ab", "127.0.0.1", 1, child.pid)) == 0


def test_without_a_node_it_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert leave.main(["--within", "1", "--node", "none"]) == 1
    assert "expected one Ray node on this machine, found 0" in capsys.readouterr().err
