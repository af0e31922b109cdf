"""The router that most tests of serving use, fitted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.gateway import knn_artifact


@pytest.fixture(scope="session")
def artifact(tmp_path_factory) -> Path:
    return knn_artifact(tmp_path_factory.mktemp("router") / "artifact")
