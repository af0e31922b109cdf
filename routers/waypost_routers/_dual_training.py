"""How RouterDC's encoder and LLM vectors are trained: vectors first, then both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.progress import report
from waypost_routers._dual_loss import (
    draw_contrasts,
    sample_llm_loss,
    sample_sample_loss,
    top_and_bottom,
)
from waypost_routers._fine_tuned import calibrated_loss
from waypost_routers._split_encoder import SplitEncoder

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

CHECKS = 5
"""Times that the held-out questions are looked at in each of the two phases."""


@dataclass(frozen=True)
class DualSettings:
    """How to train; the parameters of `RouterDC` say what each means."""

    probe_steps: int
    steps: int
    batch_size: int
    learning_rate: float
    vector_learning_rate: float
    temperature: float
    positives: int
    negatives: int
    cluster_weight: float
    cluster_negatives: int
    seed: int


@dataclass(frozen=True)
class Questions:
    """Questions as training sees them.

    Attributes:
        hidden: What the frozen layers make of each.
        quality: (n, n_llms), NaN where not measured.
        cluster: (n,) which texts are alike.
    """

    hidden: Sequence[Tensor]
    quality: Floats
    cluster: NDArray[np.intp]


class DualTraining:
    """Trains the upper layers of an encoder and one vector for each LLM.

    First the vectors alone, on states that do not change yet: vectors that mean nothing would
    spoil a good encoder (Kumar et al., 2202.10054). Then both. Of all that was looked at, the
    state with the least calibrated log loss on held-out questions is kept.
    """

    def __init__(self, encoder: SplitEncoder, vectors: Floats, settings: DualSettings) -> None:
        import torch

        self.encoder = encoder
        self.settings = settings
        self.vectors = torch.tensor(vectors, dtype=torch.float32, device=encoder.device)
        self.rng = np.random.default_rng(settings.seed)
        self._best: tuple[float, Any, Any] = (np.inf, None, None)

    def run(self, training: Questions, held_out: Questions | None) -> Floats:
        """Train; the encoder is left as the best step had it.

        Returns:
            (n_llms, width) vectors of the LLMs.
        """
        import torch

        self.vectors.requires_grad_()
        options = self.settings
        with torch.no_grad():
            fixed = self.encoder.pool(training.hidden)
            held_fixed = None if held_out is None else self.encoder.pool(held_out.hidden)
        optimizer = torch.optim.AdamW([self.vectors], lr=options.vector_learning_rate)
        for step in range(options.probe_steps):
            rows = self._draw(training)
            self._step(optimizer, self._sample_llm(fixed[rows], training.quality[rows]))
            report("training the LLMs' vectors", step + 1, options.probe_steps)
            if held_fixed is not None and _is_check(step, options.probe_steps):
                self._look(held_fixed, held_out)
        optimizer = torch.optim.AdamW(
            [
                {"params": [self.vectors], "lr": options.vector_learning_rate / 10},
                {"params": self.encoder.upper.parameters(), "lr": options.learning_rate},
            ]
        )
        self.encoder.upper.requires_grad_()
        for step in range(options.steps):
            rows = self._draw(training)
            states = self.encoder.pool([training.hidden[i] for i in rows])
            loss = self._sample_llm(states, training.quality[rows])
            if options.cluster_weight:
                drawn = draw_contrasts(training.cluster[rows], options.cluster_negatives, self.rng)
                other = sample_sample_loss(states, drawn, options.temperature)
                loss = loss + options.cluster_weight * other
            self._step(optimizer, loss)
            report("fine-tuning the encoder", step + 1, options.steps)
            if held_out is not None and _is_check(step, options.steps):
                with torch.no_grad():
                    self._look(self.encoder.pool(held_out.hidden), held_out)
        self.encoder.upper.requires_grad_(False)
        _, vectors, layers = self._best
        if layers is not None:
            self.vectors = vectors
            self.encoder.upper.load_state_dict(layers)
        return np.asarray(self.vectors.detach().cpu().numpy(), np.float64)

    def _draw(self, training: Questions) -> NDArray[np.intp]:
        n = len(training.quality)
        return self.rng.choice(n, min(self.settings.batch_size, n), replace=False)

    def _sample_llm(self, states: Tensor, quality: Floats) -> Tensor:
        options = self.settings
        positive, negative = top_and_bottom(quality, options.positives, options.negatives, self.rng)
        logits = self._cosines(states) / options.temperature
        return sample_llm_loss(logits, quality, positive, negative)

    def _cosines(self, states: Tensor) -> Tensor:
        import torch

        return states @ torch.nn.functional.normalize(self.vectors, dim=-1).T

    def _step(self, optimizer: Any, loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    def _look(self, states: Tensor, held_out: Questions | None) -> None:
        assert held_out is not None  # the caller looked
        cosines = self._cosines(states).detach().cpu().numpy().astype(np.float64)
        loss = calibrated_loss(cosines, held_out.quality)
        if loss < self._best[0]:
            layers = {k: v.clone() for k, v in self.encoder.upper.state_dict().items()}
            self._best = (loss, self.vectors.detach().clone(), layers)


def _is_check(step: int, steps: int) -> bool:
    return (step + 1) % max(steps // CHECKS, 1) == 0 or step + 1 == steps
