"""The turns of a chat, and its place in a session."""

from __future__ import annotations

import pytest

from waypost.contracts.session import Session, Turn
from waypost.sessions.cleaning import marks_of
from waypost.sessions.conversation import (
    ROUTED_END,
    Conversation,
    Place,
    cut,
    derived_id,
    last_turn,
    place_of,
    read_conversation,
)
from waypost.sessions.token import Token

MARKS = marks_of(["claude-code"])
SYSTEM = ("system", "be short")
REMINDER = ("user", "<system-reminder>x</system-reminder>")
TALK = [
    SYSTEM, ("user", "one"), ("assistant", "1"), ("user", "two"), ("assistant", "2"),
    ("user", "three"),
]  # fmt: skip


def read(said, *, whole=False, marks=(), most=32) -> Conversation:
    return read_conversation(said, whole=whole, marks=marks, most=most)


def test_each_turn_is_what_its_own_request_was_routed_on() -> None:
    for whole in (False, True):
        talk = read(TALK, whole=whole)
        assert not talk.goes_on
        for number, turn in enumerate((*talk.earlier, talk.now)):
            asked = TALK[: 2 * (number + 1)]
            assert turn == read(asked, whole=whole).now
            alone = last_turn(asked, whole=whole)
            assert (turn.text, turn.input_tokens) == (alone.text, alone.input_tokens)


def test_tokens_of_the_conversation_before_are_in_a_cache() -> None:
    talk = read(TALK)
    # "be short\none" has 12 characters, "be short\none\n1" 14
    assert talk.earlier[0] == Turn("one", 4, 0)
    assert talk.earlier[1] == Turn("two", 6, 5)
    assert talk.now.cached_tokens == 6


def test_the_tokens_of_a_single_message_are_the_routers_to_estimate() -> None:
    assert read([("user", "one")]).now == Turn("one")


def test_tools_belong_to_the_turn_that_led_to_them() -> None:
    said = [
        ("user", "go"),
        ("assistant", ""),
        ("tool", "found"),
        ("assistant", ""),
        ("tool", "xyz"),
    ]
    talk = read(said)
    assert talk.goes_on
    assert [turn.text for turn in talk.earlier] == ["go"]
    assert talk.now.text == "go"
    assert talk.now.input_tokens == 4
    assert talk.now.cached_tokens == 3  # "go\nfound"


def test_of_several_user_messages_in_a_row_the_last_is_the_turn() -> None:
    said = [("user", "a"), ("user", "b"), ("assistant", "1"), ("assistant", "2"), ("user", "c")]
    talk = read(said)
    assert [turn.text for turn in talk.earlier] == ["b"]
    assert talk.now.text == "c"


def test_a_message_of_the_harness_is_no_turn() -> None:
    said = [REMINDER, ("user", "one"), REMINDER, ("assistant", "1"), REMINDER]
    talk = read(said, marks=MARKS)
    assert talk.goes_on
    assert [turn.text for turn in talk.earlier] == ["one"]
    assert talk.now.text == "one"
    assert last_turn(said, whole=False, marks=MARKS).text == "one"
    assert last_turn(said, whole=True, marks=MARKS).text == "one\n1"
    assert last_turn([REMINDER], whole=False, marks=MARKS).text == REMINDER[1]
    assert last_turn([REMINDER], whole=True, marks=MARKS).text == REMINDER[1]


def test_without_a_user_the_last_message_is_routed_on() -> None:
    assert read([SYSTEM]).now.text == "be short"
    assert read([SYSTEM, ("assistant", "x")]) == Conversation(Turn("x", 3, 3))


def test_a_user_message_without_text_is_a_turn() -> None:
    assert read([("user", "")], marks=MARKS).now.text == ""


def test_the_middle_of_a_long_text_is_cut_out() -> None:
    text = "a" * ROUTED_END + "b" * 10 + "c" * ROUTED_END
    short = cut(Turn(text))
    assert short.text == "a" * ROUTED_END + "\n" + "c" * ROUTED_END
    assert short.input_tokens == 39_325
    assert cut(Turn(text, 7)).input_tokens == 7


def place(said, token=None, note="", most=32) -> Place:
    return place_of(read(said, most=most), 0.1, token, note, most=most)


def test_without_a_token_the_earlier_turns_are_folded() -> None:
    assert place([("user", "one")]) == Place(1, Session((), 0, 0.1))
    found = place(TALK)
    assert found.turn == 3
    assert [turn.text for turn in found.session.earlier] == ["one", "two"]


@pytest.mark.parametrize(
    ("token", "turn", "folded"),
    [(1, 3, ["two"]), (2, 3, []), (3, 4, []), (40, 41, [])],
)
def test_a_token_replaces_the_turns_until_its_own(token: int, turn: int, folded: list[str]) -> None:
    found = place(TALK, Token(token, "m"))
    assert found.turn == turn
    assert found.session.last_model == "m"
    assert [each.text for each in found.session.earlier] == folded


def test_the_fold_begins_at_the_oldest_turn_that_is_looked_at() -> None:
    found = place(TALK, most=2)
    assert found.turn == 3
    assert [turn.text for turn in found.session.earlier] == ["two"]
    assert place(TALK, most=1).session.earlier == ()
    late = place([*TALK, ("assistant", "3"), ("user", "four")], Token(1, "m"), "and", most=2)
    assert late.session.last_model is None
    assert late.session.note == "and; the session token is of turn 1, and 2 turns are looked at"


def test_a_turn_that_goes_on_has_the_same_number() -> None:
    said = [*TALK[:2], ("assistant", ""), ("tool", "x")]
    assert place(said).turn == 1
    assert place(said, Token(1, "m")).turn == 1
    assert place(said, Token(1, "m")).session.earlier == ()


def test_an_id_is_that_of_the_first_messages() -> None:
    first = derived_id(TALK[:2], None)
    assert derived_id(TALK, None) == first
    assert derived_id([SYSTEM, REMINDER, *TALK[1:]], None, MARKS) == first
    others = [
        derived_id(TALK, "user"), derived_id(TALK[1:], None),
        derived_id([SYSTEM, ("user", "two")], None),
    ]  # fmt: skip
    assert len({first, *others}) == 4
