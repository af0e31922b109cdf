"""Advantages of episodes whose tokens are only in part the policy's.

TRL 0.11.4 multiplies values and rewards by the mask and then runs plain estimation. A gap of masked
tokens then counts as a state of value 0: the token before it gets a false penalty, the token after
it a false bonus. Here the value after the gap follows the token before it.
"""

from __future__ import annotations

import torch
from torch import Tensor


def gae(
    values: Tensor, rewards: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Return generalized advantages (arXiv 1506.02438) and returns over the unmasked tokens.

    Masked tokens are skipped: their values and rewards have no effect, and neither discount nor
    lambda is applied for them.

    Args:
        values: Values before each token, (episodes, tokens).
        rewards: Rewards after each token, (episodes, tokens).
        mask: 1 for tokens of the policy, 0 for all others, (episodes, tokens).
        gamma: Discount, in (0, 1].
        lam: Lambda, in [0, 1].

    Returns:
        Advantages and returns, both (episodes, tokens) and 0 at masked tokens.
    """
    own = mask.bool()
    following = torch.zeros_like(values[:, 0])
    carried = torch.zeros_like(following)
    advantages = torch.zeros_like(values)
    for at in range(values.shape[1] - 1, -1, -1):
        now = own[:, at]
        delta = rewards[:, at] + gamma * following - values[:, at]
        carried = torch.where(now, delta + gamma * lam * carried, carried)
        following = torch.where(now, values[:, at], following)
        advantages[:, at] = torch.where(now, carried, torch.zeros_like(carried))
    return advantages, torch.where(own, advantages + values, torch.zeros_like(values))


def whiten(advantages: Tensor, mask: Tensor) -> Tensor:
    """Return advantages with mean 0 and variance 1 over the unmasked tokens of all workers.

    Equal advantages, or a single one, become 0. Masked tokens get 0.
    """
    own = mask.to(advantages.dtype)
    sums = torch.stack([own.sum(), (advantages * own).sum(), (advantages.square() * own).sum()])
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(sums)
    count, total, squares = sums
    mean = total / count.clamp(min=1)
    variance = (squares / count.clamp(min=1) - mean.square()).clamp(min=0)
    whitened: Tensor = (advantages - mean) * torch.rsqrt(variance + 1e-8) * own
    return whitened
