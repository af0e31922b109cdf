"""Deadlines learned from simulated LLMs: few false alarms, hangs noticed, slower LLMs relearned."""

from __future__ import annotations

import math
import random

import pytest

from waypost.serve.backends.answer_times import FEWEST, KEPT, AnswerTimes, LogHistogram


def simulated(rng: random.Random, *, slower: float = 1.0) -> tuple[float, int]:
    """Draw seconds and tokens of an answer: .3 s, then 50 tokens a second, both spread."""
    tokens = max(1, round(rng.lognormvariate(math.log(200), 0.8)))
    return slower * (0.3 + tokens / 50) * rng.lognormvariate(0.0, 0.25), tokens


def learned(rng: random.Random, count: int = 1_000) -> AnswerTimes:
    times = AnswerTimes()
    for _ in range(count):
        times.answered(*simulated(rng))
    return times


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_quantiles_are_those_of_the_latest_values_within_a_class(share):
    rng = random.Random(0)
    found = LogHistogram()
    for _ in range(5_000):
        found.add(1e3 * rng.lognormvariate(0, 1))  # forgotten by the end
    values = [rng.lognormvariate(0, 1) for _ in range(40_000)]
    for value in values:
        found.add(value)
    true = sorted(values)[round(share * len(values))]
    assert 0.85 * true < found.quantile(share) < 1.35 * true


def test_no_value_has_no_quantile_and_nothing_is_said_of_few_answers():
    with pytest.raises(ValueError, match="no value"):
        LogHistogram().quantile(0.5)
    times = AnswerTimes()
    for count in range(FEWEST + 1):
        assert (times.within_s(0.99, None) is None) is (count < FEWEST)
        times.answered(1.0, 50)
    assert times.within_s(0.99, None) == pytest.approx(1.0, rel=0.1)


def test_answers_without_tokens_or_time_are_taken():
    times = AnswerTimes()
    for _ in range(FEWEST):
        times.answered(0.0, 0)
    assert times.within_s(0.99, 10) < 1e-3


def test_twice_the_quantile_is_late_for_hardly_any_answer():
    rng = random.Random(1)
    times = learned(rng)
    late = 0
    for _ in range(20_000):
        seconds, tokens = simulated(rng)
        late += seconds > 2 * times.within_s(0.99, None)
        times.answered(seconds, tokens)
    assert late < 10
    # a deadline of minutes would be none: 99 in 100 answers take less than 30 s
    assert 2 * times.within_s(0.99, None) < 120


def test_a_short_answer_has_a_short_deadline():
    times = learned(random.Random(2))
    long, short = times.within_s(0.99, None), times.within_s(0.99, 10)
    assert times.within_s(0.99, 10**6) == long
    assert short < 0.1 * long
    assert short > 0.3 + 10 / 50


def test_seconds_before_the_first_token_and_a_token_are_told_apart():
    rng = random.Random(3)
    times = AnswerTimes()
    for _ in range(2_000):
        tokens = rng.randint(10, 1_000)
        times.answered(2.0 + 0.02 * tokens, tokens)
    for tokens in (10, 200, 800):
        assert times.within_s(0.99, tokens) == pytest.approx(2 + 0.02 * tokens, rel=0.12)


def test_an_llm_that_hangs_now_and_then_teaches_no_patience():
    rng = random.Random(4)
    times = learned(rng)
    before = times.within_s(0.99, None)
    for turn in range(2_000):
        if turn % 20 == 0:
            times.gave_up()
        else:
            times.answered(*simulated(rng))
    assert times.within_s(0.99, None) < 1.5 * before


def test_an_llm_that_became_ten_times_slower_is_learned_anew():
    rng = random.Random(5)
    times = learned(rng, 3 * KEPT)
    late = []
    for _ in range(600):
        seconds, tokens = simulated(rng, slower=10)
        late.append(seconds > 2 * times.within_s(0.99, None))
        if late[-1]:
            times.gave_up()
        else:
            times.answered(seconds, tokens)
    assert sum(late[:100]) > sum(late[-100:])
    assert sum(late[-100:]) <= 2


def test_an_llm_that_became_faster_gets_shorter_deadlines():
    rng = random.Random(6)
    times = learned(rng)
    before = times.within_s(0.99, None)
    for _ in range(10 * KEPT):
        times.answered(*simulated(rng, slower=0.1))
    assert times.within_s(0.99, None) < 0.15 * before


def test_weights_do_not_overflow():
    found = LogHistogram()
    for _ in range(60 * KEPT):
        found.add(1.0)
    assert found.quantile(0.5) == pytest.approx(1.0, rel=0.1)
