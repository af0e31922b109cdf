"""``POST /v1/feedback``: what is taken, where it is found, what is refused and why."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from support.gateway import ALGEBRA, COOKING, chat, echo_pool, running
from waypost.contracts.errors import StorageError
from waypost.feedback import Rated, read_rated
from waypost.feedback.database import DATABASE

CHAT = "/v1/chat/completions"
FEEDBACK = "/v1/feedback"


def only(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the only event of a folder, with its request."""
    found: Rated = read_rated(folder)
    (event,) = found.events
    return event, found.requests[event["request_id"]]


async def ask(up: Any, text: str = COOKING, **fields: Any) -> str:
    return (await up.client.post(CHAT, chat(text, **fields))).headers["x-waypost-request-id"]


async def test_a_rating_is_kept_with_its_decision_and_without_the_text(artifact, tmp_path):
    async with running(artifact, feedback_dir=str(tmp_path)) as up:
        extras = {"lambda": 0.1, "user_id": "u1", "session_id": "s1"}
        answer = await up.client.post(CHAT, chat(waypost=extras))
        rating = {"request_id": answer.json()["id"], "rating": 0.75, "comment": "good"}
        reply = await up.client.post(FEEDBACK, rating)
        request_id = answer.headers["x-waypost-request-id"]
        assert reply.json() == {
            "request_id": request_id, "model": "cook", "kept": True, "replaced": False
        }  # fmt: skip
    event, request = only(tmp_path)
    assert (event["request_id"], event["rating"], event["reason"]) == (request_id, 0.75, "good")
    assert event["user_id"] == "u1"
    assert (request["model_name"], request["router"]) == ("cook", "knnrouter")
    assert (request["lambda"], request["propensity"]) == (0.1, 1.0)
    assert (request["user_id"], request["session_id"]) == ("u1", "s1")
    assert request["cost_usd"] == answer.json()["usage"]["waypost"]["cost_usd"]
    assert not any(COOKING.encode() in path.read_bytes() for path in tmp_path.iterdir())


async def test_the_text_is_kept_where_the_config_says_so(artifact, tmp_path):
    async with running(artifact, feedback_dir=str(tmp_path), log_queries=True) as up:
        for question in (COOKING, ALGEBRA, COOKING):
            request_id = await ask(up, question, stream=True)
            await up.client.post(FEEDBACK, {"request_id": request_id, "rating": 1})
    found = read_rated(tmp_path)
    requests = [found.requests[event["request_id"]] for event in found.events]
    assert [request["query"] for request in requests] == [COOKING, ALGEBRA, COOKING]
    ids = [request["query_id"] for request in requests]
    assert ids[0] == ids[2] != ids[1]


async def test_the_model_that_answered_is_rated_not_the_one_that_failed(artifact, tmp_path):
    pool = echo_pool(cook={"fail_with": "500"})
    async with running(artifact, pool=pool, feedback_dir=str(tmp_path)) as up:
        answer = await up.client.post(CHAT, chat())
        request_id = answer.headers["x-waypost-request-id"]
        await up.client.post(FEEDBACK, {"request_id": request_id, "rating": 0})
    _, request = only(tmp_path)
    assert request["decided_model"] == "cook"
    assert request["model_name"] == answer.json()["model"] != "cook"
    assert request["propensity"] is None  # nobody chose that LLM


async def test_another_replica_takes_it_and_one_that_was_started_later(artifact, tmp_path):
    changes = {"feedback_dir": str(tmp_path)}
    async with running(artifact, **changes) as one, running(artifact, **changes) as other:
        said = {"request_id": await ask(one), "rating": 0.5, "idempotency_key": "k"}
        first = await other.client.post(FEEDBACK, said)
        assert (first.status, first.json()["model"]) == (200, "cook")
        late = await ask(one)
    async with running(artifact, **changes) as up:
        again = await up.client.post(FEEDBACK, said)
        assert again.body == first.body
        differs = await up.client.post(FEEDBACK, said | {"rating": 0.75})
        assert (differs.status, differs.json()["error"]["code"]) == (409, "key_conflict")
        reply = await up.client.post(FEEDBACK, {"request_id": late, "rating": 1})
        assert reply.status == 200
    assert [event["rating"] for event in read_rated(tmp_path).events] == [0.5, 1.0]


async def test_preferences_verdicts_and_lists(artifact, tmp_path):
    async with running(artifact, feedback_dir=str(tmp_path)) as up:
        left, right = await ask(up), await ask(up, model="prover")
        events = [
            {"request_id": left, "other_request_id": right, "preference": "left"},
            {"request_id": right, "verdict": "overpowered", "source": "judge", "user_id": "j"},
            {"request_id": "never", "rating": 0.5},
            {"request_id": left, "rating": 0.25, "kind": "rating"},
            {"request_id": left, "rating": 0.75},
        ]
        reply = await up.client.post(FEEDBACK, {"events": events})
        assert reply.status == 200
        told = reply.json()["events"]
        assert [each["status"] for each in told] == [200, 200, 404, 200, 200]
        assert [each.get("model") for each in told] == ["cook", "prover", None, "cook", "cook"]
        assert told[2]["error"]["code"] == "unknown_request"
        assert told[4]["replaced"] is True
    kinds = sorted(event["kind"] for event in read_rated(tmp_path).events)
    assert kinds == ["preference", "rating", "verdict"]


