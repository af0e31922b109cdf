"""Rated decisions, kept as parquet."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from support.gateway import ALGEBRA, COOKING, chat, echo_pool, running
from waypost.contracts.generation import Usage
from waypost.contracts.records import Decision
from waypost.serve.gateway import feedback
from waypost.serve.gateway.feedback import FEEDBACK_SCHEMA, Decisions, FeedbackStore, Remembered

CHAT = "/v1/chat/completions"


def rows(folder: Path) -> list[dict]:
    found = [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]
    assert not list(folder.glob("*.partial"))
    return found


async def test_a_rating_is_kept_with_its_decision_and_without_the_text(artifact, tmp_path):
    async with running(artifact, feedback_dir=str(tmp_path)) as up:
        extras = {"lambda": 0.1, "user_id": "u1", "session_id": "s1"}
        answer = await up.client.post(CHAT, chat(waypost=extras))
        rating = {"request_id": answer.json()["id"], "rating": 0.75, "comment": "good"}
        reply = await up.client.post("/v1/feedback", rating)
        assert reply.json()["model"] == "cook"
    (row,) = rows(tmp_path)
    assert row["request_id"] == answer.headers["x-waypost-request-id"]
    assert (row["rating"], row["comment"]) == (0.75, "good")
    assert (row["model_name"], row["decided_model"], row["router"]) == ("cook", "cook", "knnrouter")
    assert (row["lambda"], row["propensity"]) == (0.1, 1.0)
    assert (row["user_id"], row["session_id"]) == ("u1", "s1")
    assert row["cost_usd"] == answer.json()["usage"]["waypost"]["cost_usd"]
    assert row["query"] is None
    assert COOKING not in str(row)


async def test_the_text_is_kept_where_the_config_says_so(artifact, tmp_path):
    async with running(artifact, feedback_dir=str(tmp_path), log_queries=True) as up:
        for question in (COOKING, ALGEBRA, COOKING):
            answer = await up.client.post(CHAT, chat(question, stream=True))
            request_id = answer.headers["x-waypost-request-id"]
            await up.client.post("/v1/feedback", {"request_id": request_id, "rating": 1})
    found = rows(tmp_path)
    assert [row["query"] for row in found] == [COOKING, ALGEBRA, COOKING]
    assert found[0]["query_id"] == found[2]["query_id"] != found[1]["query_id"]


async def test_the_model_that_answered_is_rated_not_the_one_that_failed(artifact, tmp_path):
    pool = echo_pool(cook={"fail_with": "500"})
    async with running(artifact, pool=pool, feedback_dir=str(tmp_path)) as up:
        answer = await up.client.post(CHAT, chat())
        request_id = answer.headers["x-waypost-request-id"]
        await up.client.post("/v1/feedback", {"request_id": request_id, "rating": 0})
    (row,) = rows(tmp_path)
    assert row["decided_model"] == "cook"
    assert row["model_name"] == answer.json()["model"] != "cook"


@pytest.mark.parametrize("rating", [-0.1, 1.1, 5, "good", None, True])
async def test_a_rating_outside_0_to_1_is_refused(artifact, tmp_path, rating):
    async with running(artifact, feedback_dir=str(tmp_path)) as up:
        reply = await up.client.post("/v1/feedback", {"request_id": "x", "rating": rating})
        assert (reply.status, reply.json()["error"]["param"]) == (400, "rating")


async def test_an_unknown_or_forgotten_request_is_404(artifact, tmp_path):
    async with running(artifact, feedback_dir=str(tmp_path), remember_decisions=1) as up:
        first = (await up.client.post(CHAT, chat())).headers["x-waypost-request-id"]
        await up.client.post(CHAT, chat())
        for request_id in (first, "never"):
            reply = await up.client.post("/v1/feedback", {"request_id": request_id, "rating": 1})
            assert (reply.status, reply.json()["error"]["param"]) == (404, "request_id")
    assert rows(tmp_path) == []


async def test_where_no_folder_is_given_nothing_is_kept(artifact):
    async with running(artifact) as up:
        reply = await up.client.post("/v1/feedback", {"request_id": "x", "rating": 1})
        assert reply.status == 404
        assert "feedback_dir" in reply.json()["error"]["message"]


def remembered() -> Remembered:
    return Remembered({"query": "q"}, Decision("m", ("m",)), "m", Usage(1, 2), None, 0.0)


async def test_ratings_at_the_same_time_are_all_on_disk_when_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(feedback, "ROWS_A_FILE", 8)
    store = FeedbackStore(tmp_path / "new", keep_queries=False)

    async def rate(number: int) -> None:
        await store.add(f"r{number}", remembered(), 0.5, None)
        assert f"r{number}" in [row["request_id"] for row in rows(tmp_path / "new")]

    for start in range(0, 60, 20):
        await asyncio.gather(*(rate(i) for i in range(start, start + 20)))
    assert sorted(row["request_id"] for row in rows(tmp_path / "new")) == sorted(
        f"r{i}" for i in range(60)
    )
    assert len(list((tmp_path / "new").iterdir())) > 1


async def test_a_file_has_the_agreed_columns(tmp_path):
    store = FeedbackStore(tmp_path, keep_queries=False)
    await store.add("r", remembered(), 1.0, None)
    (path,) = tmp_path.iterdir()
    assert pq.read_schema(path).equals(FEEDBACK_SCHEMA)


def test_the_oldest_decision_is_forgotten_first():
    kept = Decisions(2)
    for name in "abc":
        kept.remember(name, remembered())
    assert kept.get("a") is None
    assert kept.get("c") is not None
