"""Earlier turns that are most like a query, and the store of users' turns."""

from __future__ import annotations

import pytest

from waypost.contracts.errors import SchemaError
from waypost.encoders import make_encoder
from waypost.sessions.kept_turns import KeptTurns, key_of
from waypost.sessions.retrieval import (
    RETRIEVE,
    TURN_CHARACTERS,
    Retrieve,
    Retrieved,
    retrieve,
    retrieve_all,
    turns_of,
)
from waypost.testing.synthetic import ENCODER_ID

ANN = ("user", "ann")
EGGS, ROOTS, RICE = "how long do eggs boil", "the roots of a polynomial", "how long does rice boil"


@pytest.fixture(scope="module")
def encoder():
    return make_encoder(ENCODER_ID)


def test_the_most_similar_turns_are_joined_in_their_order(encoder) -> None:
    given = Retrieve(2, (EGGS, ROOTS, RICE))
    found = retrieve("how long do two eggs boil", given, encoder)
    assert found.text == f"{EGGS}\n{RICE}\nhow long do two eggs boil"
    assert (found.turns, found.of) == (2, 3)
    assert found.similarity[0] > found.similarity[1] > 0
    assert Retrieved.from_dict(found.to_dict()) == found
    assert found.told() == {"turns": 2, "of": 3}


def test_without_an_earlier_turn_the_query_is_routed_on_alone(encoder) -> None:
    assert retrieve(EGGS, Retrieve(3), encoder) == Retrieved(EGGS, 0, 0, ())


def test_among_equally_similar_turns_the_latest_counts(encoder) -> None:
    class Same:
        id, dimension = "same", 2

        def encode(self, texts):
            return encoder.encode(["one text"] * len(texts))

    assert retrieve("q", Retrieve(1, ("a", "b", "c")), Same()).text == "c\nq"


def test_a_turn_is_never_empty_nor_the_query_nor_twice_there() -> None:
    assert turns_of(["a", " ", "b", "a", "q"], "q") == ("b", "a")
    assert [len(one) for one in turns_of(["x" * 5000], "q")] == [TURN_CHARACTERS]
    assert len(turns_of([str(i) for i in range(1000)], "q")) == 256


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("turns", "expected a mapping"),
        ({"top_k": 2}, "expected a mapping"),
        ({"turns": "abc"}, "expected a list of at most 256 texts"),
        ({"turns": ["a"] * 257}, "expected a list of at most 256 texts"),
        ({"turns": [], "top_k": 0}, "from 1 to 32"),
        ({"turns": [], "top_k": True}, "from 1 to 32"),
    ],
)
def test_a_wrong_form_is_named(given, expected) -> None:
    with pytest.raises(SchemaError, match=expected):
        Retrieve.of(given)


def test_only_queries_that_carry_turns_change(encoder) -> None:
    plain = {"query": ROOTS, "lambda": 0.5}
    asked = {"query": EGGS, "user_id": "ann", RETRIEVE: {"top_k": 1, "turns": [RICE]}}
    queries, found = retrieve_all([plain, asked], encoder)
    assert list(queries) == [plain, {"query": f"{RICE}\n{EGGS}", "user_id": "ann"}]
    assert found[0] is None
    with pytest.raises(SchemaError, match="no encoder"):
        retrieve_all([asked], None)
    assert retrieve_all([plain], None) == ([plain], [None])


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def store(turns: int = 3, size: int = 10_000, age_s: float = 60.0, **more) -> KeptTurns:
    return KeptTurns(turns, size, age_s, **more)


def test_a_user_has_the_latest_turns_and_nobody_elses() -> None:
    kept = store()
    for text in "abcd":
        kept.add(ANN, text)
    kept.add(("session", "ann"), "another one")
    assert kept.of(ANN) == ["b", "c", "d"]
    assert kept.of(("user", "bob")) == []
    assert kept.forget(ANN) == 3
    assert kept.forget(ANN) == 0
    assert kept.of(ANN) == []
    assert kept.of(("session", "ann")) == ["another one"]


def test_all_turns_together_are_bounded_and_the_silent_user_goes_first() -> None:
    kept = store(size=700)
    for name in ("ann", "bob", "cid"):
        kept.add(("user", name), "text of " + name)
    kept.add(ANN, "again")  # ann is no longer the one who was silent longest
    assert kept.of(("user", "bob")) == []
    assert kept.of(ANN) == ["text of ann", "again"]
    assert 0 < kept.size_bytes <= 700
    kept.add(ANN, "é" * TURN_CHARACTERS)
    assert len(kept) == 0  # one turn alone may be too long
    assert kept.size_bytes == 0


def test_old_turns_and_those_of_forgotten_users_are_gone_from_memory() -> None:
    clock, gone = Clock(), {}
    kept = store(now=clock, forgotten=gone.get)
    kept.add(ANN, "a")
    clock.now += 30
    kept.add(ANN, "b")
    kept.add(("user", "bob"), "c")
    clock.now += 31
    assert kept.of(ANN) == ["b"]
    gone["ann"] = clock.now
    kept.sweep()
    assert len(kept) == 1
    clock.now += 1
    kept.add(ANN, "after")
    assert kept.of(ANN) == ["after"]
    clock.now += 60
    kept.sweep()
    assert (len(kept), kept.size_bytes) == (0, 0)


def test_turns_belong_to_the_user_else_to_the_session() -> None:
    assert key_of("ann", "s") == ANN
    assert key_of(None, "s") == ("session", "s")
    assert key_of(None, None) is None
