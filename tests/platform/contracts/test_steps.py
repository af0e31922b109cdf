"""The records of episodes: plain forms, votes."""

from __future__ import annotations

import json

import pytest

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import Query
from waypost.contracts.step_router import (
    Call,
    CallResult,
    Delegate,
    EpisodeState,
    FinalAnswer,
    Vote,
    action_from_dict,
    action_to_dict,
)

YES = "^yes$"


def answered(text: str | None, **fields: object) -> CallResult:
    return CallResult(Call("a", "?"), text, None if text is not None else "failed", **fields)


@pytest.mark.parametrize(
    "action",
    [
        FinalAnswer("text", "a"),
        FinalAnswer(None),
        Delegate((Call("a", "?"), Call("b", "?", 5, 0.7, 3, "verify")), Vote(YES, (0, 1, 1))),
        Delegate((Call("a", "?", stop=("</a>", "</b>"), raw=True),)),
    ],
)
def test_actions_are_the_same_after_json(action):
    assert action_from_dict(json.loads(json.dumps(action_to_dict(action)))) == action


def test_a_state_is_the_same_after_json():
    query = Query("q?", query_id="1", allowed_models=("a", "b"), lam=0.5)
    results = (answered("x", input_tokens=3, cost_usd=0.1), answered(None, cancelled=True))
    state = EpisodeState(query).after(results).after([answered("y")])
    assert EpisodeState.from_dict(json.loads(json.dumps(state.to_dict()))) == state


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"action": "sing"},
        {"action": "answer"},
        {"action": "delegate", "calls": []},
        {"action": "delegate", "calls": [{"model": "a"}]},
        {"action": "delegate", "calls": [{"model": "a", "prompt": "?", "colour": "red"}]},
        {"action": "delegate", "calls": 3},
    ],
)
def test_what_is_no_action_is_refused(data):
    with pytest.raises(SchemaError):
        action_from_dict(data)


def test_a_vote_has_one_outcome_more_than_calls():
    with pytest.raises(SchemaError, match="3 outcomes; got 2"):
        Delegate((Call("a", "?"), Call("b", "?")), Vote(YES, (0, 1)))


@pytest.mark.parametrize(
    ("texts", "outcome"),
    [
        ([None, None, None, None], None),
        (["yes", None, None, None], None),
        (["yes", "yes", None, None], 1),  # two or more accept
        (["no", "no", None, None], None),  # two more may still match
        (["no", "no", "no", None], 0),
        (["no", "no", "no", "yes"], 0),
        (["yes", "no", "no", "yes"], 1),
    ],
)
def test_a_vote_is_settled_when_no_count_that_is_possible_changes_it(texts, outcome):
    results = [None if text is None else answered(text) for text in texts]
    assert Vote(YES, (0, 0, 1, 1, 1)).outcome(results) == outcome


def test_a_failed_call_does_not_match_and_a_cancelled_one_is_not_known():
    vote = Vote(YES, (0, 1, 1))
    assert vote.outcome([answered(None), answered(None)]) == 0
    assert vote.outcome([answered(None), answered(None, cancelled=True)]) is None


def test_a_race_is_won_by_the_first_answer():
    assert Vote("", (0, 1, 1)).outcome([None, answered("anything")]) == 1
