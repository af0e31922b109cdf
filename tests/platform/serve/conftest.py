"""The routers that tests of serving share, fitted once."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.gateway import knn_artifact
from waypost.testing.steps import tiers_artifact


@pytest.fixture(scope="session")
def artifact(tmp_path_factory) -> Path:
    return knn_artifact(tmp_path_factory.mktemp("router") / "artifact")


@pytest.fixture(scope="session")
def tiers(tmp_path_factory) -> Path:
    return tiers_artifact(tmp_path_factory.mktemp("steps"))


@pytest.fixture(scope="session")
def one_vote(tmp_path_factory) -> Path:
    return tiers_artifact(tmp_path_factory.mktemp("one"), votes=1)


@pytest.fixture(scope="session")
def routers(artifact, tmp_path_factory) -> dict[str, str]:
    """Two routers: ``first`` tells the two questions of `support.gateway` apart."""
    single = knn_artifact(tmp_path_factory.mktemp("single") / "artifact", "best_single")
    return {"first": str(artifact), "second": str(single)}
