"""States of users on several machines: their turns lie with one owner, routers ask it."""

from __future__ import annotations

import numpy as np
import pytest

from support.owner import Wire, owned
from waypost.contracts.errors import EngineServerError
from waypost.contracts.user_state import UserState
from waypost.feedback import forget_user
from waypost.learning.user_turns import UserTurn, UserTurns, turns_path
from waypost.serve.backends import owned_states
from waypost.serve.backends.owned_states import OwnedStates

ENCODER = "hashing+d4"


def sums(history):
    return UserState(len(history), np.array([history.values.sum()], np.float32))


def turn(key, value=1.0):
    return UserTurn(key, np.ones(4, np.float32), "small", value, "large")


@pytest.fixture
async def wire(tmp_path):
    async with owned(tmp_path) as found:
        yield found


@pytest.fixture
def turns(wire, tmp_path):
    with UserTurns(turns_path(tmp_path, ENCODER), ENCODER) as found:
        yield found


@pytest.fixture
def each_look(monkeypatch):
    """Every decision looks for changes."""
    monkeypatch.setattr(owned_states, "LOOK_S", 0.0)


def states_of(wire: Wire, **how) -> OwnedStates:
    return OwnedStates(wire.ask, sums, ENCODER, **how)


async def seen(states: OwnedStates, *users: str):
    if (meeting := states.meet(users)) is not None:
        await meeting
    found = [states.get(user) for user in users]
    return [None if one is None else (one.events, float(one.vector[0])) for one in found]


@pytest.mark.usefixtures("each_look")
async def test_turns_of_the_owner_are_states_and_forgetting_ends_them(wire, turns, tmp_path):
    one, other = states_of(wire), states_of(wire)
    assert await seen(one, "ann", "bob") == [None, None]
    turns.add_all([("ann", turn("a", 0.25))])
    assert await seen(one, "ann", "bob") == await seen(other, "ann", "bob") == [(1, 0.25), None]
    turns.add_all([("ann", turn("b", 0.5)), ("bob", turn("c"))])
    assert await seen(one, "ann", "bob") == await seen(other, "ann", "bob") == [(2, 0.75), (1, 1)]
    assert forget_user(tmp_path, "ann").turns == 2
    assert await seen(one, "ann", "bob") == await seen(other, "ann", "bob") == [None, (1, 1)]
    assert one._states["ann"] is None  # its vector is gone, too


async def test_a_known_user_costs_no_call_between_two_looks(wire, turns):
    turns.add_all([("ann", turn("a"))])
    states = states_of(wire)
    for _ in range(5):
        assert await seen(states, "ann", "ann") == [(1, 1)] * 2
        assert await seen(states, "nobody") == [None]
    assert wire.asked == ["read_turns"] * 2


@pytest.mark.usefixtures("each_look")
async def test_memory_is_bounded(wire, turns):
    turns.add_all([(f"user {i}", turn("a")) for i in range(9)])
    states = states_of(wire, hot=3)
    for i in range(9):
        assert await seen(states, f"user {i}") == [(1, 1)]
    assert len(states._states) == 3


@pytest.mark.usefixtures("each_look")
async def test_an_owner_that_is_down_is_left_alone_for_a_while(wire, turns, monkeypatch):
    turns.add_all([("ann", turn("a"))])
    states = states_of(wire)
    wire.cut = True
    assert await seen(states, "ann") == await seen(states, "ann") == [None]
    assert len(wire.asked) == 1
    wire.cut = False
    monkeypatch.setattr(states, "_rest_until", 0.0)
    assert await seen(states, "ann") == [(1, 1)]


async def test_an_answer_that_is_older_than_what_is_known_is_asked_again(wire, turns):
    states = states_of(wire)
    turns.add_all([("ann", turn("a"))])
    old = await wire.ask("read_turns", ENCODER, ["ann"], None)
    turns.add_all([("ann", turn("b"))])
    assert await seen(states, "bob") == [None]
    assert not states._take(old)
    assert await seen(states, "ann") == [(2, 2)]


async def test_a_file_that_is_none_is_told(wire, tmp_path):
    turns_path(tmp_path, "other").write_text("no database, " * 100)
    assert (
        "cannot be opened" in (await wire.ask("read_turns", "other", [], None))["error"]["message"]
    )


@pytest.mark.usefixtures("each_look")
async def test_decisions_go_on_where_the_owner_fails_on_a_call(wire, turns, caplog):
    turns.add_all([("ann", turn("a"))])
    states = states_of(wire)
    wire.fails = EngineServerError("the owner of folders: its node failed (ValueError)")
    assert await seen(states, "ann") == [None]
    assert "its node failed" in caplog.text


@pytest.mark.usefixtures("each_look")
async def test_a_file_that_was_replaced_is_read_anew(wire, turns, tmp_path, monkeypatch):
    states = states_of(wire)
    turns.add_all([("ann", turn("a"))])
    turns.add_all([("ann", turn("b"))])
    assert await seen(states, "ann") == [(2, 2)]
    async with owned(tmp_path / "other") as other:
        with UserTurns(turns_path(tmp_path / "other", ENCODER), ENCODER) as replaced:
            replaced.add_all([("ann", turn("c", 0.5))])
        monkeypatch.setattr(states, "_ask", other.ask)
        assert await seen(states, "ann") == [None]  # its versions stay behind those told before
        assert await seen(states, "ann") == [(1, 0.5)]
