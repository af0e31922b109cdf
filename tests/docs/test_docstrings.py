"""The examples in docstrings run, and a router, a metric and an engine have one."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

PACKAGES = {
    "platform/waypost": "waypost",
    "routers/waypost_routers": "waypost_routers",
    "rl/waypost_rl": "waypost_rl",
}


def with_examples(root: Path) -> list[str]:
    """Modules whose source holds an example."""
    return sorted(
        ".".join((name, *source.relative_to(root / folder).with_suffix("").parts))
        for folder, name in PACKAGES.items()
        for source in (root / folder).rglob("*.py")
        if ">>> " in source.read_text(encoding="utf-8")
    )


MODULES = with_examples(Path(__file__).resolve().parents[2])


@pytest.mark.parametrize("module", MODULES)
def test_the_examples_of_a_module_run(root: Path, monkeypatch, module: str) -> None:
    monkeypatch.chdir(root)
    failed, tried = doctest.testmod(import_module(module), verbose=False)
    assert tried > 0
    assert failed == 0


@pytest.mark.parametrize("part", ["waypost_routers.", "waypost.metrics.", "waypost.engines."])
def test_a_router_a_metric_and_an_engine_have_an_example(part: str) -> None:
    assert [module for module in MODULES if module.startswith(part)] != []
