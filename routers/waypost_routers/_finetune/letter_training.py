"""Training of the letter model: soft targets, and a new order of the LLMs for every question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.epochs import Arrays, random_state, set_random_state
from waypost.contracts.records import report
from waypost.contracts.types import Floats
from waypost.encoders.texts import batches_by_length
from waypost_routers._finetune.base import Tuner
from waypost_routers._finetune.letters import LetterModel
from waypost_routers._neural.epochs import optimizer_arrays, restore_optimizer, under, within

if TYPE_CHECKING:
    from torch import Tensor


WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; then it falls to 0."""


@dataclass(frozen=True)
class LetterSettings:
    """Training settings; see the parameters of `CausalLMRouter`."""

    epochs: int
    batch_size: int
    learning_rate: float
    target_temperature: float
    seed: int


class LetterTraining(Tuner):
    """The fine-tuning of the adapter.

    Args:
        model: The model whose adapter is trained in place.
        texts: The questions.
        quality: (n, n_llms), NaN where not measured. Questions whose scores are all equal are left
            out.
        settings: Training settings.
    """

    def __init__(
        self, model: LetterModel, texts: Sequence[str], quality: Floats, settings: LetterSettings
    ) -> None:
        import torch

        known = ~np.isnan(quality)
        best = np.where(known, quality, -np.inf).max(axis=1)
        worst = np.where(known, quality, np.inf).min(axis=1)
        self._model, self._settings = model, settings
        self._rows = np.flatnonzero(best > worst)
        self._targets = soft_targets(quality, settings.target_temperature)
        self._rests = {i: model.prompt.rest(texts[i]) for i in self._rows.tolist()}
        self._rng = np.random.default_rng(settings.seed)
        self._optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.learning_rate, weight_decay=0.01
        )
        self.epochs, self._step = settings.epochs, 0
        steps = self._steps = settings.epochs * -(-len(self._rows) // settings.batch_size)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: _rate(step, steps)
        )

    def epoch(self) -> None:
        """Train on every question once."""
        size = self._settings.batch_size
        drawn = self._rng.permutation(self._rows)
        lengths = [len(self._rests[int(i)]) for i in drawn]
        batches = list(batches_by_length(lengths, size))
        for number in self._rng.permutation(len(batches)):
            self._train(drawn[batches[number]])
            self._step += 1
            report("fine-tuning the language model", self._step, self._steps)

    def _train(self, batch: NDArray[np.intp]) -> None:
        orders = [self._rng.permutation(self._targets.shape[1]) for _ in batch]
        prompts = [
            self._model.prompt.head(order.tolist()) + self._rests[int(i)]
            for i, order in zip(batch, orders, strict=True)
        ]
        logits = self._model.letter_logits(prompts)
        shuffled = [self._targets[i][order] for i, order in zip(batch, orders, strict=True)]
        loss = letter_loss(logits, np.array(shuffled))
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()
        self._schedule.step()

    def model(self) -> Arrays:
        """Return the adapter's matrices by name."""
        return self._model.arrays()

    def change(self, settings: Mapping[str, Any]) -> None:
        """Set these fields of `LetterSettings` for later epochs; the rate schedule continues."""
        self._settings = replace(self._settings, **settings)
        rate = self._settings.learning_rate
        self._schedule.base_lrs = [rate]
        for group in self._optimizer.param_groups:
            group["lr"] = rate * _rate(self._step, self._steps)

    def state(self) -> Arrays:
        """Return the training state as named arrays."""
        return {
            "step": np.array([self._step]),
            "random": random_state(self._rng),
            **under("lora", self._model.arrays()),
            **under("adam", optimizer_arrays(self._optimizer)),
        }

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Set the state from the arrays of `state`."""
        self._model.take(within(arrays, "lora"))
        restore_optimizer(self._optimizer, within(arrays, "adam"))
        self._step = self._schedule.last_epoch = int(arrays["step"][0])
        set_random_state(self._rng, arrays["random"])


def soft_targets(quality: Floats, temperature: float) -> Floats:
    """Return softmax(score / temperature) over each question's measured LLMs, NaN elsewhere."""
    known = ~np.isnan(quality)
    highest = np.where(known, quality, -np.inf).max(axis=1, keepdims=True)
    weights = np.where(known, np.exp((np.where(known, quality, 0) - highest) / temperature), 0.0)
    return np.where(known, weights / weights.sum(axis=1, keepdims=True), np.nan)


def letter_loss(logits: Tensor, targets: Floats) -> Tensor:
    """Return the mean cross-entropy of the letters, over measured LLMs only.

    Args:
        logits: (n, n_llms).
        targets: (n, n_llms) shares whose known cells sum to 1 in each row; NaN where not measured.
    """
    import torch

    known = torch.from_numpy(~np.isnan(targets)).to(logits.device)
    shares = torch.from_numpy(np.nan_to_num(targets)).to(logits.device, logits.dtype)
    logs = torch.log_softmax(torch.where(known, logits, -torch.inf), dim=-1)
    return -(shares * torch.where(known, logs, 0.0)).sum(dim=1).mean()


def _rate(step: int, steps: int) -> float:
    rising = max(round(WARM_UP * steps), 1)
    return (step + 1) / rising if step < rising else (steps - step) / max(steps - rising, 1)
