"""Run every contract check on every score router of the registry, new router files included.

Routers that predict no scores (automix) have their own tests.
"""

from __future__ import annotations

import pytest

from waypost.contracts.router import MetaRouter, ScoreRouter
from waypost.registry import find_router, list_routers, router_class
from waypost.testing.artifact_contract import check_fresh_process
from waypost.testing.router_contract import all_checks

ROUTERS = [entry.name for entry in list_routers([]) if entry.source == "built-in"]


def fine_tunes(name):
    return getattr(router_class(name), "needs_weights", None) is not None


def score_routers(*, fine_tuned):
    scoring = [name for name in ROUTERS if issubclass(router_class(name), ScoreRouter)]
    return [name for name in scoring if fine_tunes(name) == fine_tuned]


def by_tier():
    """Mark fine-tuned routers for the engine tier: they take seconds even with a stub model."""
    names = [name for name in ROUTERS if issubclass(router_class(name), ScoreRouter)]
    return [pytest.param(n, marks=[pytest.mark.engine] if fine_tunes(n) else []) for n in names]


@pytest.mark.parametrize("check", all_checks(), ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", by_tier())
def test_contract(name, check):
    check(name)


@pytest.mark.parametrize("name", ROUTERS)
def test_file_name_is_registry_name(name):
    cls = router_class(name)
    assert issubclass(cls, MetaRouter)
    assert cls.name == name
    assert cls.__module__ == find_router(name, []).location
    assert cls.__doc__


@pytest.mark.parametrize(
    "fine_tuned", [False, pytest.param(True, marks=pytest.mark.engine)], ids=["learned", "tuned"]
)
def test_saved_routers_score_alike_in_a_fresh_process(tmp_path, fine_tuned):
    check_fresh_process(score_routers(fine_tuned=fine_tuned), tmp_path)


def test_the_battery_is_not_empty():
    assert len(all_checks()) >= 25
    assert {"knnrouter", "best_single", "randomrouter"} <= set(score_routers(fine_tuned=False))
    assert {"routerdc", "causallm_router"} <= set(score_routers(fine_tuned=True))
