from dataclasses import replace

import numpy as np
import pytest

from waypost.contracts.records import LLMInfo
from waypost.testing.fitted_routers import scores
from waypost.testing.synthetic import planted
from waypost_routers._neural.factors import all_opponents, loss
from waypost_routers.mfrouter import MFRouter

LOGITS = np.array([[0.5, -0.5, 1.0], [2.0, 0.0, 0.0]], np.float32)
SCORES = np.array([[1.0, 0.0, 1.0], [0.25, 0.75, 0.0]], np.float32)
KNOWN = np.array([[True, True, True], [True, True, False]])


def log_loss(lead):
    return np.log1p(np.exp(-lead))


def test_ties_and_unmeasured_cells_have_no_part_in_pairs():
    # first question: 0 beats 1 (lead 1), 2 beats 1 (lead 1.5); second: 1 beats 0 by .5 (lead -2)
    expected = (log_loss(1.0) + log_loss(1.5) + 0.5 * log_loss(-2.0)) / 2.5
    assert loss(LOGITS, SCORES, KNOWN, "pairs", all_opponents(3))[0] == pytest.approx(expected)


def test_correctness_is_the_cross_entropy_of_measured_cells():
    def one(logit, score):
        return np.log1p(np.exp(logit)) - score * logit

    cells = [one(0.5, 1), one(-0.5, 0), one(1.0, 1), one(2.0, 0.25), one(0.0, 0.75)]
    found = loss(LOGITS, SCORES, KNOWN, "correctness", all_opponents(3))[0]
    assert found == pytest.approx(np.mean(cells))


@pytest.mark.parametrize("target", ["pairs", "correctness"])
def test_the_gradient_is_that_of_the_loss(target):
    _, gradient = loss(LOGITS, SCORES, KNOWN, target, all_opponents(3))
    for i, j in np.ndindex(2, 3):
        up, down = (LOGITS.astype(np.float64) for _ in range(2))
        up[i, j] += 1e-4
        down[i, j] -= 1e-4
        above, below = (loss(x, SCORES, KNOWN, target, all_opponents(3))[0] for x in (up, down))
        slope = (above - below) / 2e-4
        shared = 0.0
        if target == "pairs" and KNOWN[i, j]:
            single = loss(LOGITS, SCORES, KNOWN, "correctness", all_opponents(3))[1]
            shared = single[i].sum() / KNOWN[i].sum()
        assert gradient[i, j] == pytest.approx(slope + shared, abs=1e-5)


@pytest.mark.parametrize("n_llms", [2, 3, 4, 7])
def test_every_two_llms_meet_and_count_alike(n_llms):
    # one question, equal logits: each LLM's gradient is half of what it lost less what it won
    logits = np.zeros((1, n_llms), np.float32)
    scores = np.linspace(0, 1, n_llms, dtype=np.float32)[None]
    known = np.ones((1, n_llms), bool)
    _, gradient = loss(logits, scores, known, "pairs", all_opponents(n_llms))
    shared = loss(logits, scores, known, "correctness", all_opponents(n_llms))[1].mean()
    behind = scores[0][None, :] - scores[0][:, None]
    expected = behind.sum(axis=1) / 2 / (np.abs(behind).sum() / 2) + shared
    np.testing.assert_allclose(gradient[0], expected, atol=1e-6)


@pytest.mark.parametrize("target", ["pairs", "correctness"])
def test_each_target_finds_the_specialists(target):
    data, other = planted(120), planted(60, seed=4)
    chosen = scores(MFRouter(target=target).fit(data), other).argmax(axis=1)
    assert (chosen == np.arange(60) % 2).mean() > 0.95


def test_it_stops_where_the_held_out_loss_is_lowest():
    data = planted(120)
    shuffled = np.random.default_rng(0).permutation(120)
    noise = MFRouter(noise=0).fit(replace(data, quality=data.quality[shuffled]))
    assert noise.steps_ < noise.steps


def test_many_llms_meet_a_sample_of_opponents():
    draw = np.random.default_rng(0)
    data = planted(60)
    quality = draw.random((60, 40))
    cells = np.full((60, 40), np.nan)
    wide = replace(
        data,
        llms=tuple(LLMInfo(name=f"llm-{j:02d}") for j in range(40)),
        quality=quality,
        input_tokens=cells,
        output_tokens=cells,
        cost_usd=cells,
        latency_s=cells,
    )
    one, two = (MFRouter(steps=20).fit(wide) for _ in range(2))
    np.testing.assert_array_equal(scores(one, data), scores(two, data))
    assert np.isfinite(scores(one, data)).all()
