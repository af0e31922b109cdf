"""Advantages of episodes whose tokens are only in part the policy's."""

from __future__ import annotations

import torch

from waypost_rl.training.advantages import gae, whiten


def test_advantages_are_carried_over_a_masked_gap() -> None:
    """The example of router_r1_training.md: five positions of value .5, the middle one masked."""
    values = torch.full((1, 5), 0.5)
    mask = torch.tensor([[1, 1, 0, 1, 1]])
    rewards = torch.tensor([[0.0, 0.0, 0.0, 0.0, 0.5]])
    advantages, returns = gae(values, rewards, mask, gamma=1.0, lam=0.0)
    assert advantages.tolist() == [[0.0, 0.0, 0.0, 0.0, 0.0]]
    assert returns.tolist() == [[0.5, 0.5, 0.0, 0.5, 0.5]]


def test_tokens_of_the_environment_count_as_if_they_were_not_there() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(3, 9, generator=generator)
    rewards = torch.randn(3, 9, generator=generator)
    mask = torch.tensor([[1, 1, 0, 0, 1, 0, 1, 1, 0]] * 3)
    own = mask[0].bool()
    with_gaps = gae(values, rewards, mask, gamma=0.9, lam=0.7)
    without = gae(
        values[:, own], rewards[:, own], torch.ones(3, int(own.sum())), gamma=0.9, lam=0.7
    )
    for one, other in zip(with_gaps, without, strict=True):
        torch.testing.assert_close(one[:, own], other)
        assert not one[:, ~own].any()


def test_whitened_advantages_have_mean_0_and_variance_1_over_the_policys_tokens() -> None:
    mask = torch.tensor([[1, 0, 1, 1], [1, 1, 0, 0]])
    found = whiten(torch.tensor([[3.0, 99.0, 1.0, -2.0], [0.5, 4.0, 99.0, 99.0]]), mask)
    own = found[mask.bool()]
    assert abs(float(own.mean())) < 1e-6
    assert abs(float(own.var(unbiased=False)) - 1) < 1e-5
    assert not found[~mask.bool()].any()
    assert not whiten(torch.full((2, 4), 7.0), mask).any()
