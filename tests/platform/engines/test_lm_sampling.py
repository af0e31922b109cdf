from __future__ import annotations

import pytest
import torch

from waypost.engines._lm_loop import sample


def test_top_p_keeps_the_fewest_tokens_that_reach_it():
    logits = torch.log(torch.tensor([0.1, 0.5, 0.15, 0.25]))
    generator = torch.Generator().manual_seed(0)

    def drawn(top_p: float) -> set[int]:
        return {sample(logits, 1.0, top_p, generator) for _ in range(300)}

    assert drawn(0.4) == {1}
    assert drawn(0.6) == {1, 3}
    assert drawn(0.8) == {1, 2, 3}
    assert drawn(1.0) == {0, 1, 2, 3}


def test_a_flat_distribution_is_sorted_whole():
    generator = torch.Generator().manual_seed(0)
    drawn = {sample(torch.zeros(2000), 1.0, 0.9, generator) for _ in range(1500)}
    assert 700 < len(drawn) <= 1800


def test_temperature_sharpens_and_flattens():
    logits = torch.log(torch.tensor([0.6, 0.4]))
    generator = torch.Generator().manual_seed(0)

    def share(temperature: float) -> float:
        return sum(sample(logits, temperature, 1.0, generator) for _ in range(2000)) / 2000

    assert share(0.25) == pytest.approx(0.4**4 / (0.4**4 + 0.6**4), abs=0.03)
    assert share(1.0) == pytest.approx(0.4, abs=0.04)
