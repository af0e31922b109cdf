"""From predictions to decisions: who may be chosen, what was chosen, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import EmptyPoolError, names
from waypost.contracts.policy import PolicySettings
from waypost.contracts.prediction import FloatMatrix, Prediction
from waypost.contracts.records import Decision, Query


def allowed_mask(
    queries: Sequence[Query], policy: PolicySettings, known: tuple[str, ...]
) -> NDArray[np.bool_]:
    """Say which models each query may use, shape (n_queries, n_llms).

    Raises:
        EmptyPoolError: a query has none, or a name is not among the ``known`` ones.
    """
    allowed = np.repeat(_mask(policy.allowed_models, known)[None, :], len(queries), axis=0)
    for row, query in enumerate(queries):
        if query.allowed_models is not None:
            allowed[row] &= _mask(query.allowed_models, known)
        if not allowed[row].any():
            raise EmptyPoolError(
                f"no model to choose from: none of the allowed models is among {names(known)}"
            )
    return allowed


def _mask(wanted: Sequence[str] | None, known: tuple[str, ...]) -> NDArray[np.bool_]:
    if wanted is None:
        return np.ones(len(known), bool)
    if unknown := [name for name in wanted if name not in known]:
        raise EmptyPoolError(
            f"allowed_models: the router does not know {names(unknown)}; it knows {names(known)}"
        )
    return np.array([name in wanted for name in known], bool)


def cost_weights(queries: Sequence[Query], policy: PolicySettings) -> NDArray[np.float64]:
    """Return each query's lambda: its own, else the policy's."""
    return np.array([policy.lam if query.lam is None else query.lam for query in queries])


def cost_limits(queries: Sequence[Query], policy: PolicySettings) -> NDArray[np.float64] | None:
    """Return each query's dollar limit, NaN where it has none; None where no query has one."""
    limits = [
        policy.max_cost_usd if query.max_cost_usd is None else query.max_cost_usd
        for query in queries
    ]
    if all(limit is None for limit in limits):
        return None
    return np.array([math.nan if limit is None else limit for limit in limits])


def decision_quality(prediction: Prediction, mean_quality: NDArray[np.float64]) -> FloatMatrix:
    """Return the quality that decides: the prediction, or the training means.

    Far from all training data a prediction is noise: the training means then decide, which
    at lambda 0 is the best single model.
    """
    unlike = prediction.out_of_distribution
    if unlike is None or not unlike.any():
        return prediction.quality
    return np.where(unlike[:, None], mean_quality, prediction.quality)


@dataclass(frozen=True, eq=False)
class Ranked:
    """What the policy made of one query; the vectors have shape (n_llms,).

    Attributes:
        order: Column indices, best first, -1 where no further model may be chosen.
        quality: The quality that decided.
        cost_usd: Predicted dollars; NaN where unknown.
        lam: Cost weight.
        propensity: Probability of the first model under the policy.
        drawn: The first model was drawn at random.
        consulted: The router predicted; false where one model only was allowed.
        confidence: The router's, by model; None where it has none.
        unlike: The query is unlike the training data.
    """

    order: NDArray[np.intp]
    quality: FloatMatrix
    cost_usd: NDArray[np.float64]
    lam: float
    propensity: float
    drawn: bool
    consulted: bool
    confidence: FloatMatrix | None = None
    unlike: bool = False

    def decision(self, known: tuple[str, ...], router: str, version: str) -> Decision:
        """Put it into words; ``known`` names the columns."""
        eligible = [int(j) for j in self.order if j >= 0]
        best = eligible[0]
        has_confidence = self.confidence is not None and not self.unlike
        return Decision(
            model=known[best],
            ranking=tuple(known[j] for j in eligible),
            quality={known[j]: float(self.quality[j]) for j in eligible},
            cost_usd={
                known[j]: float(self.cost_usd[j])
                for j in eligible
                if not math.isnan(self.cost_usd[j])
            },
            confidence=float(self.confidence[best]) if has_confidence else None,  # type: ignore[index]
            lam=self.lam,
            propensity=self.propensity,
            reason=self._reason(best),
            router=router,
            router_version=version,
        )

    def _reason(self, best: int) -> str:
        if not self.consulted:
            return "the only model allowed"
        if self.drawn:
            return "drawn at random (exploration)"
        if self.unlike:
            return "unlike the training data: ordered by each model's training mean"
        what = f"highest predicted quality ({self.quality[best]:.3f})"
        if self.lam > 0:
            what = (
                f"best predicted quality for its cost ({self.quality[best]:.3f}, "
                f"lambda {self.lam:g})"
            )
        cost = self.cost_usd[best]
        return what if math.isnan(cost) else f"{what} at {cost:.3g} USD"
