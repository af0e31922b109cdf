"""Routers that are served from a store: their URI stands in the config instead of a folder."""

from __future__ import annotations

import shutil
import uuid

import pytest
from pydantic import ValidationError

from support.gateway import COOKING, arguments
from waypost.contracts.errors import ArtifactFormatError, StorageSchemeError
from waypost.loading import manifest_of
from waypost.serve.backends.messages import read_reply
from waypost.serve.backends.router_replica import Routers
from waypost.serve.changes import change_plan
from waypost.serve.config import AUTO, ServeArgs, UserConfig
from waypost.serve.plan import make_plan
from waypost.storage import mirrored


@pytest.fixture(scope="module")
def stored(artifact) -> str:
    uri = f"memory://{uuid.uuid4().hex}/routers/knn"
    with mirrored(uri) as folder:
        shutil.copytree(artifact, folder, dirs_exist_ok=True)
    return uri


def decided(plan) -> str:
    routers = Routers(plan.router)
    routers.load()
    return read_reply(routers.decide([({"query": COOKING}, AUTO)])[0]).model


def test_a_router_is_served_from_its_uri(artifact, stored):
    plan = make_plan(ServeArgs.model_validate(arguments(stored)))
    assert plan.router.artifacts == {"knnrouter": stored}
    assert decided(plan) == decided(make_plan(ServeArgs.model_validate(arguments(artifact))))
    assert manifest_of(stored) == manifest_of(artifact)


def test_a_router_of_a_store_takes_over_while_the_graph_runs(artifact, stored):
    graph = make_plan(ServeArgs.model_validate(arguments(artifact)))
    loaded = Routers(graph.router)
    loaded.load()
    changed = change_plan(graph, UserConfig(artifact=stored))
    assert changed.router.artifacts == {"knnrouter": stored}
    routers = Routers(changed.router, loaded)
    routers.load()
    # the same version: it is not read anew, wherever it lies
    assert routers._routers["knnrouter"] is loaded._routers["knnrouter"]


def test_file_is_a_path(artifact):
    plan = make_plan(ServeArgs.model_validate(arguments(artifact.as_uri())))
    assert plan.router.artifacts == {"knnrouter": str(artifact)}


def test_where_nothing_is_stored_the_uri_is_named():
    uri = f"memory://{uuid.uuid4().hex}/nothing"
    with pytest.raises(ArtifactFormatError, match=f"{uri}: no manifest.json"):
        make_plan(ServeArgs.model_validate(arguments(uri)))
    with pytest.raises(StorageSchemeError, match="nostore"):
        make_plan(ServeArgs.model_validate(arguments("nostore://bucket/knn")))


@pytest.mark.parametrize("model", [ServeArgs, UserConfig])
def test_credentials_belong_into_the_environment(model):
    uri = "memory://me:secret-of-mine@there/knn"
    data = arguments(uri) if model is ServeArgs else {"artifact": uri}
    with pytest.raises(ValidationError, match="holds credentials") as caught:
        model.model_validate(data)
    assert "secret-of-mine" not in str(caught.value.errors(include_input=False, include_url=False))
