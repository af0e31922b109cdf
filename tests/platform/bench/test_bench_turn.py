"""A turn of the gateway bench: its process, and a network of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from waypost.bench import _turn as turns
from waypost.bench._client import Slice, from_json, to_json
from waypost.bench.harness import BenchError

LISTENS = """
import socket
from waypost.bench._turn import bring_up_loopback
bring_up_loopback()
server = socket.create_server(("", 0))
client = socket.create_connection(("127.0.0.1", server.getsockname()[1]), timeout=5)
print([name for _, name in socket.if_nameindex()])
"""


def turn(target: str, tmp_path) -> turns.Turn:
    part = Slice("saturation", 2, False, 0.2)
    return turns.Turn(target, tmp_path, tmp_path, 4, (part,), 0, 0.0)


@pytest.fixture(autouse=True)
def forget():
    turns.network.cache_clear()
    yield
    turns.network.cache_clear()


def test_turns_survive_json(tmp_path):
    one = turn("portkey", tmp_path)
    assert from_json(to_json(one), turns.Turn) == one
    assert one.alone
    assert not turn("forwarder", tmp_path).alone


def test_a_turn_in_its_own_process_brings_back_samples(tmp_path):
    (sample,) = turns.taken(turn(turns.DIRECT, tmp_path))
    assert sample.errors == 0
    assert sample.answered > 0


def test_a_target_that_does_not_start_is_told(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WAYPOST_ROOT", str(tmp_path))
    assert turns.main(to_json(turn("litellm", tmp_path))) != 0
    assert "runs from a checkout" in capsys.readouterr().err


def test_a_network_of_its_own_has_a_loopback_and_nothing_else():
    try:
        words = turns.network()
    except BenchError as error:
        pytest.skip(f"this machine gives its users no networks: {error}")
    command = [*words, sys.executable, "-c", LISTENS]
    done = subprocess.run(command, capture_output=True, check=True, text=True)
    assert done.stdout.strip() == "['lo']"


def test_without_a_network_the_reason_is_told(tmp_path, monkeypatch):
    unshare = tmp_path / "unshare"
    unshare.write_text("#!/bin/sh\necho 'unshare: Operation not permitted' >&2; exit 1\n")
    unshare.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(BenchError, match=r"every address, .* \(unshare: Operation not permitted\)"):
        turns.taken(turn("portkey", tmp_path))
    turns.network.cache_clear()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BenchError, match="is missing"):
        turns.network()
