"""A router, and keys read anew for each test: a command's process has its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.gateway import knn_artifact
from waypost.secrets import key_ring


@pytest.fixture(scope="session")
def knn(tmp_path_factory) -> Path:
    return knn_artifact(tmp_path_factory.mktemp("router") / "artifact")


@pytest.fixture(autouse=True)
def own_keys():
    key_ring.cache_clear()
    yield
    key_ring.cache_clear()
