"""The two contrastive losses of RouterDC (2409.19886), over torch tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

Mask = NDArray[np.bool_]

GOOD = 0.5
"""An LLM that scored more than this is no negative."""


def top_and_bottom(
    quality: NDArray[np.float64], positives: int, negatives: int, rng: np.random.Generator
) -> tuple[Mask, Mask]:
    """Choose each question's positive and negative LLMs; which of equal ones is drawn anew.

    Args:
        quality: (n, n_llms), NaN where not measured: neither of the two.
        positives: The best so many, of those that scored above 0.
        negatives: The worst so many, of those that scored at most `GOOD`.
        rng: Draws among ties.

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
    """Pull a question towards each LLM that is good at it, away from those that are worse.

    For each positive p: -log(e^z_p / (e^z_p + the sum of e^z_n over negatives n that scored less
    than p)); summed over positives, averaged over questions.

    Args:
        logits: (n, n_llms) cosines over temperature.
        quality: (n, n_llms), NaN where not measured.
        positive: (n, n_llms), from `top_and_bottom`.
        negative: (n, n_llms), likewise.
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
    """Draw, for each question of a batch, a companion of its cluster and strangers.

    Args:
        cluster: (n,) cluster of each question.
        negatives: Strangers, fewer where the batch has fewer.
        rng: Draws.

    Returns:
        (k, 2 + negatives) positions in the batch: anchor, its companion (never itself), the
        strangers; a question without a companion or without strangers is no anchor.
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
    """Pull a question towards its companion, away from the strangers: InfoNCE on cosines.

    Args:
        states: (n, d) unit rows.
        contrasts: From `draw_contrasts`; without any the loss is 0.
        temperature: Of the cosines.
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
