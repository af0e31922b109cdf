"""The public port between processes: the launcher listens, replicas accept, some are killed."""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from waypost.serve.handover import Doorkeeper, knock, listen

REPLICA = """
import os, sys
from waypost.serve.handover import knock
door = knock(sys.argv[1], "app")
print("holds", flush=True)
while True:
    connection, _ = door.listener.accept()
    connection.recv(100)
    connection.sendall(b"%d\\n" % os.getpid())
    connection.close()
"""


@contextmanager
def replica(keeper: Doorkeeper) -> Iterator[subprocess.Popen]:
    command = [sys.executable, "-P", "-c", REPLICA, str(keeper.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout.readline() == "holds\n"
            yield process
        finally:
            process.kill()


@pytest.fixture
def keeper() -> Iterator[Doorkeeper]:
    with Doorkeeper(listen("127.0.0.1", 0), "app", "/app") as found:
        yield found


def asked(keeper: Doorkeeper) -> socket.socket:
    client = socket.create_connection(keeper.address, 30)
    client.sendall(b"?")
    return client


def answer(client: socket.socket) -> int:
    with client:
        return int(client.recv(100))


def until(condition) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_only_its_user_may_ask_for_the_port(keeper):
    assert stat.S_IMODE(keeper.path.parent.stat().st_mode) == 0o700


def test_a_connection_waits_while_the_only_replica_is_killed_and_replaced(keeper):
    with replica(keeper) as first:
        assert answer(asked(keeper)) == first.pid
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        until(lambda: keeper.replicas == 0)
        waiting = [asked(keeper) for _ in range(100)]
        with replica(keeper) as second:
            assert {answer(client) for client in waiting} == {second.pid}


def test_replicas_share_the_port(keeper):
    with replica(keeper) as first, replica(keeper) as second:
        found = {answer(asked(keeper)) for _ in range(200)}
        assert found <= {first.pid, second.pid}
        first.kill()
        first.wait()
        assert answer(asked(keeper)) == second.pid


def test_another_application_gets_nothing(keeper):
    assert knock(str(keeper.path), "other") is None
    assert keeper.replicas == 0


def test_the_launcher_knows_when_every_replica_is_idle(keeper):
    doors = [knock(str(keeper.path), "app") for _ in range(3)]
    until(lambda: keeper.replicas == 3)
    assert doors[0].prefix == "/app"
    doors[0].tell_idle()
    assert not keeper.wait_until_idle(0.1)
    doors[1].close()  # it has ended
    doors[2].tell_idle()
    assert keeper.wait_until_idle(30)
    for door in doors:
        door.close()
        door.listener.close()


def test_a_port_that_is_taken_is_not_shared(keeper):
    with pytest.raises(OSError, match="in use"):
        listen(*keeper.address)
