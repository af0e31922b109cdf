"""RouteLLM's numbers: how well scores say which queries need the strong one of two LLMs."""

from __future__ import annotations

import numpy as np

from waypost.metrics.coverage import Coverage
from waypost.metrics.intervals import interval
from waypost.pipelines.evaluation.ground import CURVE_DRAWS, Ground
from waypost.pipelines.evaluation.headline import INTERVALS, Draws, Numbers
from waypost.pipelines.evaluation.references import single_columns
from waypost.pipelines.sweep import Sweep

CALLS = (50, 80, 95)
"""Parts of the gap, in per cent, that the call-performance threshold is stated for."""

LEAST_ERRORS = 2.0
"""Standard errors of the gap that it must have; of a smaller one no part can be told."""


def pair(ground: Ground) -> dict[str, str] | None:
    """Name the two: the cheapest LLM and the best single one, by training; None if one LLM is both.

    Nothing is chosen by the evaluated split.
    """
    columns = single_columns(ground)
    weak, strong = columns.get("cheapest"), columns["best_single"]
    if weak is None or weak == strong:
        return None
    return {"weak": ground.test.names[weak], "strong": ground.test.names[strong]}


def two_models(ground: Ground, sweep: Sweep, draws: Draws) -> Numbers:
    """Send queries to the strong LLM in the order of what it is predicted to gain; adds draws.

    PGR at a share of strong calls is the part of the gap between the two LLMs that is closed (0
    weak, 1 strong, may exceed 1). APGR is its mean over all shares, exactly and not at ten of
    them: about .5 at random. CPT(x) is the least share at which PGR is x.
    """
    found: Numbers = {
        **dict.fromkeys(("apgr", *INTERVALS["apgr"]), np.nan),
        **{f"cpt_{part}": np.nan for part in CALLS},
    }
    names = pair(ground)
    if names is None or sweep.predicted is None:
        return found
    ends = [ground.test.names.index(names[end]) for end in ("weak", "strong")]
    expected, scores = sweep.predicted[:, ends], ground.test.quality[:, ends]
    if np.isnan(expected).all(axis=0).any():  # one that the router does not know
        return found
    order = Coverage.of(scores[:, 1] - scores[:, 0], expected[:, 1] - expected[:, 0])
    area, gap = (float(one[0]) for one in order.means())
    n = len(order.rows)
    if n < 2 or not gap > LEAST_ERRORS * float(order.gain.std(ddof=1)) / n**0.5:
        return found
    with np.errstate(divide="ignore", invalid="ignore"):  # a draw may hold no gap
        drawn = ground.bootstrap.statistic(lambda w: np.divide(*order.means(w)), CURVE_DRAWS)
    draws["apgr"] = drawn
    return {
        "apgr": area / gap,
        **dict(zip(INTERVALS["apgr"], interval(drawn), strict=True)),
        **{f"cpt_{part}": order.first_reaching(part / 100 * gap) for part in CALLS},
    }
