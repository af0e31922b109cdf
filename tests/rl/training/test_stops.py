"""Where a generation ends, on tokens that are parts of stop strings, of characters, or special."""

from __future__ import annotations

import pytest
from transformers import AutoTokenizer

from waypost.testing.tiny_model import stand_in
from waypost_rl.training.stops import Stops

END = 256


@pytest.fixture
def tokenizer():
    """Tokens are bytes, and a few longer ones."""
    made = AutoTokenizer.from_pretrained(stand_in("causal"))
    made.add_tokens(["h>, and", "</se", "er></"])
    made.add_special_tokens({"additional_special_tokens": ["</answer>"]})
    return made


def cut(tokenizer, pieces: list[str], stop=("</search>", "</answer>")) -> tuple[int, str | None]:
    """Return how many tokens the generation has when it ends, and why."""
    stops = Stops(tokenizer, stop, {END})
    ids = [one for piece in pieces for one in tokenizer(piece).input_ids]
    for count in range(1, len(ids) + 1):
        if reason := stops.reason(ids[:count]):
            return count, reason
    return len(ids), None


@pytest.mark.parametrize(
    ("pieces", "count", "reason"),
    [
        (["ab</search>cd"], 8, "stop"),  # "</se" is one token
        (["</", "search>"], 9, "stop"),
        (["</", "search", "<|end|>", ">"], 9, "end"),
        (["</searc", "h>, and", "x"], 5, "stop"),  # the token that completes it says more
        (["</answ", "er></", "search>"], 7, "stop"),
        (["ab</answer>cd"], 3, "stop"),  # a special token
        (["</searc>h", "</ search>", "&lt;/search>"], 28, None),
    ],
)
def test_a_generation_ends_at_the_token_that_completes_a_stop(tokenizer, pieces, count, reason):
    assert cut(tokenizer, pieces) == (count, reason)


@pytest.mark.parametrize(
    ("text", "stop", "count"),
    [("aé!", "é", 3), ("日本語", "日本", 6), ("é</search>", "</search>", 8), ("a" * 9, "aaa", 3)],
)
def test_characters_of_several_tokens_are_whole_when_they_are_looked_at(
    tokenizer, text, stop, count
):
    assert cut(tokenizer, [text], (stop,)) == (count, "stop")


def test_without_stop_strings_only_end_tokens_end(tokenizer):
    assert cut(tokenizer, ["ab</search>", "<|end|>"], ("",)) == (9, "end")
