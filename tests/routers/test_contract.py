"""Every score router of the registry x every check: a new router file is covered as it is."""

from __future__ import annotations

import pytest

from waypost.contracts.router import MetaRouter, ScoreRouter
from waypost.registry import list_routers, router_class
from waypost.testing.artifact_contract import check_fresh_process
from waypost.testing.router_contract import all_checks

ROUTERS = [entry.name for entry in list_routers([]) if entry.source == "built-in"]


def score_routers():
    return [name for name in ROUTERS if issubclass(router_class(name), ScoreRouter)]


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", ROUTERS)
def test_contract(name, check):
    if not issubclass(router_class(name), ScoreRouter):
        pytest.skip("predicts no scores: its own tests check it")
    check(name)


@pytest.mark.parametrize("name", ROUTERS)
def test_file_name_is_registry_name(name):
    cls = router_class(name)
    assert issubclass(cls, MetaRouter)
    assert cls.name == name
    assert cls.__module__ == f"waypost_routers.{name}"
    assert cls.__doc__


def test_saved_routers_score_alike_in_a_fresh_process(tmp_path):
    check_fresh_process(score_routers(), tmp_path)


def test_the_battery_is_not_empty():
    assert len(all_checks()) >= 25
    assert {"knnrouter", "best_single", "randomrouter"} <= set(score_routers())
