"""Operating points of a router: quality, cost and share of the strong LLM at each lambda.

``strong`` is the LLM with the best training mean. The points are those of questions that the
router was not fitted on; `waypost train` keeps them in the manifest, so that a lambda can be chosen
by what it costs (`waypost calibrate`) or by name (``auto-cheap``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import PolicyError
from waypost.metrics.comparison import mean_usd

KEY = "curve"
"""Key of the curve among a manifest's ``metrics``."""

RECOVERED = {"cheap": 0.5, "balanced": 0.8, "best": 1.0}
"""Name of a point -> share of the quality between cost alone and lambda 0 that it keeps."""


@dataclass(frozen=True, slots=True)
class Point:
    """One setting of a router.

    Attributes:
        lam: Cost weight.
        quality: Mean score of the choices.
        cost_usd: Mean dollars of the calls; None where no cost is known.
        strong_share: Share of the questions that the strong LLM gets, in [0, 1].
    """

    lam: float
    quality: float
    cost_usd: float | None
    strong_share: float


@dataclass(frozen=True, slots=True)
class Curve:
    """The points of a router, by ascending lambda from 0.

    Attributes:
        method: What the points were measured on.
        queries: Number of questions.
        strong: Name of the LLM with the best training mean.
        strong_quality: Its mean score on the same questions.
        strong_cost_usd: Its mean dollars a call; None where no cost is known.
        points: The points.
    """

    method: str
    queries: int
    strong: str
    strong_quality: float
    strong_cost_usd: float | None
    points: tuple[Point, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-able data."""
        return {**asdict(self), "points": [list(asdict(point).values()) for point in self.points]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Curve:
        """Rebuild a curve from `to_dict`."""
        points = tuple(Point(*point) for point in data["points"])
        return cls(**{**data, "points": points})

    def with_share(self, share: float) -> Point:
        """Return the point that gives the strong LLM nearly this share of the questions."""
        return min(self.points, key=lambda point: abs(point.strong_share - share))

    def within_usd(self, usd: float) -> Point:
        """Return the point of the least lambda whose mean cost is at most ``usd``.

        Raises:
            PolicyError: No point is so cheap, or no cost is known.
        """
        if any(point.cost_usd is None for point in self.points):
            raise PolicyError("no lambda by cost: the data holds no costs, and no prices")
        found = next((p for p in self.points if p.cost_usd is not None and p.cost_usd <= usd), None)
        if found is None:
            least = min(point.cost_usd or 0.0 for point in self.points)
            raise PolicyError(
                f"no lambda costs at most {1e3 * usd:.3g} USD per 1,000 questions; the cheapest "
                f"choices cost {1e3 * least:.3g}"
            )
        return found

    def within_loss(self, loss: float) -> Point:
        """Return the point of the highest lambda up to which quality stays within a loss.

        Args:
            loss: Points of mean score that may be lost against the strong LLM alone.

        Raises:
            PolicyError: Lambda 0 already loses more.
        """
        found = self._last_above(self.strong_quality - loss)
        if found is None:
            lost = self.strong_quality - self.points[0].quality
            raise PolicyError(
                f"no lambda loses at most {loss:g}: the router loses {lost:.4f} against "
                f"{self.strong} at lambda 0"
            )
        return found

    def named(self) -> dict[str, Point]:
        """Return the points that have a name, from cheap to best.

        A name stands for the highest lambda up to which the choices keep a share (`RECOVERED`) of
        the quality between choosing by cost alone and lambda 0, as RouteLLM's thresholds recover a
        share of the gap between weak and strong LLM (Ong et al., 2024).
        """
        first, last = self.points[0], self.points[-1]
        found = {}
        for name, share in RECOVERED.items():
            wanted = last.quality + share * (first.quality - last.quality)
            found[name] = self._last_above(min(wanted, first.quality)) or first
        return found

    def _last_above(self, quality: float) -> Point | None:
        """Return the last of the first points whose quality is at least this."""
        found = None
        for point in self.points:
            if point.quality < quality - 1e-9:
                break
            found = point
        return found


def read_curve(metrics: Mapping[str, Any]) -> Curve | None:
    """Return the curve of a manifest's ``metrics``; None where training measured none."""
    data = metrics.get(KEY)  # a plug-in's report may hold anything under that name
    return Curve.from_dict(data) if isinstance(data, Mapping) and "points" in data else None


def curve_of(
    method: str,
    strong: str,
    lambdas: Sequence[float],
    quality: NDArray[np.float64],
    cost_usd: NDArray[np.float64],
    is_strong: NDArray[np.bool_],
    strong_quality: NDArray[np.float64],
    strong_cost_usd: NDArray[np.float64],
) -> Curve | None:
    """Return the curve of measured choices; None where fewer than two lambdas are known.

    Args:
        method: What the choices were measured on.
        strong: Name of the strong LLM.
        lambdas: Ascending cost weights, of which the first is 0.
        quality: Scores of the choices, (n_queries, n_lambdas), NaN where not measured.
        cost_usd: Dollars of the calls, alike.
        is_strong: Whether the strong LLM was chosen, alike.
        strong_quality: Scores of the strong LLM, (n_queries,), NaN where not measured.
        strong_cost_usd: Its dollars, alike.
    """
    # the same questions at each lambda, or a point could gain by leaving out what it got wrong
    kept = ~np.isnan(quality).any(axis=1) & ~np.isnan(strong_quality)
    if len(lambdas) < 2 or not kept.any():
        return None
    rows = tuple(_distinct(lambdas, quality[kept], cost_usd[kept], is_strong[kept]))
    return Curve(
        method,
        int(kept.sum()),
        strong,
        _rounded(float(strong_quality[kept].mean())),
        _dollars(strong_cost_usd[kept]),
        rows,
    )


def _distinct(
    lambdas: Sequence[float],
    quality: NDArray[np.float64],
    cost_usd: NDArray[np.float64],
    is_strong: NDArray[np.bool_],
) -> Iterator[Point]:
    """Yield the points; of several with equal outcomes the first and the last."""
    points = [
        Point(
            float(lam),
            _rounded(float(quality[:, place].mean())),
            _dollars(cost_usd[:, place]),
            _rounded(float(is_strong[:, place].mean())),
        )
        for place, lam in enumerate(lambdas)
    ]
    outcomes = [(one.quality, one.cost_usd, one.strong_share) for one in points]
    for place, point in enumerate(points):
        inner = 0 < place < len(points) - 1
        if not inner or not outcomes[place - 1] == outcomes[place] == outcomes[place + 1]:
            yield point


def _rounded(value: float) -> float:
    return round(value, 6)


def _dollars(cost_usd: NDArray[np.float64]) -> float | None:
    found = mean_usd(cost_usd)
    return None if math.isnan(found) else float(f"{found:.6g}")
