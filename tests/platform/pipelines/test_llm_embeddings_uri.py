"""LLM embeddings go where the run's other files go, into a store, too."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import yaml

from waypost.pipelines.data import llm_embeddings


def test_they_are_written_to_the_uri_and_its_secret_is_not_told(tmp_path: Path) -> None:
    name = uuid.uuid4().hex
    config = {
        "out": f"memory://me:secret-of-mine@{name}/data",
        "encoder": {"kind": "hashing", "dimension": 32},
        "llms": {"a": {"engine": "echo"}},
    }
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    report = llm_embeddings.run(tmp_path / "run.yaml")
    assert report["folder"] == f"memory://{name}/data"
    store, path = fsspec.core.url_to_fs(config["out"])
    assert {"llm_embeddings.json", "llms.json"} <= {
        one.rpartition("/")[2] for one in store.find(path)
    }
    assert [one.name for one in tmp_path.iterdir()] == ["run.yaml"]
