"""Predict each LLM's score by support vector regression."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Integer, OneOf, Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost_routers._learned import HeldOutRouter, embeddings_of
from waypost_routers._linear.svr import (
    draw_landmarks,
    fit_svr,
    gamma_scale,
    held_out_errors,
    rbf,
    whitening,
)
from waypost_routers._shared import Distinct, distinct

C_GRID = (10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
DEFAULT_C = 100.0
GAMMA_GRID = (0.5, 1.0, 2.0, 4.0)
"""Candidate values of gamma, as multiples of `gamma_scale`."""


class SVMRouter(HeldOutRouter):
    """One support vector regression per LLM, on the measured scores.

    The loss is squared epsilon-insensitive, minimized in the primal (Chapelle, 2007); it estimates
    the mean score. The RBF kernel is exact up to ``landmarks`` distinct questions. Above that it
    is the Nystroem approximation on a seeded sample of ``landmarks`` questions.

    When to take it:
        With hundreds to a few thousand questions. Its predictions are smoother than knnrouter's,
        and its memory is bounded by ``landmarks``.

    Args:
        kernel: ``rbf`` or ``linear``.
        C: Weight of the mean loss against the norm, above 0: scikit-learn's C times the number of
            questions, so it does not depend on their number. None chooses it by squared error on
            held-out questions.
        gamma: The RBF kernel is exp(-gamma * squared distance); None chooses it likewise.
        epsilon: Largest error without loss, in points of quality.
        landmarks: Maximum number of landmarks of the RBF kernel.
        seed: Seed of the landmarks and the held-out questions.

    Learned by ``fit``:
        C_, gamma_: Values in use, given or chosen.
        landmarks_: float32 (p, d); no row for the linear kernel.
        coefficients_: (p, n_llms), or (d, n_llms) for the linear kernel.
        intercept_: (n_llms,).
    """

    name = "svmrouter"
    link = "identity"
    parameter_constraints: ClassVar = {
        "kernel": OneOf(("rbf", "linear")),
        "C": Real(0, open_low=True, optional=True),
        "gamma": Real(0, open_low=True, optional=True),
        "epsilon": Real(0, 0.5),
        "landmarks": Integer(2),
        "seed": Integer(0),
    }

    C_: float
    gamma_: float
    landmarks_: NDArray[np.float32]
    coefficients_: Floats
    intercept_: Floats

    def __init__(
        self,
        kernel: str = "rbf",
        C: float | None = None,  # noqa: N803 - its name everywhere
        gamma: float | None = None,
        epsilon: float = 0.1,
        landmarks: int = 512,
        seed: int = 0,
    ) -> None:
        self.kernel = kernel
        self.C = C
        self.gamma = gamma
        self.epsilon = epsilon
        self.landmarks = landmarks
        self.seed = seed

    def _fit(self, data: RoutingData) -> None:
        self.C_ = DEFAULT_C if self.C is None else self.C
        self.gamma_ = gamma_scale(embeddings_of(data)) if self.gamma is None else self.gamma
        super()._fit(data)

    def _learn(self, data: RoutingData, held_out: RoutingData | None) -> None:
        known = distinct(data)
        linear = self.kernel == "linear"
        most = 0 if linear else self.landmarks
        self.landmarks_ = draw_landmarks(known.rows, most, self.seed)
        if held_out is not None and (self.C is None or (self.gamma is None and not linear)):
            self.C_, self.gamma_ = self._choose(known, held_out)
        turn = None if linear else whitening(self.landmarks_, self.gamma_)
        features = self._features(known.rows, self.gamma_, turn)
        weights, intercept = fit_svr(features, known.scores, known.weights, self.C_, self.epsilon)
        weights = weights if turn is None else turn @ weights
        self.coefficients_ = known.in_data_order(weights)
        self.intercept_ = known.in_data_order(intercept)

    def _choose(self, known: Distinct, held_out: RoutingData) -> tuple[float, float]:
        scale = gamma_scale(known.rows)
        gammas = [self.gamma_] if self.gamma or self.kernel == "linear" else None
        cs = C_GRID if self.C is None else (self.C,)
        scores = held_out.quality[:, known.columns]
        found = []
        for gamma in gammas or [scale * times for times in GAMMA_GRID]:
            turn = None if self.kernel == "linear" else whitening(self.landmarks_, gamma)
            there = (self._features(embeddings_of(held_out), gamma, turn), scores)
            here = self._features(known.rows, gamma, turn)
            errors = held_out_errors(here, known.scores, known.weights, cs, there)
            found += [(error, c, gamma) for error, c in zip(errors, cs, strict=True)]
        _, c, gamma = min(found)
        return c, gamma

    def _features(self, rows: NDArray[Any], gamma: float, turn: Floats | None) -> Floats:
        if turn is None:
            return np.asarray(rows, np.float64)
        return np.asarray(rbf(rows, self.landmarks_, gamma) @ turn)

    def _raw(self, batch: QueryBatch) -> Floats:
        rows = np.asarray(batch.embeddings, np.float64)
        features = rows if self.kernel == "linear" else rbf(rows, self.landmarks_, self.gamma_)
        return np.asarray(features @ self.coefficients_ + self.intercept_)
