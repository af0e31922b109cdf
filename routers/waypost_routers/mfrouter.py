"""Score each LLM by the dot product of its vector and the projected query (matrix factorisation).

RouteLLM (arXiv 2406.18665) trains on pairwise comparisons of LLMs, EmbedLLM (arXiv 2410.02223) on
the correctness of each answer.
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
    """A bilinear score per LLM, trained by AdamW with early stopping on held-out questions.

    The score of LLM j is v_j . (W q + b) + c_j for the query's embedding q. A logistic calibration
    maps scores to quality, so one fit serves any number of LLMs and every lambda. W and v are
    multiplied once at fit: a decision is one vector-matrix product.

    When to take it:
        With many LLMs that were each measured on few questions: every measurement trains the
        projection that all LLMs share.

    Args:
        target: ``pairs``: logistic loss on pairs of LLMs measured on one question, ties left out.
            ``correctness``: cross-entropy on each measured score.
        width: Length of the LLM vectors.
        learning_rate: Learning rate of AdamW.
        weight_decay: Decoupled weight decay of W and v.
        noise: Root-mean-square length of the Gaussian noise added to each query embedding (of
            length 1) in training.
        steps: Maximum number of steps.
        patience: Steps without a lower held-out loss before training stops.
        batch_size: Maximum number of questions in a step.
        seed: Seed of initial vectors, noise and held-out questions.

    Learned by ``fit``:
        matrix_: float32 (d, n_llms), W and v multiplied.
        bias_: float32 (n_llms,).
        steps_: Number of steps trained.
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
