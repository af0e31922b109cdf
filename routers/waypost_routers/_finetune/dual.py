"""The two contrastive losses of RouterDC (arXiv 2409.19886) in torch, and training with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays, random_state, set_random_state
from waypost.contracts.records import report
from waypost.contracts.types import Floats
from waypost_routers._finetune.base import Tuner, calibrated_loss
from waypost_routers._finetune.split_encoder import SplitEncoder
from waypost_routers._neural.epochs import (
    module_arrays,
    optimizer_arrays,
    restore_module,
    restore_optimizer,
    under,
    within,
)

if TYPE_CHECKING:
    from torch import Tensor

Mask = NDArray[np.bool_]

GOOD = 0.5
"""Maximum score of a negative LLM."""


def top_and_bottom(
    quality: NDArray[np.float64], positives: int, negatives: int, rng: np.random.Generator
) -> tuple[Mask, Mask]:
    """Choose each question's positive and negative LLMs, with ties broken at random.

    Args:
        quality: (n, n_llms), NaN where not measured; such LLMs are neither.
        positives: Number of best LLMs; those with score 0 are left out.
        negatives: Number of worst LLMs; those that scored more than `GOOD` are left out.
        rng: Generator that breaks ties.

    Returns:
        Two masks (n, n_llms).
    """
    known = ~np.isnan(quality)
    ties = rng.random(quality.shape)
    order = np.lexsort((ties, np.where(known, quality, -1.0)), axis=-1)
    rank = np.argsort(order, axis=-1) - (~known).sum(axis=1, keepdims=True)
    best = rank >= known.sum(axis=1, keepdims=True) - positives
    return known & best & (quality > 0), known & (rank < negatives) & (quality <= GOOD)


def sample_llm_loss(
    logits: Tensor, quality: NDArray[np.float64], positive: Mask, negative: Mask
) -> Tensor:
    """Return the loss that pulls a question towards its positive LLMs, away from worse ones.

    For each positive p: -log(e^z_p / (e^z_p + the sum of e^z_n over negatives n that scored less
    than p)); summed over positives, averaged over questions.

    Args:
        logits: (n, n_llms), cosines over temperature.
        quality: (n, n_llms), NaN where not measured.
        positive: (n, n_llms), from `top_and_bottom`.
        negative: (n, n_llms), from `top_and_bottom`.
    """
    import torch

    worse = quality[:, None, :] < quality[:, :, None]
    against = _mask(positive[:, :, None] & negative[:, None, :] & worse, logits)
    others = torch.where(against, logits[:, None, :], -torch.inf)
    both = torch.cat([logits[:, :, None], others], dim=-1)
    terms = torch.where(_mask(positive, logits), torch.logsumexp(both, -1) - logits, 0.0)
    return terms.sum(dim=1).mean()


def draw_contrasts(
    cluster: NDArray[np.intp], negatives: int, rng: np.random.Generator
) -> NDArray[np.intp]:
    """Draw a positive of the same cluster and negatives of others for each question of a batch.

    Args:
        cluster: (n,) cluster of each question.
        negatives: Number of negatives per question; fewer if the batch has fewer.
        rng: Generator of the draws.

    Returns:
        (k, 2 + negatives) positions in the batch: anchor, its positive (never itself), its
        negatives. A question without a positive or without negatives is no anchor.
    """
    rows = []
    fewest = min((int((cluster != c).sum()) for c in cluster), default=0)
    count = min(negatives, fewest)
    for anchor, own in enumerate(cluster):
        companions = np.flatnonzero(cluster == own)
        companions = companions[companions != anchor]
        if len(companions) and count:
            strangers = rng.choice(np.flatnonzero(cluster != own), count, replace=False)
            rows.append([anchor, int(rng.choice(companions)), *strangers.tolist()])
    return np.array(rows, dtype=np.intp).reshape(-1, 2 + count)


def sample_sample_loss(states: Tensor, contrasts: NDArray[np.intp], temperature: float) -> Tensor:
    """Return the InfoNCE loss of the questions' positives and negatives, on cosines.

    Args:
        states: (n, d) unit rows.
        contrasts: Result of `draw_contrasts`; if it is empty the loss is 0.
        temperature: Temperature of the cosines.
    """
    import torch

    if not len(contrasts):
        return states.sum() * 0.0
    index = torch.from_numpy(contrasts).to(states.device)
    anchors, others = states[index[:, 0]], states[index[:, 1:]]
    cosines = torch.einsum("kd,kcd->kc", anchors, others) / temperature
    return -torch.log_softmax(cosines, dim=-1)[:, 0].mean()


def _mask(values: Mask, like: Tensor) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to(like.device)


CHECKS = 5
"""Number of held-out evaluations in each of the two phases."""


@dataclass(frozen=True)
class DualSettings:
    """Training settings; see the parameters of `RouterDC`."""

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
    """Questions as input of the training.

    Attributes:
        hidden: Output of the frozen layers for each question, (tokens, width).
        quality: (n, n_llms), NaN where not measured.
        cluster: (n,) cluster of each question.
    """

    hidden: Sequence[Tensor]
    quality: Floats
    cluster: NDArray[np.intp]


class DualTraining(Tuner):
    """The training of an encoder's upper layers and one vector per LLM.

    The first phase trains the vectors alone on fixed states, because random vectors would distort
    the pretrained encoder (Kumar et al., arXiv 2202.10054). The second phase trains both. Each
    epoch ends with an evaluation on held-out questions; the state with the lowest calibrated log
    loss is kept.

    Args:
        encoder: Encoder whose upper layers are trained in place.
        vectors: (n_llms, width), initial vectors.
        settings: Training settings.
        training: Training questions.
        held_out: Held-out questions; None keeps the last state.
    """

    def __init__(
        self,
        encoder: SplitEncoder,
        vectors: Floats,
        settings: DualSettings,
        training: Questions,
        held_out: Questions | None,
    ) -> None:
        import torch

        self.encoder = encoder
        self.settings = settings
        self.vectors = torch.tensor(vectors, dtype=torch.float32, device=encoder.device)
        self.vectors.requires_grad_()
        self._training, self._held_out = training, held_out
        self._rng = np.random.default_rng(settings.seed)
        with torch.no_grad():
            self._fixed = encoder.pool(training.hidden)
            self._held_fixed = None if held_out is None else encoder.pool(held_out.hidden)
        probe, both = _looks(settings.probe_steps), _looks(settings.steps)
        self._ends = [*probe, *(settings.probe_steps + step for step in both)]
        self.epochs, self._step = len(self._ends), 0
        self._optimizer = self._new_optimizer(both=not probe)
        self._lowest = np.inf
        self._best: tuple[Tensor, dict[str, Tensor]] | None = None

    def epoch(self) -> None:
        """Make the steps up to the next evaluation, and evaluate."""
        import torch

        probe, steps = self.settings.probe_steps, self.settings.steps
        end = next(end for end in self._ends if end > self._step)
        while self._step < end:
            if self._step == probe:
                self._optimizer = self._new_optimizer(both=True)
            alone = self._step < probe
            self._train(self._loss_of_vectors() if alone else self._loss_of_both())
            self._step += 1
            if alone:
                report("training the LLMs' vectors", self._step, probe)
            else:
                report("fine-tuning the encoder", self._step - probe, steps)
        if self._held_out is not None:
            fixed = self._held_fixed if end <= probe else None
            with torch.no_grad():
                self._look(self.encoder.pool(self._held_out.hidden) if fixed is None else fixed)

    def model(self) -> tuple[Floats, Arrays]:
        """Return the best evaluated state: vectors (n_llms, width), and upper layers."""
        now = self.vectors.detach(), self.encoder.upper.state_dict()
        vectors, layers = now if self._best is None else self._best
        arrays = {name: value.cpu().numpy().copy() for name, value in layers.items()}
        return np.asarray(vectors.cpu().numpy(), np.float64), arrays

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set these fields of `DualSettings` for later epochs."""
        self.settings = replace(self.settings, **settings)
        for group, rate in zip(self._optimizer.param_groups, self._rates(), strict=False):
            group["lr"] = rate

    def state(self) -> Arrays:
        """Return the training state as named arrays."""
        found: Arrays = {
            "step": np.array([self._step]),
            "random": random_state(self._rng),
            "lowest": np.array([self._lowest]),
            "vectors": self.vectors.detach().cpu().numpy().copy(),
            **under("upper", module_arrays(self.encoder.upper)),
            **under("adam", optimizer_arrays(self._optimizer)),
        }
        if self._best is not None:
            vectors, layers = self._best
            found["best_vectors"] = vectors.cpu().numpy().copy()
            found |= under("best", {k: v.cpu().numpy().copy() for k, v in layers.items()})
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the state from the arrays of `state`."""
        import torch

        device = self.encoder.device
        self._step, self._lowest = int(arrays["step"][0]), float(arrays["lowest"][0])
        set_random_state(self._rng, arrays["random"])
        with torch.no_grad():
            self.vectors.copy_(torch.as_tensor(arrays["vectors"]))
        restore_module(self.encoder.upper, within(arrays, "upper"))
        self._optimizer = self._new_optimizer(both=self._step > self.settings.probe_steps)
        restore_optimizer(self._optimizer, within(arrays, "adam"))
        if "best_vectors" in arrays:
            layers = within(arrays, "best")
            self._best = (
                torch.as_tensor(arrays["best_vectors"], device=device),
                {key: torch.as_tensor(value, device=device) for key, value in layers.items()},
            )

    def _rates(self) -> tuple[float, ...]:
        both, rate = self._step >= self.settings.probe_steps, self.settings.vector_learning_rate
        return (rate / 10, self.settings.learning_rate) if both else (rate,)

    def _new_optimizer(self, *, both: bool) -> Any:
        import torch

        rate, upper = self.settings.vector_learning_rate, self.encoder.upper
        if not both:
            return torch.optim.AdamW([self.vectors], lr=rate)
        upper.requires_grad_()
        return torch.optim.AdamW(
            [
                {"params": [self.vectors], "lr": rate / 10},
                {"params": upper.parameters(), "lr": self.settings.learning_rate},
            ]
        )

    def _loss_of_vectors(self) -> Tensor:
        rows = self._draw(self._training)
        return self._sample_llm(self._fixed[rows], self._training.quality[rows])

    def _loss_of_both(self) -> Tensor:
        training, options = self._training, self.settings
        rows = self._draw(training)
        states = self.encoder.pool([training.hidden[i] for i in rows])
        loss = self._sample_llm(states, training.quality[rows])
        if options.cluster_weight:
            drawn = draw_contrasts(training.cluster[rows], options.cluster_negatives, self._rng)
            other = sample_sample_loss(states, drawn, options.temperature)
            loss = loss + options.cluster_weight * other
        return loss

    def _draw(self, training: Questions) -> NDArray[np.intp]:
        n = len(training.quality)
        return self._rng.choice(n, min(self.settings.batch_size, n), replace=False)

    def _sample_llm(self, states: Tensor, quality: Floats) -> Tensor:
        options = self.settings
        positive, negative = top_and_bottom(
            quality, options.positives, options.negatives, self._rng
        )
        logits = self._cosines(states) / options.temperature
        return sample_llm_loss(logits, quality, positive, negative)

    def _cosines(self, states: Tensor) -> Tensor:
        import torch

        return states @ torch.nn.functional.normalize(self.vectors, dim=-1).T

    def _train(self, loss: Tensor) -> None:
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    def _look(self, states: Tensor) -> None:
        assert self._held_out is not None  # checked by the caller
        cosines = self._cosines(states).detach().cpu().numpy().astype(np.float64)
        loss = calibrated_loss(cosines, self._held_out.quality)
        if loss < self._lowest:
            layers = {k: v.clone() for k, v in self.encoder.upper.state_dict().items()}
            self._lowest, self._best = loss, (self.vectors.detach().clone(), layers)


def _looks(steps: int) -> list[int]:
    """Return the steps, counted from 1, that end with an evaluation on held-out questions."""
    every = max(steps // CHECKS, 1)
    return [step for step in range(1, steps + 1) if step % every == 0 or step == steps]
