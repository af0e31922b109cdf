"""``decision_log:``: a row for each decision that the gateway made, whatever came of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from support.gateway import COOKING, arguments, chat, echo_pool, running
from waypost.serve.config import ServeArgs

CHAT = "/v1/chat/completions"


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        row
        for path in sorted(folder.rglob("*.parquet"))
        for row in pq.ParquetFile(path).read().to_pylist()
    ]


async def test_whole_streamed_pinned_and_only_decided_requests_are_logged(artifact, tmp_path):
    policy = {"exploration": 0.25, "seed": 3}
    changes = {"decision_log": str(tmp_path), "log_queries": True, "policy": policy}
    async with running(artifact, **changes) as up:
        extras = {"user_id": "u", "session_id": "s", "lambda": 0.5, "allowed_models": ["cook"]}
        whole = await up.client.post(CHAT, chat(waypost=extras))
        await up.client.post(CHAT, chat(stream=True))
        await up.client.post(CHAT, chat(model="tiny"))
        await up.client.post("/v1/route", {"query": COOKING})
        refused = await up.client.post(CHAT, chat(model="nobody"))
        assert refused.status == 404
    first, streamed, pinned, decided = rows(tmp_path)
    assert first["request_id"] == whole.headers["x-waypost-request-id"]
    assert (first["query"], first["characters"]) == (COOKING, len(COOKING))
    assert (first["user_id"], first["session_id"], first["lambda"]) == ("u", "s", 0.5)
    assert (first["router"], first["ranking"]) == ("knnrouter", ["cook"])
    assert (first["model_name"], first["attempts"], first["failed"]) == ("cook", 1, [])
    told = whole.json()["usage"]
    assert first["input_tokens"] == told["prompt_tokens"]
    assert first["output_tokens"] == told["completion_tokens"]
    assert first["cost_usd"] == told["waypost"]["cost_usd"]
    assert (first["finish_reason"], first["error"]) == ("stop", None)
    assert 0 < first["decision_s"] < first["latency_s"] < 60
    assert streamed["exploration"] == 0.25
    assert len(streamed["quality"]) == len(streamed["ranking"]) == 3
    # exploration .25 over three LLMs: the greedy choice, or one drawn
    assert any(streamed["propensity"] == pytest.approx(p) for p in (0.75 + 0.25 / 3, 0.25 / 3))
    assert (streamed["model_name"], streamed["finish_reason"]) == (
        streamed["decided_model"],
        "stop",
    )
    assert (pinned["router"], pinned["model_name"]) == ("pinned", "tiny")
    assert (decided["model_name"], decided["attempts"], decided["error"]) == (None, 0, None)
    assert set(decided["ranking"]) == {"cook", "prover", "tiny"}


async def test_failures_are_logged_with_what_was_asked(artifact, tmp_path):
    failing = {"fail_with": "500"}
    async with running(
        artifact, pool=echo_pool(cook=failing), decision_log=str(tmp_path / "one")
    ) as up:
        reply = await up.client.post(CHAT, chat())
        assert reply.status == 200
    (row,) = rows(tmp_path / "one")
    assert (row["decided_model"], row["failed"], row["attempts"]) == ("cook", ["cook"], 2)
    assert row["model_name"] == reply.json()["model"] != "cook"
    assert row["query"] is None
    pool = echo_pool(cook=failing, prover=failing, tiny=failing)
    async with running(artifact, pool=pool, decision_log=str(tmp_path / "none")) as up:
        assert (await up.client.post(CHAT, chat())).status == 502
    (row,) = rows(tmp_path / "none")
    assert (row["model_name"], row["failed"]) == (None, ["cook", "prover", "tiny"])
    assert row["attempts"] == 3
    assert row["error"].startswith("ExhaustedError: no model answered")


async def test_an_answer_that_breaks_off_is_logged_with_its_error(artifact, tmp_path):
    pool = echo_pool(cook={"fail_with": "mid_stream"})
    async with running(artifact, pool=pool, decision_log=str(tmp_path)) as up:
        await up.client.post(CHAT, chat(stream=True))
    (row,) = rows(tmp_path)
    assert (row["model_name"], row["finish_reason"]) == ("cook", None)
    assert row["error"].startswith("Engine")


def test_a_uri_with_credentials_is_refused(artifact):
    args = arguments(artifact, decision_log="s3://key:secret@bucket/log")
    with pytest.raises(ValidationError, match="holds credentials"):
        ServeArgs.model_validate(args)
