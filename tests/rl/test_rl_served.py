"""A checkpoint is imported and served by the `transformers` engine, from HTTP to the answer."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from support.asgi import Client
from support.gateway import chat
from support.tiny_policy import ANSWER, QUERY, write_tiny_policy
from waypost.cli import command
from waypost.serve.backends.base import LocalLLM
from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.config import ServeArgs
from waypost.serve.gateway.app import Gateway
from waypost.serve.plan import make_plan

pytestmark = pytest.mark.engine


def arguments(folder: Any) -> dict[str, Any]:
    policy = {"engine": "transformers", "config": {"model": str(folder / "policy")}}
    prices = {"input_price": 1.0, "output_price": 2.0}
    return {
        "artifact": str(folder / "artifact"),
        "limits": {"max_steps": 9},
        "pool": [
            {"name": "r1", **policy, **prices},
            {"name": "cook", "engine": "echo", "config": {}, **prices},
            {"name": "prover", "engine": "echo", "config": {}, **prices},
        ],
    }


async def test_an_imported_policy_searches_reads_and_answers(tmp_path):
    write_tiny_policy(tmp_path / "policy")
    args = arguments(tmp_path)
    pool = tmp_path / "pool.yaml"
    pool.write_text(yaml.safe_dump(args), encoding="utf-8")
    words = ["rl", "import", str(tmp_path / "policy"), "--pool", str(pool)]
    words += ["--out", args["artifact"], "--fallback", "prover"]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output
    plan = make_plan(ServeArgs.model_validate(args))
    gateway = Gateway(plan, local_router(plan), local_llm)
    await gateway.start()
    try:
        body = chat("Which theorem is it?", stream=True, waypost={"progress": True})
        client, cook = Client(gateway), gateway.dispatcher.llms["cook"]
        reply = await client.post("/v1/chat/completions", chat("Which theorem is it?"))
        streamed = await client.post("/v1/chat/completions", body)
        assert isinstance(cook, LocalLLM)
        assert cook.engine.calls.output_tokens == 2 * len(QUERY.split())  # it says the query
    finally:
        await gateway.close()
    assert reply.status == 200, reply.body
    assert reply.json()["choices"][0]["message"]["content"] == ANSWER
    told = reply.json()["usage"]["waypost"]
    assert (told["calls"], told["ended_by"], told["model"]) == (3, "answer", "r1")
    events = [event for event in streamed.events() if isinstance(event, dict)]
    steps = [one["waypost"]["step"] for one in events if "step" in (one.get("waypost") or {})]
    ended = [(one["purpose"], one["model"]) for one in steps if one["state"] == "done"]
    assert ended == [("policy", "r1"), ("search", "cook"), ("policy", "r1")]
