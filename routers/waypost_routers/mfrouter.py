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
from waypost.contracts.types import Floats
from waypost_routers._neural.epochs import HeldOutEpochRouter
from waypost_routers._neural.factors import CHECK_EVERY, Factorisation, Factors, LowestLoss
from waypost_routers._shared import distinct


class MFRouter(HeldOutEpochRouter):
    """A bilinear score for each LLM, trained by AdamW, stopped on held-out questions.

    Its scores are mapped to quality by each LLM's own logistic curve, so that it serves any
    number of LLMs and every lambda. W and v are multiplied out once at fit: a decision is one
    product of a vector and a matrix.

    When to take it:
        Where there are many LLMs and each was asked few of the questions: every measurement moves
        the map that all LLMs share.

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
    changeable_parameters = ("learning_rate", "weight_decay", "noise")
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

    def _steps(self, judged: bool) -> int:
        return self.steps if judged else min(self.steps, self.patience)

    def _most_epochs(self, *, judged: bool) -> int:
        return -(-self._steps(judged) // CHECK_EVERY)

    def _learner(self, data: RoutingData, *, judged: bool) -> Factors:
        how = Factorisation(
            target=self.target,
            width=self.width,
            learning_rate=self.learning_rate,
            weight_decay=self.weight_decay,
            noise=self.noise,
            batch_size=self.batch_size,
            steps=self._steps(judged),
            seed=self.seed,
        )
        return Factors(distinct(data), how)

    def _judge(self, learner: Factors, held_out: RoutingData) -> LowestLoss:
        return LowestLoss(held_out, self.target, self.patience)

    def _take(self, learner: Factors, epochs: int) -> None:
        model = learner.model()
        self.matrix_, self.bias_, self.steps_ = model[:-1], model[-1], learner.step

    def _raw(self, batch: QueryBatch) -> Floats:
        rows = np.asarray(batch.embeddings)
        return np.asarray(rows @ self.matrix_ + self.bias_, np.float64)
