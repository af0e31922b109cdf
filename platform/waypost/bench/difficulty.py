"""Measure what the router difficulty earns on recorded outcomes that it has never seen.

For a strong and a weak LLM of each data set, the hardest share of the questions goes to the strong
one. Its gain is the mean score above a random split with the same share, in points of 100; the
oracle knows both scores. Intervals draw questions, near-duplicates together.

Example: waypost bench difficulty --data ../shared/data/mmlu_pro --data ../shared/data/gsm8k_data
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench.harness import BenchError, Result, Table, Tell
from waypost.config import resolve_path
from waypost.contracts.routing_data import RoutingData, read_routing_data
from waypost.contracts.types import Floats
from waypost.metrics.intervals import LEVEL, Bootstrap
from waypost.registry import make_trainable
from waypost.registry.rule_router import no_outcomes

STARTER = "serve_configs/starter/data"
LEAST_APART = 0.05
"""Least difference of the mean scores of a strong and a weak LLM."""


class Options(harness.Options):
    """Options of ``waypost bench difficulty``.

    Attributes:
        shares: Shares of the questions that go to the strong LLM.
    """

    data: tuple[DirectoryPath, ...] = Field(
        (), description=f"Routing data, may be repeated.  [default: {STARTER}]"
    )
    split: str = Field("test", description="Split of the data: train or test.")
    draws: int = Field(4000, ge=100, description="Bootstrap draws.")
    seed: int = Field(0, ge=0, description="Seed of the draws.")
    shares: tuple[float, ...] = (0.25, 0.5, 0.75)


QUICK = {"draws": 200}


def run(options: Options, tell: Tell) -> Result:
    """Measure every data set.

    Returns:
        Figures: data set -> share -> ``gain``, ``low``, ``high`` and ``oracle`` of the widest pair,
        and ``all``, the mean gain over all pairs with its interval; scores from 0 to 1.

    Raises:
        SchemaError, BenchError: A folder holds no routing data, or no two LLMs are apart.
    """
    folders = options.data or (resolve_path(STARTER),)
    found: dict[str, Any] = {}
    rows: list[list[str]] = []
    for folder in folders:
        tell(str(folder))
        name = folder.parent.name if folder.name == "data" else folder.name
        data = read_routing_data(folder, options.split)
        pairs = pairs_of(data)
        if not pairs:
            raise BenchError(f"{folder}: no two LLMs differ by {LEAST_APART:g} in their mean score")
        hard = difficulty_of(data)
        drawn = Bootstrap.of_groups(data.groups, options.draws, options.seed)
        told = {}
        for share in options.shares:
            picked = hardest(hard, share)
            each = np.stack([gains(data.quality[:, list(pair)], picked) for pair in pairs], axis=1)
            told[f"{share:g}"] = one = {
                **interval(each[:, 0], drawn),
                "oracle": oracle_gain(data.quality[:, list(pairs[0])], share),
                "all": interval(each.mean(axis=1), drawn),
            }
            rows.append(_row(name, data, pairs[0], share, one))
        found[name] = {"pairs": len(pairs), "questions": len(data), **told}
    heads = ("data", "strong / weak", "share", "gain [95 %]", "oracle", "all pairs [95 %]")
    table = Table("Gain over a random split, points of 100", heads, rows)
    facts = (
        f"Split {options.split}; {options.draws} draws of questions; all pairs of LLMs whose mean "
        f"scores are {LEAST_APART:g} apart, the widest pair first."
    )
    return Result([table], facts, (), found)


def pairs_of(data: RoutingData) -> list[tuple[int, int]]:
    """Return the columns (weak, strong) of all pairs that are apart, the widest pair first."""
    means = np.nanmean(data.quality, axis=0)
    upwards = np.argsort(means, kind="stable").tolist()
    apart = [p for p in combinations(upwards, 2) if means[p[1]] - means[p[0]] >= LEAST_APART]
    return sorted(apart, key=lambda pair: means[pair[0]] - means[pair[1]])


def difficulty_of(data: RoutingData) -> Floats:
    """Return the difficulty of each question, (n,), as an untrained router tells it."""
    named = {"strong": data.names[0], "weak": data.names[1]}  # it has no prices to go by
    router: Any = make_trainable("difficulty", named).fit(no_outcomes(data.llms))
    return np.asarray(router.difficulty(list(data.queries)))


def hardest(hard: Floats, share: float) -> NDArray[np.bool_]:
    """Return a mask of the hardest share of the questions; ties by their order."""
    picked = np.zeros(len(hard), bool)
    picked[np.argsort(-hard, kind="stable")[: round(share * len(hard))]] = True
    return picked


def gains(quality: Floats, picked: NDArray[np.bool_]) -> Floats:
    """Return each question's part of the gain over a random split, (n,); NaN where unmeasured.

    Args:
        quality: (n, 2), scores of the weak and the strong LLM.
        picked: (n,), the questions that go to the strong one.
    """
    return np.asarray((picked - picked.mean()) * (quality[:, 1] - quality[:, 0]))


def oracle_gain(quality: Floats, share: float) -> float:
    """Return the gain of a split that knows both scores."""
    better = np.nan_to_num(quality[:, 1] - quality[:, 0])
    return float(np.nanmean(gains(quality, hardest(better, share))))


def interval(values: Floats, drawn: Bootstrap) -> dict[str, float]:
    """Return the mean of values (n,) and its interval."""
    low, high = np.quantile(drawn.means(values)[:, 0], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return {"gain": float(np.nanmean(values)), "low": float(low), "high": float(high)}


def _row(
    name: str, data: RoutingData, pair: Sequence[int], share: float, one: dict[str, Any]
) -> list[str]:
    weak, strong = (data.names[column] for column in pair)
    return [
        name,
        f"{strong} / {weak}",
        f"{share:g}",
        _points(one),
        f"{100 * one['oracle']:+.1f}",
        _points(one["all"]),
    ]


def _points(one: dict[str, float]) -> str:
    return f"{100 * one['gain']:+.1f} [{100 * one['low']:+.1f}, {100 * one['high']:+.1f}]"
