"""Every file of serve_configs and tune_configs is valid, and the k8s copy with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from waypost.contracts.router import TrainableRouter
from waypost.registry import router_class
from waypost.serve.config_file import validate_serve_config
from waypost.tune.config import check_against, load_tune_config

ROOT = Path(__file__).resolve().parents[2]
SERVE_CONFIGS = sorted((ROOT / "serve_configs").glob("*.yaml"))
TUNE_CONFIGS = sorted((ROOT / "tune_configs").glob("*.yaml"))


def file_name(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("path", SERVE_CONFIGS, ids=file_name)
def test_a_serve_config_is_valid_and_listens_on_this_machine_only(path: Path) -> None:
    assert validate_serve_config(path).host == "127.0.0.1"


@pytest.mark.parametrize("path", SERVE_CONFIGS, ids=file_name)
def test_the_head_of_a_serve_config_says_how_to_start_it(path: Path) -> None:
    head = path.read_text(encoding="utf-8").partition("http_options")[0]
    assert f"serve_configs/{path.name}" in head


# all.yaml names the others: tests/platform/tune/test_tune_sweep.py reads it
@pytest.mark.parametrize("path", [p for p in TUNE_CONFIGS if p.stem != "all"], ids=file_name)
def test_a_tune_config_is_valid_and_named_after_its_router(path: Path) -> None:
    config = load_tune_config(path)
    assert config.router == path.stem
    router = router_class(config.router)
    assert issubclass(router, TrainableRouter)
    check_against(config, router.parameter_constraints, str(path))


@pytest.mark.parametrize("path", [*SERVE_CONFIGS, *TUNE_CONFIGS], ids=file_name)
def test_a_config_names_no_absolute_path(path: Path) -> None:
    def texts(node: Any) -> list[str]:
        if isinstance(node, dict):
            return [text for value in node.values() for text in texts(value)]
        if isinstance(node, list):
            return [text for value in node for text in texts(value)]
        return [node] if isinstance(node, str) else []

    found = texts(yaml.safe_load(path.read_text(encoding="utf-8")))
    assert [text for text in found if text.startswith(("/", "~")) and text != "/"] == []