async def test_the_header_gives_the_key_of_one_event(artifact, tmp_path):
    async with running(artifact, feedback_dir=str(tmp_path)) as up:
        said = {"request_id": await ask(up), "rating": 0.5}
        for rating, status in ((0.5, 200), (0.5, 200), (0.75, 409)):
            reply = await up.client.post(FEEDBACK, said | {"rating": rating}, idempotency_key="k")
            assert reply.status == status
        body = said | {"idempotency_key": "q"}
        reply = await up.client.post(FEEDBACK, body, idempotency_key="k")
        assert (reply.status, reply.json()["error"]["param"]) == (400, "idempotency_key")
    event, _ = only(tmp_path)
    assert event["idempotency_key"] == "k"


@pytest.mark.parametrize("rating", [-0.1, 1.1, 5, "good", None, True])
async def test_a_rating_outside_0_to_1_is_refused(artifact, tmp_path, rating):
    async with running(artifact, feedback_dir=str(tmp_path)) as up:
        reply = await up.client.post(FEEDBACK, {"request_id": "x", "rating": rating})
        assert (reply.status, reply.json()["error"]["param"]) == (400, "rating")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"rating": 1}, "request_id"),
        ({"request_id": "x", "rating": 1, "verdict": "wrong"}, "rating"),
        ({"request_id": "x", "preference": "tie"}, "other_request_id"),
        ({"request_id": "x", "other_request_id": "x", "preference": "tie"}, "other_request_id"),
        ({"request_id": "x", "kind": "verdict", "rating": 1}, "other_request_id"),
        ({"request_id": "x", "verdict": "bad"}, "verdict"),
        ({"request_id": "x", "rating": 1, "comment": "a", "reason": "b"}, "comment"),
        ({"events": []}, "events"),
        ({"events": [{"request_id": "x", "rating": 1}] * 101}, "events"),
        ({"events": [{"request_id": "x", "rating": 1}], "rating": 1}, "events"),
        ({"events": [{"request_id": "x", "rating": 1}, {"request_id": "x"}]}, "events[1].rating"),
        ({"events": [{"request_id": "x", "rating": 2}]}, "events[0].rating"),
    ],
)
async def test_a_wrong_body_is_refused_as_a_whole(artifact, tmp_path, body, param):
    async with running(artifact, feedback_dir=str(tmp_path)) as up:
        reply = await up.client.post(FEEDBACK, body)
        assert (reply.status, reply.json()["error"]["param"]) == (400, param)
    assert read_rated(tmp_path).events == []


async def test_an_unknown_a_forgotten_and_an_old_request_are_told_apart(
    artifact, tmp_path, monkeypatch
):
    changes = {"feedback_dir": str(tmp_path), "remember_decisions": 1, "feedback_days": 2}
    async with running(artifact, **changes) as up:
        first, last = await ask(up), await ask(up)
        for request_id in (first, "never"):
            reply = await up.client.post(FEEDBACK, {"request_id": request_id, "rating": 1})
            assert (reply.status, reply.json()["error"]["param"]) == (404, "request_id")
        now = time.time
        monkeypatch.setattr(time, "time", lambda: now() + 2.1 * 86_400)
        reply = await up.client.post(FEEDBACK, {"request_id": last, "rating": 1})
        assert (reply.status, reply.json()["error"]["code"]) == (410, "request_too_old")
        assert "2 days" in reply.json()["error"]["message"]
    assert read_rated(tmp_path).events == []


async def test_where_no_folder_is_given_nothing_is_kept(artifact):
    async with running(artifact) as up:
        reply = await up.client.post(FEEDBACK, {"request_id": "x", "rating": 1})
        assert reply.status == 404
        assert "feedback_dir" in reply.json()["error"]["message"]


async def test_a_disk_that_fails_is_told_without_its_path(artifact, tmp_path):
    async with running(artifact, feedback_dir=str(tmp_path)) as up:
        request_id = await ask(up)
        await asyncio.sleep(0.5)
        store = up.gateway._recording._store
        store._writer._ledger._database.close()
        reply = await up.client.post(FEEDBACK, {"request_id": request_id, "rating": 1})
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert DATABASE not in reply.body.decode()


async def test_a_folder_that_cannot_be_made_stops_the_start(artifact, tmp_path):
    (tmp_path / "file").write_text("")
    for key in ("feedback_dir", "decision_log"):
        with pytest.raises(StorageError, match="file"):
            async with running(artifact, **{key: str(tmp_path / "file")}):
                pass
