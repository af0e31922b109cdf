"""How the letters are trained: soft targets, the LLMs in another order for every question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.progress import report
from waypost.encoders.texts import batches_by_length
from waypost_routers._letter_model import LetterModel

if TYPE_CHECKING:
    from torch import Tensor

Floats = NDArray[np.float64]

WARM_UP = 0.1
"""Share of the steps in which the learning rate rises; then it falls to nothing."""


@dataclass(frozen=True)
class LetterSettings:
    """How to train; the parameters of `CausalLMRouter` say what each means."""

    epochs: int
    batch_size: int
    learning_rate: float
    target_temperature: float
    seed: int


def train_letters(
    model: LetterModel, texts: Sequence[str], quality: Floats, settings: LetterSettings
) -> None:
    """Fine-tune the adapter.

    Args:
        model: Its adapter is trained in place.
        texts: The questions.
        quality: (n, n_llms), NaN where not measured. Where all of a question's scores are alike
            there is nothing to learn, and it is left out.
        settings: See there.
    """
    import torch

    known = ~np.isnan(quality)
    best = np.where(known, quality, -np.inf).max(axis=1)
    worst = np.where(known, quality, np.inf).min(axis=1)
    rows = np.flatnonzero(best > worst)
    if not len(rows) or not settings.epochs:
        return
    targets = soft_targets(quality, settings.target_temperature)
    rng = np.random.default_rng(settings.seed)
    rests = {i: model.prompt.rest(texts[i]) for i in rows.tolist()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, weight_decay=0.01)
    steps = settings.epochs * -(-len(rows) // settings.batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
    done = 0
    for _ in range(settings.epochs):
        drawn = rng.permutation(rows)
        batches = list(batches_by_length([len(rests[int(i)]) for i in drawn], settings.batch_size))
        for number in rng.permutation(len(batches)):
            batch = drawn[batches[number]]
            orders = [rng.permutation(quality.shape[1]) for _ in batch]
            prompts = [
                model.prompt.head(order.tolist()) + rests[int(i)]
                for i, order in zip(batch, orders, strict=True)
            ]
            logits = model.letter_logits(prompts)
            shuffled = [targets[i][order] for i, order in zip(batch, orders, strict=True)]
            loss = letter_loss(logits, np.array(shuffled))
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            done += 1
            report("fine-tuning the language model", done, steps)


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
        targets: (n, n_llms) shares that sum to 1; NaN where not measured: no part of the sum.
    """
    import torch

    known = torch.from_numpy(~np.isnan(targets)).to(logits.device)
    shares = torch.from_numpy(np.nan_to_num(targets)).to(logits.device, logits.dtype)
    logs = torch.log_softmax(torch.where(known, logits, -torch.inf), dim=-1)
    return -(shares * torch.where(known, logs, 0.0)).sum(dim=1).mean()


def _rate(step: int, steps: int) -> float:
    rising = max(round(WARM_UP * steps), 1)
    return (step + 1) / rising if step < rising else (steps - step) / max(steps - rising, 1)
