"""Matrix factorisation: a vector for each LLM, a projection of the query, and their product.

RouteLLM (arXiv 2406.18665) learns it from which of two LLMs did better, EmbedLLM (arXiv
2410.02223) from which were right.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Integer, OneOf, Real
from waypost.contracts.router import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost_routers._distinct import distinct
from waypost_routers._factors import Factorisation, all_opponents, loss, train
from waypost_routers._learned import Floats, HeldOutRouter, embeddings_of

WATCH_EVERY = 5
"""Steps between two looks at the held-out loss."""


class MFRouter(HeldOutRouter):
    """A bilinear score for each LLM, trained by AdamW, stopped on held-out questions.

    Its scores are mapped to quality by each LLM's own logistic curve, so that it serves any
    number of LLMs and every lambda. W and v are multiplied out once at fit: a decision is one
    product of a vector and a matrix.

    Args:
        target: ``pairs``: LLMs are compared two by two on each question, ties left out.
            ``correctness``: each measured score is predicted by itself.
        width: Of the LLMs' vectors.
        learning_rate: Of AdamW.
        weight_decay: Decoupled.
        noise: Length of the Gaussian vector added to each query vector (of length 1) in
            training.
        steps: Most steps.
        patience: Steps without a lower held-out loss after which to stop.
        batch_size: Questions in a step, at most.
        seed: Of initial vectors, noise and held-out questions.

    Learned by ``fit``:
        matrix_: float32 (d, n_llms), W and v multiplied out.
        bias_: float32 (n_llms,).
        steps_: Steps that were made.
    """

    name = "mfrouter"
    link = "logit"
    parameter_constraints: ClassVar = {
        "target": OneOf(("pairs", "correctness")),
        "width": Integer(1, 4096),
        "learning_rate": Real(0, 1, open_low=True),
        "weight_decay": Real(0, 10),
        "noise": Real(0, 10),
        "steps": Integer(1),
        "patience": Integer(1),
        "batch_size": Integer(1),
        "seed": Integer(0),
    }

    matrix_: NDArray[np.float32]
    bias_: NDArray[np.float32]
    steps_: int

    def __init__(
        self,
        target: str = "pairs",
        width: int = 64,
        learning_rate: float = 5e-3,
        weight_decay: float = 0.1,
        noise: float = 0.5,
        steps: int = 400,
        patience: int = 60,
        batch_size: int = 2048,
        seed: int = 0,
    ) -> None:
        self.target = target
        self.width = width
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.noise = noise
        self.steps = steps
        self.patience = patience
        self.batch_size = batch_size
        self.seed = seed

    def _fit(self, data: RoutingData) -> None:
        self.steps_ = min(self.steps, self.patience)
        super()._fit(data)

    def _learn(self, data: RoutingData, held_out: RoutingData | None) -> None:
        one = distinct(data)
        how = Factorisation(
            target=self.target,
            width=self.width,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            noise=self.noise,
            batch_size=self.batch_size,
            steps=self.steps_ if held_out is None else self.steps,
            seed=self.seed,
        )
        best, found = np.inf, None
        for step, matrix in enumerate(
            train(one.rows, one.scores.astype(np.float32), one.known, how), start=1
        ):
            if held_out is None:
                found = matrix
            elif step % WATCH_EVERY == 0 or step == self.steps:
                now = self._loss(matrix, held_out.select_llms(sorted(data.names)))
                if now < best - 1e-6:
                    best, found, self.steps_ = now, matrix, step
                elif step >= self.steps_ + self.patience:
                    break
        assert found is not None
        ordered = one.in_data_order(found.astype(np.float64)).astype(np.float32)
        self.matrix_, self.bias_ = ordered[:-1], ordered[-1]

    def _loss(self, matrix: NDArray[np.float32], held_out: RoutingData) -> float:
        known = ~np.isnan(held_out.quality)
        scores = np.where(known, held_out.quality, 0).astype(np.float32)
        logits = embeddings_of(held_out) @ matrix[:-1] + matrix[-1]
        return loss(logits, scores, known, self.target, all_opponents(len(held_out.llms)))[0]

    def _raw(self, batch: QueryBatch) -> Floats:
        rows = np.asarray(batch.embeddings)
        return np.asarray(rows @ self.matrix_ + self.bias_, np.float64)
