"""One run at a time in a folder or a store: who is refused, what they read, what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path

import fsspec
import pytest
import yaml
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.errors import FolderInUseError, StorageAccessError
from waypost.storage import Uri, alone_in
from waypost.storage import lock as leases
from waypost.storage.lock import LOCK, me

HOLD = """
import sys, time
from pathlib import Path
from waypost.storage import alone_in
with alone_in(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def another(tmp_path):
    """Another process that holds the folder; killed at the end."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_second_run_is_told_who_holds_the_folder_and_a_kill_frees_it(tmp_path, another):
    said = rf"process {another.pid} on {socket.gethostname()}, since 20\d\d-.* UTC"
    with pytest.raises(FolderInUseError, match=said), alone_in(tmp_path):
        pass
    os.kill(another.pid, signal.SIGKILL)
    another.wait()
    assert (tmp_path / LOCK).is_file()
    with alone_in(tmp_path):
        assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("name", ["run", "responses", "queries", "llm-embeddings"])
def test_every_phase_refuses_before_it_writes(tmp_path, another, name):
    config = tmp_path / "data.yaml"
    llms = {"a": {"engine": "echo", "feature": "echoes"}}
    data = {"out": ".", "encoder": {"kind": "hashing", "dimension": 32}, "llms": llms}
    question = {"query_id": "q", "task_name": "t", "query": "?", "ground_truth": "7",
                "metric": "number", "max_tokens": 8}  # fmt: skip
    (tmp_path / "mine.jsonl").write_text(json.dumps(question) + "\n")
    config.write_text(yaml.safe_dump(data | {"questions": ["mine.jsonl"], "test_share": 0.0}))
    before = sorted(path.name for path in tmp_path.iterdir())
    done = CliRunner().invoke(command, ["data", name, "--config", str(config)])
    assert done.exit_code == 1, done.output
    assert f"another run uses it (process {another.pid}" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_blocks_of_one_run_are_nested_and_another_thread_is_another_run(tmp_path):
    refused = []

    def other() -> None:
        try:
            with alone_in(tmp_path):
                pass
        except FolderInUseError as error:
            refused.append(str(error))

    with alone_in(tmp_path):
        with alone_in(tmp_path):
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert (tmp_path / LOCK).is_file()
    assert len(refused) == 1
    assert f"process {os.getpid()} on" in refused[0]


def test_many_at_once_are_never_two(tmp_path):
    inside, most, lock = 0, 0, threading.Lock()

    def run() -> None:
        nonlocal inside, most
        won = 0
        while won < 8:
            try:
                with alone_in(tmp_path):
                    won += 1
                    with lock:
                        inside += 1
                        most = max(most, inside)
                    time.sleep(0.0002)
                    with lock:
                        inside -= 1
            except FolderInUseError:
                time.sleep(0.0001)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    tmp_path.chmod(0o555)
    with pytest.raises(StorageAccessError, match=LOCK), alone_in(tmp_path):
        pass


@pytest.fixture
def store(monkeypatch):
    monkeypatch.setattr(leases, "_SETTLE_S", 0.0)
    return Uri(f"memory://{uuid.uuid4().hex}/data")


def written(uri: Uri) -> dict[str, object]:
    files, path = fsspec.core.url_to_fs(uri.reveal())
    return json.loads(files.cat_file(f"{path}/{LOCK}"))


def write(uri: Uri, **holder: object) -> None:
    files, path = fsspec.core.url_to_fs(uri.reveal())
    files.pipe_file(f"{path}/{LOCK}", json.dumps(holder).encode())


def test_a_lease_in_a_store_is_refused_while_it_is_renewed_and_taken_away_at_the_end(
    store, monkeypatch
):
    monkeypatch.setattr(leases, "_RENEW_S", 0.01)
    with alone_in(store):
        first = written(store)
        assert first["pid"] == os.getpid()
        with pytest.raises(FolderInUseError, match=f"process {os.getpid()} on"):
            leases._Lease(store).take()
        deadline = time.monotonic() + 20
        while written(store)["seen"] == first["seen"]:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    with pytest.raises(FileNotFoundError):
        written(store)


@pytest.mark.parametrize(
    ("holder", "refused"),
    [
        ({"pid": 1, "host": "far", "since": "then", "seen": 1e12}, True),
        ({"pid": 1, "host": "far", "since": "then", "seen": 1.0}, False),
        ({"pid": 1, "host": "far", "since": "then"}, False),
        (me() | {"pid": 2**22 + 1, "seen": 1e12}, False),  # beyond the greatest number
        (me() | {"seen": 1e12}, True),
    ],
    ids=["renewed", "not renewed", "no time", "our machine, gone", "our machine, runs"],
)
def test_what_a_killed_run_left_in_a_store_ends_with_its_time_or_its_process(
    store, holder, refused
):
    write(store, **holder)
    if refused:
        with pytest.raises(FolderInUseError), alone_in(store):
            pass
        assert written(store) == holder
    else:
        with alone_in(store):
            assert written(store)["pid"] == os.getpid()


def test_of_two_that_begin_in_the_same_moment_the_later_one_has_it(store, monkeypatch):
    first, second = leases._Lease(store), leases._Lease(store)
    # the second one looked before the first one wrote, and writes while the first one waits
    monkeypatch.setattr(leases.time, "sleep", lambda _: second._write())
    with pytest.raises(FolderInUseError):
        first.take()
    first.end()
    assert written(store)["run"] == second._me["run"]
    second.end()
    with pytest.raises(FileNotFoundError):
        written(store)


def test_a_folder_of_a_path_with_links_is_the_same(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "link").symlink_to("data")
    with alone_in(tmp_path / "data"), alone_in(tmp_path / "link"):
        assert (tmp_path / "data" / LOCK).is_file()
    assert list(Path(tmp_path / "data").iterdir()) == []
