"""What the gateway bench is measured beside: locks, reasons where something is missing, configs."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from waypost.bench import _peers as peers
from waypost.bench.harness import BenchError, Tell
from waypost.config import settings


@pytest.fixture
def checkout(root, tmp_path, monkeypatch):
    """Settings of this checkout with an empty cache."""
    monkeypatch.setenv("WAYPOST_ROOT", str(root))
    monkeypatch.setenv("WAYPOST_CACHE", str(tmp_path / "cache"))
    settings.cache_clear()
    return root


def test_the_lock_of_litellm_names_versions_and_nothing_else(root):
    lock = root / peers.LITELLM_LOCK
    lines = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9.-]+==[0-9][a-z0-9.]*", line)] == []
    assert lines == sorted(lines)
    assert peers.litellm_version(lock) == "1.106.2"


def test_the_lock_of_portkey_pins_a_server_whose_streams_work(root):
    lock = root / peers.PORTKEY_LOCK
    packages = json.loads(lock.read_text())["packages"]
    assert peers.portkey_version(lock) == "1.15.2"
    # with the version that npm takes by itself every stream is answered 500
    assert packages["node_modules/@hono/node-server"]["version"] == "1.13.8"
    assert all("integrity" in one for name, one in packages.items() if name)


def test_a_lock_without_its_package_is_told(tmp_path):
    (tmp_path / "other.txt").write_text("aiohttp==3.9\n")
    with pytest.raises(BenchError, match="names no version of litellm"):
        peers.litellm_version(tmp_path / "other.txt")
    (tmp_path / "lock.json").write_text("{}")
    with pytest.raises(BenchError, match="names no version of @portkey-ai/gateway"):
        peers.portkey_version(tmp_path / "lock.json")


@pytest.mark.parametrize("name", ["litellm", "portkey"])
def test_outside_a_checkout_there_is_no_lock(tmp_path, monkeypatch, name):
    monkeypatch.setenv("WAYPOST_ROOT", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(BenchError, match="runs from a checkout"):
        peers.PEERS[name](Tell())
    assert peers.versions() == {"Waypost before": "bceb7c4"}


@pytest.mark.parametrize("name", peers.PEERS)
def test_nothing_is_downloaded_offline(checkout, monkeypatch, name):
    monkeypatch.setattr(peers, "node_program", str)
    monkeypatch.setenv("WAYPOST_OFFLINE", "1")
    settings.cache_clear()
    with pytest.raises(BenchError, match="forbids"):
        peers.PEERS[name](Tell())


def test_what_is_installed_is_not_installed_again(checkout):
    folder = peers._kept("it", "1.0", b"lock", lambda folder: folder.mkdir(), Tell())
    (folder / "mine").touch()
    assert peers._kept("it", "1.0", b"lock", lambda folder: folder.mkdir(), Tell()) == folder
    assert (folder / "mine").exists()
    assert peers._kept("it", "1.0", b"other", lambda folder: folder.mkdir(), Tell()) != folder


def test_an_unfinished_installation_begins_again(checkout):
    def breaks(folder):
        folder.mkdir()
        (folder / "half").touch()
        raise BenchError("no network")

    with pytest.raises(BenchError, match="no network"):
        peers._kept("it", "1.0", b"lock", breaks, Tell())
    folder = peers._kept("it", "1.0", b"lock", lambda folder: folder.mkdir(), Tell())
    assert not (folder / "half").exists()


def test_a_clone_without_the_old_build_is_told(checkout, tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet", str(tmp_path / "clone")], check=True)
    monkeypatch.setenv("WAYPOST_ROOT", str(tmp_path / "clone"))
    settings.cache_clear()
    with pytest.raises(BenchError, match="this clone does not have commit bceb7c4"):
        peers.old(Tell())


def test_without_node_portkey_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("WAYPOST_ROOT", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    settings.cache_clear()
    with pytest.raises(BenchError, match=r"node is not installed: .* `make env-clients`"):
        peers.node_program("node")
    clients = tmp_path / ".venv-clients" / "bin" / "node"
    clients.parent.mkdir(parents=True)
    clients.touch()
    assert peers.node_program("node") == str(clients)


def test_litellm_is_given_the_same_upstream_without_retries():
    found = peers.litellm_config(4000, ["a", "b"])
    assert [entry["model_name"] for entry in found["model_list"]] == ["a", "b"]
    assert found["model_list"][0]["litellm_params"]["api_base"] == "http://127.0.0.1:4000/v1"
    assert found["router_settings"]["num_retries"] == 0
