"""Which candidates a batch asked, and the bonus for the entropy of these choices."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.r1_world import POOL, question
from waypost.contracts.errors import ConfigError
from waypost_rl.protocol import Candidates
from waypost_rl.reward import Call
from waypost_rl.routes import entropy_bonus, route_statistics
from waypost_rl.token_episode import TokenEpisode

WELL_FORMED = "<think>x</think><answer>a</answer>"


def episode(*candidates: str, text: str = WELL_FORMED, failed: int = 0) -> TokenEpisode:
    calls = tuple(Call(name, 5) for name in candidates)
    begun = TokenEpisode(question(), (1,), calls=calls, turns=len(calls) + 1, failed_calls=failed)
    return begun.add("policy", (2,), text)


def test_statistics_worked_by_hand():
    batch = [episode("cook", "cook"), episode("cook", failed=1), episode("prover"), episode()]
    found = route_statistics([*batch, episode(text="no")], POOL)
    assert found.shares == {"cook": 0.75, "prover": 0.25}
    assert found.entropy == pytest.approx(0.5623351446)
    assert found.evenness == pytest.approx(0.8112781245)  # the same in bits
    assert (found.episodes, found.without_search, found.calls) == (5, 0.4, 0.8)
    assert (found.failed, found.turns, found.well_formed) == (0.2, 1.8, 0.8)
    numbers = found.to_dict()
    assert numbers["share/cook"] == 0.75
    assert numbers["entropy"] == found.entropy
    assert all(isinstance(value, int | float) for value in numbers.values())


def test_nothing_asked_and_a_pool_of_one():
    none = route_statistics([], POOL)
    assert (none.episodes, none.shares, none.entropy) == (0, {"cook": 0.0, "prover": 0.0}, 0.0)
    one = route_statistics([episode("cook")], Candidates(["cook"]))
    assert (one.shares, one.entropy, one.evenness) == ({"cook": 1.0}, 0.0, 0.0)


def test_the_bonus_is_worked_by_hand():
    batch = [episode("cook", "cook"), episode("cook"), episode("prover", "cook"), episode()]
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    often, seldom = -math.log(0.8) - entropy, -math.log(0.2) - entropy
    wanted = [often, often, (often + seldom) / 2, 0.0]
    assert entropy_bonus(batch, 1.0) == pytest.approx(wanted)
    assert entropy_bonus(batch, 0.1) == pytest.approx([0.1 * one for one in wanted])
    assert entropy_bonus([episode("cook")] * 3, 1.0) == [0.0] * 3
    for eta in (-1.0, math.nan, math.inf):
        with pytest.raises(ConfigError, match="at least 0"):
            entropy_bonus(batch, eta)


@given(st.lists(st.lists(st.sampled_from(["cook", "prover"]), max_size=4), max_size=8))
def test_the_bonus_is_the_slope_of_the_entropy(choices):
    bonus = entropy_bonus([episode(*names) for names in choices], 1.0)
    counts = Counter(name for names in choices for name in names)
    weighted = [one * len(names) for one, names in zip(bonus, choices, strict=True)]
    assert sum(weighted) == pytest.approx(0.0, abs=1e-9)
    for one, names in zip(bonus, choices, strict=True):
        if names:
            slopes = [slope(counts, name) for name in names]
            assert one == pytest.approx(sum(slopes) / len(slopes), abs=1e-4)


def slope(counts: Counter[str], name: str, step: float = 1e-6) -> float:
    """Return the change of the entropy for each call of ``name``, times the number of calls."""

    def entropy(of: dict[str, float]) -> float:
        return -sum(n / sum(of.values()) * math.log(n / sum(of.values())) for n in of.values())

    more = {key: count + step * (key == name) for key, count in counts.items()}
    return (entropy(more) - entropy(dict(counts))) / step * counts.total()
