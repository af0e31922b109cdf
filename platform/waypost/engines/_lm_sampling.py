"""Choosing the next token."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy; dividing by less overflows nothing but says nothing."""

_NUCLEUS = 256
"""Sorting a vocabulary of 150,000 takes longer than a small model's step, and the nucleus of
most steps is within the first few tokens: the whole is sorted only where it is not."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are chosen: `temperature` 0 is greedy; `generator` is this request's own."""

    temperature: float
    top_p: float
    generator: torch.Generator


def sample(logits: Tensor, temperature: float, top_p: float, generator: torch.Generator) -> int:
    """Draw one token.

    Args:
        logits: float32 (vocabulary).
        temperature: At least `GREEDY_BELOW`.
        top_p: Mass of the nucleus in (0, 1]: the fewest most likely tokens that reach it.
        generator: The request's own, so that its draws depend on no other request.
    """
    weights = torch.softmax(logits / temperature, dim=-1)
    if top_p >= 1.0:
        return int(torch.multinomial(weights, 1, generator=generator))
    best, tokens = torch.topk(weights, min(_NUCLEUS, len(weights)))
    if float(best.sum()) < top_p:
        best, tokens = torch.sort(weights, descending=True)
    before = torch.cumsum(best, dim=-1) - best
    best = torch.where(before < top_p, best, 0.0)
    return int(tokens[torch.multinomial(best, 1, generator=generator)])
