"""Inputs and outputs in S3: pyarrow's own client against a server of its protocol, moto."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.fs
import pytest
import uv
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.errors import StorageError, StorageMissingError
from waypost.contracts.routing_data import write_routing_data
from waypost.storage import local_copy, mirrored
from waypost.testing.synthetic import planted

pytestmark = pytest.mark.e2e

KEY, SECRET = "AKIAOFTHISTEST000", "secret/of+this-test"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a server, installed for this test alone."""
    folder = tmp_path_factory.mktemp("moto")
    python = folder / "venv" / "bin" / "python"
    uv_bin = uv.find_uv_bin()
    subprocess.run([uv_bin, "venv", "-q", "-p", sys.executable, str(folder / "venv")], check=True)
    call = [uv_bin, "pip", "install", "-q", "-p", str(python), "moto[server,s3]"]
    done = subprocess.run(call, capture_output=True, check=False, text=True)
    if done.returncode:
        if "error sending request" in done.stderr.lower():
            pytest.skip("the package registry cannot be reached from this machine")
        pytest.fail(done.stderr)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [str(python.parent / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(words, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def store(server: str) -> pyarrow.fs.S3FileSystem:
    """The server's bucket ``runs``."""
    opened = pyarrow.fs.S3FileSystem(
        access_key=KEY, secret_key=SECRET, endpoint_override=server, scheme="http",
        region="us-east-1", allow_bucket_creation=True,
    )  # fmt: skip
    opened.create_dir("runs")
    return opened


@pytest.fixture
def uri(server: str, store: pyarrow.fs.S3FileSystem):
    """Make URIs with credentials in them."""

    def make(path: str) -> str:
        secret = SECRET.replace("/", "%2F").replace("+", "%2B")
        end = f"endpoint_override={server}&scheme=http&region=us-east-1"
        return f"s3://{KEY}:{secret}@{path}?{end}"

    return make


def names(store: pyarrow.fs.S3FileSystem, path: str) -> set[str]:
    found = store.get_file_info(pyarrow.fs.FileSelector(path, recursive=True))
    return {one.path.removeprefix(f"{path}/") for one in found if one.is_file}


def test_what_is_written_is_found_again_and_what_goes_goes(uri, store) -> None:
    with mirrored(uri("runs/a")) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "x[1]").write_bytes(bytes(12_000_000))  # more than one part
        (folder / "b").write_bytes(b"1")
    assert names(store, "runs/a") == {"sub/x[1]", "b"}
    with mirrored(uri("runs/a")) as folder:
        assert (folder / "sub" / "x[1]").stat().st_size == 12_000_000
        (folder / "b").unlink()
    assert names(store, "runs/a") == {"sub/x[1]"}
    with local_copy(uri("runs/a/sub/x%5B1%5D")) as file:
        assert file.stat().st_size == 12_000_000


def test_a_missing_bucket_is_said_before_the_work(uri) -> None:
    missing = mirrored(uri("nobucket/a"))
    with pytest.raises(StorageMissingError, match="s3://nobucket/a: ") as caught, missing:
        pytest.fail("it began")
    assert SECRET not in str(caught.value)
    with pytest.raises(StorageMissingError, match="nothing is there"), local_copy(uri("runs/no")):
        pytest.fail("it began")


def test_a_server_that_is_gone_is_said(uri, server) -> None:
    gone = uri("runs/a").replace(server, "127.0.0.1:9")
    with pytest.raises(StorageError, match="s3://runs/a: ") as caught, local_copy(gone):
        pytest.fail("it began")
    assert SECRET not in str(caught.value)
    assert KEY not in str(caught.value)


def test_train_and_route_from_a_bucket(uri, store, tmp_path: Path) -> None:
    with mirrored(uri("runs/data")) as folder:
        write_routing_data(folder, planted(60))
    words = ["--router", "knnrouter", "--encoder", "hashing+d64+t512", "--folds", "0"]
    place = ["--data", uri("runs/data"), "--out", uri("runs/knn")]
    done = CliRunner().invoke(command, ["train", *words, *place])
    assert done.exit_code == 0, done.output
    assert "-> s3://runs/knn" in done.stdout
    assert SECRET not in done.output
    assert "manifest.json" in names(store, "runs/knn")
    call = ["route", "--artifact", uri("runs/knn"), "--query", planted(1).queries[0], "--json"]
    assert '"router": "knnrouter"' in CliRunner().invoke(command, call).stdout
