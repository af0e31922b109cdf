"""Chains of tiers: their cost, and when another tier pays."""

from __future__ import annotations

import numpy as np

from waypost_routers._cascade.chains import Ladder, Tier, fit_chain, run_chain


def ladder(**changes: object) -> Ladder:
    fields: dict[str, object] = {
        "quality": np.array([[1, 1], [1, 1], [0, 1], [0, 1]], float),
        "cost": np.array([[0.1, 1.0]] * 4),
        "verify": np.array([[0.05, 0.5]] * 4),
        "count": np.array([[1, 0], [1, 0], [0, 0], [0, 0]], float),
        "verdicts": 1,
    }
    return Ladder(**(fields | changes))  # type: ignore[arg-type]


def test_a_chain_counts_answer_and_verdicts_of_every_tier():
    chain = fit_chain(ladder(), 0.5, "threshold")
    assert chain == (Tier(0, (1, 0), blind=0), Tier(1))
    score, cost = run_chain(chain, ladder())
    assert score.tolist() == [1, 1, 1, 1]
    np.testing.assert_allclose(cost, [0.15, 0.15, 1.15, 1.15])


def test_verdicts_dearer_than_what_they_save_are_not_asked_for():
    # accepted half saves 0.9 * 0.5; verdicts cost 0.5 on every question
    assert fit_chain(ladder(verify=np.full((4, 2), 0.5)), 0.5, "threshold") == (Tier(1),)


def test_cost_alone_takes_the_cheapest_and_quality_alone_the_best():
    assert fit_chain(ladder(), 1e9, "greedy") == (Tier(0),)
    best = fit_chain(ladder(count=np.full((4, 2), np.nan)), 0.0, "greedy")
    assert best == (Tier(1),)


def test_three_tiers_are_chained_where_each_pays():
    found = fit_chain(
        Ladder(
            quality=np.array([[1, 1, 1], [0, 1, 1], [0, 0, 1]] * 4, float),
            cost=np.array([[0.01, 0.1, 1.0]] * 12),
            verify=np.array([[0.001, 0.01, 0.1]] * 12),
            count=np.array([[1, 1, 0], [0, 1, 0], [0, 0, 0]] * 4, float),
            verdicts=1,
        ),
        0.3,
        "threshold",
    )
    assert [tier.column for tier in found] == [0, 1, 2]
    assert [tier.actions for tier in found] == [(1, 0), (1, 0), None]
