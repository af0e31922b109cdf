import numpy as np
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from waypost.contracts.errors import SchemaError
from waypost.contracts.feedback import (
    EVENT_SCHEMA,
    FeedbackEvent,
    UserEvents,
    events_path,
    read_events,
    write_events,
)
from waypost.contracts.records import QueryBatch
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.contracts.splits import pool
from waypost.testing.synthetic import planted

RATING = {"kind": "rating", "request_id": "r1", "rating": 0.75}
PREFERENCE = {
    "kind": "preference", "request_id": "r1", "other_request_id": "r2", "preference": "left",
}  # fmt: skip


@pytest.mark.parametrize(
    "event",
    [RATING, PREFERENCE, {"kind": "verdict", "request_id": "r1", "verdict": "wrong"}],
    ids=lambda event: event["kind"],
)
def test_the_three_kinds_of_events(event):
    assert FeedbackEvent(**event).model_dump(exclude_defaults=True) == event


@pytest.mark.parametrize(
    ("event", "what"),
    [
        ({**RATING, "rating": 1.5}, "rating"),
        ({**RATING, "rating": None}, "a rating has the key 'rating'"),
        ({**RATING, "verdict": "wrong"}, "no other kind's value"),
        ({**RATING, "other_request_id": "r2"}, "nothing else, has other_request_id"),
        ({**PREFERENCE, "other_request_id": None}, "other_request_id"),
        ({**PREFERENCE, "other_request_id": "r1"}, "one request"),
        ({**PREFERENCE, "preference": "better"}, "preference"),
        ({**RATING, "stars": 4}, "stars"),
        ({**RATING, "request_id": ""}, "request_id"),
    ],
)
def test_other_events_are_refused(event, what):
    with pytest.raises(ValidationError, match=what):
        FeedbackEvent(**event)


def columns(**more):
    """Return two ratings and a preference of two users, about questions of `planted`."""
    return {
        "kind": ["rating", "preference", "rating"],
        "request_id": ["a", "b", "c"],
        "other_request_id": [None, "b2", None],
        "rating": [0.25, None, 1.0],
        "preference": [None, "right", None],
        "user_id": ["ann", "ann", "bob"],
        "session_id": ["s", "s", "t"],
        "query_id": ["0-0", "0-3", "0-5"],
        "model_name": ["cook", "cook", "tiny"],
        "other_model_name": [None, "prover", None],
        **more,
    }


def test_a_table_of_events_is_read_back(tmp_path):
    path = tmp_path / "feedback_train.parquet"
    write_events(path, columns(role=["visible"] * 3))
    assert pq.read_schema(path).names == [*EVENT_SCHEMA.names, "role"]
    found = UserEvents.of_table(read_events(path), planted(10).query_ids, planted(4).names, "x")
    assert found.user_ids == ("ann", "bob")
    assert found.user.tolist() == [0, 0, 1]
    assert found.query.tolist() == [0, 3, 5]
    assert (found.llm.tolist(), found.other.tolist()) == ([0, 0, 2], [-1, 1, -1])
    assert found.value.tolist() == [0.25, 0.0, 1.0]
    assert found.session.tolist() == [0, 0, 1]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"rating": [2.0, None, 1.0]}, "row 0: rating"),
        ({"preference": [None, None, None]}, "row 1"),
        ({"other_model_name": [None, None, None]}, "row 1: a preference without other_model_name"),
        ({"kind": ["rating", "preference", "praise"]}, "row 2: kind"),
    ],
)
def test_wrong_rows_are_named(tmp_path, change, what):
    write_events(tmp_path / "events.parquet", columns(**change))
    with pytest.raises(SchemaError, match=what):
        read_events(tmp_path / "events.parquet")


def test_routing_data_has_the_events_on_its_questions(tmp_path):
    write_routing_data(tmp_path, planted(4))
    assert read_routing_data(tmp_path).events is None
    write_events(events_path(tmp_path, "train"), columns())
    data = read_routing_data(tmp_path)
    assert data.events.query.tolist() == [0, 3]  # the third question is not in the data
    assert data.digest != planted(4).digest
    cut = data.select([3, 1])
    assert (cut.events.query.tolist(), cut.events.value.tolist()) == ([0], [0.0])
    turned = data.select_llms(["prover", "cook"]).events
    assert (turned.llm.tolist(), turned.other.tolist()) == ([1, 1], [-1, 0])
    assert data.select_llms(["cook", "tiny"]).events.other.tolist() == [-1]
    assert pool(data, planted(3, seed=2)).events is None


def test_an_unknown_llm_is_refused(tmp_path):
    write_routing_data(tmp_path, planted(10))
    write_events(events_path(tmp_path, "train"), columns(model_name=["cook", "cook", "nobody"]))
    with pytest.raises(SchemaError, match="nobody"):
        read_routing_data(tmp_path)


def test_a_batch_knows_no_user_unless_told():
    assert QueryBatch(()).users is None
    assert np.array_equal(planted(2).batch().embeddings, planted(2).embeddings)
