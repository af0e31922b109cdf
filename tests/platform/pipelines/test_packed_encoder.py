"""An artifact that holds its static encoder's table is served without the model's own weights."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from support.gateway import echo_pool
from support.static_table import write_table
from waypost.config import settings
from waypost.contracts.artifact import ENCODER, read_manifest
from waypost.contracts.errors import ConfigError, WaypostError
from waypost.contracts.routing_data import write_routing_data
from waypost.loading import load_router
from waypost.pipelines.train import read_train_config, train
from waypost.serve.local import Gateway
from waypost.testing.synthetic import planted

WORDS = {"cook": "red", "prover": "blue"}


@pytest.fixture
def world(tmp_path: Path, monkeypatch) -> Path:
    """Routing data whose LLMs are told apart by a word, and a static model under models/tiny."""
    monkeypatch.setenv("WAYPOST_ROOT", str(tmp_path))
    monkeypatch.setenv("WAYPOST_CACHE", str(tmp_path / "cache"))
    settings.cache_clear()
    write_table(tmp_path / "models" / "tiny")
    data = planted(60)
    best = [data.names[j] for j in data.quality.argmax(axis=1)]
    queries = tuple(f"{WORDS.get(name, 'green')} {i}" for i, name in enumerate(best))
    plain = replace(data, queries=queries, embeddings=None, encoder_id=None)
    write_routing_data(tmp_path / "data", plain)
    return tmp_path


def trained(world: Path, name: str, **more) -> Path:
    encoder = {"kind": "static", "model": "models/tiny", "dimension": 3, "structure": False}
    config = read_train_config({"router": "knnrouter", "encoder": encoder, "folds": 0, **more})
    return train(config, world / "data", world / name).folder


async def test_a_packed_artifact_needs_no_weights_of_the_encoder(world) -> None:
    packed = trained(world, "packed", pack_encoder=True)
    plain = trained(world, "plain")
    manifest = read_manifest(packed)
    assert manifest.packs_encoder
    assert not read_manifest(plain).packs_encoder
    assert manifest.version != read_manifest(plain).version
    shutil.rmtree(world / "models")
    assert load_router(packed).route_single("red").model == "cook"
    async with Gateway(artifact=packed, pool=echo_pool()) as gateway:
        for name, word in WORDS.items():
            assert (await gateway.route_async(word)).model == name
    with pytest.raises(WaypostError):
        load_router(plain).route_single("red")


def test_a_changed_table_is_found(world) -> None:
    packed = trained(world, "packed", pack_encoder=True)
    (packed / ENCODER / "config.json").write_text("{}")
    with pytest.raises(WaypostError, match="changed after training"):
        load_router(packed)


def test_only_a_static_encoder_is_packed() -> None:
    with pytest.raises(ConfigError, match="pack_encoder: only a static encoder"):
        read_train_config({"router": "knnrouter", "encoder": "hashing", "pack_encoder": True})
