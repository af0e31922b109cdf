"""Masks: what the policy wrote is trained on, what it was told is not."""

from __future__ import annotations

import pytest

from waypost.contracts.errors import SchemaError
from waypost_rl.transcript import Transcript

#                 0123             456789           01
EPISODE = Transcript().add("policy", "ab c").add("environment", "[info]").add("policy", "de")


def test_spans_of_each_author() -> None:
    assert EPISODE.text == "ab c[info]de"
    assert EPISODE.spans("policy") == ((0, 4), (10, 12))
    assert EPISODE.spans("environment") == ((4, 10),)


def test_a_token_across_a_border_is_masked() -> None:
    offsets = [(0, 2), (2, 5), (5, 10), (10, 11), (11, 12), (12, 12)]
    assert EPISODE.token_mask(offsets) == [1, 0, 0, 1, 1, 0]


def test_segment_mask_repeats_each_author_for_its_tokens() -> None:
    assert EPISODE.segment_mask([2, 3, 1]) == [1, 1, 0, 0, 0, 1]
    assert EPISODE.segment_mask([1, 0, 0]) == [1]


@pytest.mark.parametrize("lengths", [[2, 3], [1, -1, 2]])
def test_segment_mask_refuses_lengths_that_do_not_fit(lengths: list[int]) -> None:
    with pytest.raises(SchemaError, match="3 segments"):
        EPISODE.segment_mask(lengths)


def test_an_empty_observation_adds_no_segment() -> None:
    assert EPISODE.add("environment", "") is EPISODE


def test_changing_environment_text_moves_no_policy_token_into_the_mask() -> None:
    longer = Transcript().add("policy", "ab c").add("environment", "[xx]").add("policy", "de")
    assert [longer.text[a:b] for a, b in longer.spans("policy")] == ["ab c", "de"]
