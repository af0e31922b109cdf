"""The token of a session's last answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.sessions.token import MOST_CHARACTERS, Token, read_token, write_token


@given(st.integers(1, 999_999), st.text(min_size=1, max_size=200))
def test_a_token_is_read_as_it_was_written(turn: int, model: str) -> None:
    token = write_token(turn, model)
    assert token.isascii()
    assert len(token) <= MOST_CHARACTERS
    assert read_token(token) == Token(turn, model)


def test_a_turn_beyond_all_is_the_last_that_fits() -> None:
    assert read_token(write_token(10**9, "m")) == Token(999_999, "m")


@pytest.mark.parametrize(
    "text",
    [
        "", "x", "1.1", "1.0.bQ", "1.-1.bQ", "2.1.bQ", "1.1.", "1.1.b Q", "1.1.bQ.x", "1.1.b",
        "1.1." + "b" * 2_000, "1.9999999.bQ", "1.1.gA", "1.\u0661.bQ", "1.1.bQ\n\x00",
    ],
)  # fmt: skip
def test_what_has_another_form_is_no_token(text: str) -> None:
    assert read_token(text) is None


@given(st.text(max_size=50))
def test_any_text_is_read_or_is_none(text: str) -> None:
    found = read_token(text)
    assert found is None or write_token(found.turn, found.model).startswith("1.")
