"""Commands whose inputs and outputs are URIs."""

from __future__ import annotations

import json
import uuid

import fsspec
import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.routing_data import write_routing_data
from waypost.storage import mirrored
from waypost.testing.synthetic import planted

ENCODER = "hashing+d64+t512"
SECRET = "user-of-mine:secret-of-mine@"


@pytest.fixture(scope="module")
def base() -> str:
    """A folder in the memory of this process, with credentials in its URI."""
    return f"memory://{SECRET}{uuid.uuid4().hex}"


@pytest.fixture(scope="module")
def shown(base: str) -> str:
    return base.replace(SECRET, "")


@pytest.fixture(scope="module")
def data(base: str) -> str:
    with mirrored(f"{base}/data") as folder:
        write_routing_data(folder, planted(60))
        write_routing_data(folder, planted(40, seed=1), "test")
    return f"{base}/data"


@pytest.fixture(scope="module")
def artifact(base: str, data: str) -> str:
    made = run("train", "--data", data, "--out", f"{base}/knn", "--encoder", ENCODER,
               "--router", "knnrouter")  # fmt: skip
    assert made.exit_code == 0, made.output
    return f"{base}/knn"


def run(*arguments: str):
    return CliRunner().invoke(command, arguments)


def names(uri: str) -> set[str]:
    store, path = fsspec.core.url_to_fs(uri)
    return {one.removeprefix(f"{path}/") for one in store.find(path)}


def test_train_reads_and_writes_uris(base, shown, data, artifact):
    assert {"manifest.json", "weights.safetensors"} <= names(artifact)
    again = run("train", "--data", data, "--out", artifact, "--encoder", ENCODER,
                "--router", "knnrouter", "--folds", "0")  # fmt: skip
    assert again.exit_code == 0, again.output
    assert f"-> {shown}/knn" in again.stdout
    assert "secret-of-mine" not in again.output


def test_evaluate_compares_artifacts_at_uris_and_reports_to_one(base, shown, data, artifact):
    out = f"{base}/report"
    done = run("evaluate", artifact, "best_single", "--data", data, "--out", out,
               "--encoder", ENCODER)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert f"report: {shown}/report/report.md" in done.stdout
    store, path = fsspec.core.url_to_fs(out)
    report = json.loads(store.cat_file(f"{path}/report.json"))
    assert set(report["routers"]) == {"knn", "best_single"}
    assert shown in report["command"]
    for name in names(out):
        assert b"secret-of-mine" not in store.cat_file(f"{path}/{name}")
    assert "secret-of-mine" not in done.output


def test_route_loads_an_artifact_from_a_uri(artifact):
    result = run("route", "--artifact", artifact, "--query", planted(1).queries[0], "--json")
    assert json.loads(result.stdout)["router"] == "knnrouter"


def test_what_is_not_there_is_said_by_its_uri(base, shown, artifact):
    result = run("train", "--data", f"{base}/none", "--out", f"{base}/x", "--router", "knnrouter")
    assert (result.exit_code, f"error: {shown}/none: nothing is there" in result.stderr) == (
        1,
        True,
    )
    result = run("route", "--artifact", f"{base}/data", "--query", "x")
    assert result.exit_code == 1
    assert f"{shown}/data" in result.stderr
    assert "waypost-" not in result.stderr


def test_a_folder_that_is_no_artifact_is_not_overwritten(base, data):
    before = names(data)
    result = run("train", "--data", data, "--out", data, "--router", "knnrouter")
    assert result.exit_code == 1
    assert "is not an artifact" in result.stderr
    assert names(data) == before


def test_an_unknown_scheme_is_a_failure_that_names_it(data):
    result = run("train", "--data", data, "--out", "foo://b/x", "--router", "knnrouter")
    assert result.exit_code == 1
    assert "foo://b/x: unknown kind of store foo://" in result.stderr


def test_a_file_uri_is_a_path(tmp_path):
    result = run(
        "train", "--data", f"file://{tmp_path}/none", "--out", "x", "--router", "knnrouter"
    )
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
