"""What a harness wrote is not routed on."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waypost.sessions.cleaning import KNOWN, clean, marks_of

REMINDER = marks_of(["claude-code"])


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("<system-reminder>todo list is empty</system-reminder>\nFix it", "Fix it"),
        ("Fix <system-reminder>a</system-reminder>it", "Fix it"),
        ("a<system-reminder>1</system-reminder>b<system-reminder>2</system-reminder>c", "abc"),
        ("what is <system-reminder>?", "what is <system-reminder>?"),
        ("</system-reminder> x <system-reminder>", "</system-reminder> x <system-reminder>"),
        ("<system-reminder>all</system-reminder>", ""),
        ("  kept as it is ", "  kept as it is "),
        ("<command-name>/x</command-name> <command-message>m</command-message>\n\ngo", "go"),
        ("<system-reminder>a<system-reminder>b</system-reminder>c", "c"),
        ("", ""),
    ],
)
def test_spans_between_marks_are_left_out(text: str, left: str) -> None:
    assert clean(text, REMINDER) == left


def test_every_known_mark_is_a_pair_of_tags() -> None:
    for name, marks in KNOWN.items():
        assert marks_of([name]) == marks
        for start, end in marks:
            assert (start[0], end[:2], start[1:]) == ("<", "</", end[2:])
    with pytest.raises(KeyError):
        marks_of(["nobody"])


@given(st.text(alphabet="ab[]", max_size=60))
def test_cleaning_takes_out_and_adds_nothing(text: str) -> None:
    left = clean(text, [("[", "]")])
    rest = iter(text)
    assert all(letter in rest for letter in left)
    assert left == text or "[" in text


def test_a_text_of_start_marks_takes_linear_time() -> None:
    text = "<system-reminder>" * 100_000
    begin = time.process_time()
    assert clean(text, REMINDER) == text
    assert time.process_time() - begin < 1.0
