"""Logged decisions as matrices: what was chosen, what could have been, what it earned."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from waypost.contracts.errors import SchemaError
from waypost.contracts.types import Floats
from waypost.feedback import Rated
from waypost.metrics.off_policy import Logged
from waypost.pipelines.data.rated import scores_of

Row = dict[str, Any]

REWARDS = ("quality", "cost_usd", "utility")

_ROUNDING = 1e-6


def distribution(ranking: Sequence[str], propensity: float) -> dict[str, float]:
    """Return the probability of each LLM under a policy that explores uniformly.

    With exploration r over n LLMs the best one has 1 - r + r / n, at least 1 / n, and each other
    one r / n, at most 1 / n. So the probability of the chosen LLM tells r, and whether it is the
    best one.

    Args:
        ranking: The LLMs, the chosen one first, then the others, best first.
        propensity: Probability of the chosen LLM.
    """
    n = len(ranking)
    if n == 1:
        return {ranking[0]: 1.0}
    if propensity >= 1 / n - _ROUNDING:
        other = max(0.0, 1 - propensity) / (n - 1)
        return {ranking[0]: propensity, **dict.fromkeys(ranking[1:], other)}
    best = 1 - (n - 1) * propensity
    return {**dict.fromkeys(ranking, propensity), ranking[1]: best}


def greedy(ranking: Sequence[str], propensity: float) -> str:
    """Return the LLM that a policy chooses where it does not explore; see `distribution`."""
    drawn = len(ranking) > 1 and propensity < 1 / len(ranking) - _ROUNDING
    return ranking[1] if drawn else ranking[0]


@dataclass(frozen=True)
class Made:
    """What one router decided, or would have decided, in one row.

    Attributes:
        router: Its name: that of the arm or shadow in the Serve file, else its registry name.
        version: Version of its artifact.
        ranking: The LLMs, the chosen one first.
        propensity: Probability of the chosen LLM under this router.
        quality, cost_usd: Predictions, in the order of ``ranking``.
        share: Probability with which an experiment chose this router; None outside of one.
        acted: Whether it is the one that acted.
    """

    router: str
    version: str
    ranking: Sequence[str]
    propensity: float
    quality: Sequence[float | None]
    cost_usd: Sequence[float | None]
    share: float | None
    acted: bool


def made_in(row: Row) -> Iterator[Made]:
    """Yield the decisions of a row of the log: of the router that acted, then of its shadows."""
    yield Made(
        row["arm"] or row["router"] or "router",
        row["router_version"] or "",
        row["ranking"],
        row["propensity"],
        row["quality"] or [None] * len(row["ranking"]),
        row["predicted_usd"] or [None] * len(row["ranking"]),
        row["arm_share"],
        True,
    )
    for i, name in enumerate(row["shadow_router"] or ()):
        yield Made(
            name,
            row["shadow_router_version"][i],
            row["shadow_ranking"][i],
            row["shadow_propensity"][i],
            row["shadow_quality"][i],
            row["shadow_predicted_usd"][i],
            row["shadow_share"][i],
            False,
        )


def logging_of(made: Sequence[Made]) -> dict[str, float]:
    """Return the probability of each LLM under the whole logging policy of a row.

    In an experiment whose other arms were shadows, it is the sum over the arms of share times the
    arm's own probability. Where not all arms are known it is that of the acting router, which is as
    right, for the arm does not depend on the question, but sees fewer LLMs.
    """
    arms = [one for one in made if one.share is not None]
    if not made[0].share or abs(sum(one.share or 0.0 for one in arms) - 1) > _ROUNDING:
        return distribution(made[0].ranking, made[0].propensity)
    found: dict[str, float] = {}
    for one in arms:
        for name, chance in distribution(one.ranking, one.propensity).items():
            found[name] = found.get(name, 0.0) + (one.share or 0.0) * chance
    return found


@dataclass(frozen=True, eq=False)
class LoggedRows:
    """The rows of a log that say what a choice earned.

    Attributes:
        rows: The rows, columns as in the log.
        made: The decisions of each row, the one that acted first.
        llms: Names of the LLMs, the columns of matrices.
        logged: Choices, logging probabilities, rewards `REWARDS` (NaN where unknown), clusters.
        features: (n, m, d), for the reward models of quality and of dollars.
        lam: Cost weight of utility.
        cost_ref_usd: Mean dollars of the dearest LLM, which lambda weighs as one point of quality.
        left_out: Why rows of the log are not here -> their number.
        unpriced: LLMs that were chosen and of which no row has dollars. Dollars of the others are
            unknown here then, too: rows that were kept because of the LLM they chose would say
            nothing right of a policy.
    """

    rows: list[Row]
    made: list[list[Made]]
    llms: tuple[str, ...]
    logged: Logged
    features: Mapping[str, Floats]
    lam: float
    cost_ref_usd: float
    left_out: Mapping[str, int]
    unpriced: tuple[str, ...]

    def policy(self, chosen: Sequence[str | None]) -> tuple[Floats, NDArray[np.intp]]:
        """Return the probabilities of a policy, and the rows in which it is known.

        Args:
            chosen: Its LLM in each row; None where it is not known.
        """
        rows = np.array([i for i, name in enumerate(chosen) if name is not None], np.intp)
        column = {name: j for j, name in enumerate(self.llms)}
        found = np.zeros((len(rows), len(self.llms)))
        found[np.arange(len(rows)), [column[str(chosen[i])] for i in rows]] = 1.0
        return found, rows


def read_logged(
    table: pa.Table, rated: Rated | None, lam: float | None, extra: Sequence[str] = ()
) -> LoggedRows:
    """Build the matrices of a log.

    Quality of a row is the mean score of the feedback about it; rows without are left out, unless
    there is no feedback at all: then dollars alone are compared. So are rows without dollars,
    unless an LLM has none at all.

    Args:
        table: Rows of `read_decisions`.
        rated: The feedback; None compares dollars alone.
        lam: Cost weight of utility; None is the finite one that most rows were decided with.
        extra: Names of further LLMs.

    Raises:
        SchemaError: no row is left.
    """
    scores: dict[str, list[float]] = {}
    for event in () if rated is None else rated.events:
        for request_id, score in scores_of(event):
            scores.setdefault(request_id, []).append(score)
    given = table.to_pylist()
    unpriced = _unpriced(given)
    costs_known = not unpriced and any(row["cost_usd"] is not None for row in given)
    kept: list[Row] = []
    left_out: dict[str, int] = {}
    for row in given:
        why = _why_not(row, scores, rated is not None, costs_known)
        if why is None:
            kept.append(row)
        else:
            left_out[why] = left_out.get(why, 0) + 1
    if not kept:
        told = ", ".join(f"{count} {why}" for why, count in left_out.items())
        raise SchemaError(
            f"decisions: none of the {len(table)} rows says what a choice earned ({told}); "
            "expected routed requests with feedback (--feedback with the feedback_dir of the same "
            "server), or without --feedback with prices of all LLMs that answered"
        )
    made = [list(made_in(row)) for row in kept]
    llms = tuple(sorted({n for row in made for one in row for n in one.ranking} | {*extra}))
    column = {name: j for j, name in enumerate(llms)}
    quality = np.array([fmean(scores.get(row["request_id"], [np.nan])) for row in kept])
    dollars = np.array([row["cost_usd"] if costs_known else np.nan for row in kept], np.float64)
    actions = np.array([column[row["decided_model"]] for row in kept], np.intp)
    weight = _usual([row["lambda"] for row in kept]) if lam is None else lam
    cost_ref = _dearest(dollars, actions)
    per_usd = weight / cost_ref if weight else 0.0
    logging = np.zeros((len(kept), len(llms)))
    for i, row in enumerate(made):
        for name, chance in logging_of(row).items():
            logging[i, column[name]] = chance
    rewards = np.column_stack(
        [quality, dollars, quality - per_usd * dollars if weight else quality]
    )
    features = {
        "quality": _features(kept, made, column, lambda one: one.quality),
        "cost_usd": _features(kept, made, column, lambda one: one.cost_usd),
    }
    logged = Logged(actions, logging, rewards, _clusters(kept))
    return LoggedRows(kept, made, llms, logged, features, weight, cost_ref, left_out, unpriced)


def _unpriced(rows: Sequence[Row]) -> tuple[str, ...]:
    """Return the LLMs that were decided and answered, never with known dollars."""
    answered = [row for row in rows if row["router"] != "pinned" and row["model_name"] is not None]
    known = {row["decided_model"] for row in answered if row["cost_usd"] is not None}
    return tuple(sorted({row["decided_model"] for row in answered} - known))


def _why_not(row: Row, scores: Mapping[str, Any], rated: bool, costs_known: bool) -> str | None:
    if row["router"] == "pinned":
        return "asked for an LLM by name"
    if row["model_name"] is None:
        return "without an answer"
    if not row["ranking"] or row["propensity"] is None or row["propensity"] <= 0:
        return "without a propensity"
    if rated and row["request_id"] not in scores:
        return "without feedback"
    if costs_known and row["cost_usd"] is None:
        return "without known dollars"
    return None if rated or costs_known else "without feedback and dollars"


def _usual(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return max(set(known), key=lambda value: (known.count(value), -value)) if known else 0.0


def _dearest(dollars: Floats, actions: NDArray[np.intp]) -> float:
    means = [float(np.mean(dollars[actions == j])) for j in np.unique(actions)]
    return max((mean for mean in means if mean > 0), default=float("nan"))


def _clusters(rows: Sequence[Row]) -> NDArray[np.intp]:
    # equal texts of nobody's are explored alike: the draw is a hash of the text
    units = [row["user_id"] or row["session_id"] or f"text {row['query_id']}" for row in rows]
    numbers = {unit: i for i, unit in enumerate(dict.fromkeys(units))}
    return np.array([numbers[unit] for unit in units], np.intp)


def _features(
    rows: Sequence[Row], made: Sequence[Sequence[Made]], column: Mapping[str, int], of: Any
) -> Floats:
    """Return (n, m, d): for each router what it predicts of the LLM and of all LLMs, and length.

    A missing prediction is the router's mean for that LLM, and 0 where it has none.
    """
    n, m = len(rows), len(column)
    names = list(dict.fromkeys(one.router for row in made for one in row))
    told = np.full((len(names), n, m), np.nan)
    place = {name: k for k, name in enumerate(names)}
    for i, row in enumerate(made):
        for one in row:
            for name, value in zip(one.ranking, of(one), strict=True):
                if value is not None:
                    told[place[one.router], i, column[name]] = value
    parts: list[Floats] = []
    for matrix in told:
        known = ~np.isnan(matrix)
        count = known.sum(axis=0)
        filled = np.where(known, matrix, 0.0)
        means = filled.sum(axis=0) / np.maximum(count, 1)
        filled = np.where(known, matrix, means)
        parts += [filled, np.repeat(filled.mean(axis=1, keepdims=True), m, axis=1)]
    length = np.log1p([row["characters"] or 0 for row in rows])
    parts.append(np.repeat(length[:, None], m, axis=1))
    return np.stack(parts, axis=2)
