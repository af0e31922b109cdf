"""A policy is imported or exported and served by the `transformers` engine, from HTTP to answer."""

from __future__ import annotations

import shutil
from pathlib import Path
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
from waypost_rl.run_file import TrainedRun, write_run_file

pytestmark = pytest.mark.engine


def arguments(folder: Path, model: Path) -> dict[str, Any]:
    policy = {"engine": "transformers", "config": {"model": str(model)}}
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


def to_artifact(verb: str, source: Path, args: dict[str, Any], *more: str) -> None:
    pool = source.parent / "pool.yaml"
    pool.write_text(yaml.safe_dump(args), encoding="utf-8")
    words = ["rl", verb, str(source), "--pool", str(pool)]
    words += ["--out", args["artifact"], "--fallback", "prover", *more]
    done = CliRunner().invoke(command, words)
    assert done.exit_code == 0, done.output


async def test_a_run_is_exported_whole_and_answers(tmp_path):
    write_tiny_policy(tmp_path / "run" / "policy")
    candidates = {"cook": "a chef", "prover": ""}
    write_run_file(tmp_path / "run", TrainedRun(candidates=candidates, base="org/base"))
    args = arguments(tmp_path, tmp_path / "artifact" / "policy")
    to_artifact("export", tmp_path / "run", args, "--copy")
    shutil.rmtree(tmp_path / "run")
    plan = make_plan(ServeArgs.model_validate(args))
    gateway = Gateway(plan, local_router(plan), local_llm)
    await gateway.start()
    try:
        reply = await Client(gateway).post("/v1/chat/completions", chat("Which theorem is it?"))
    finally:
        await gateway.close()
    assert reply.status == 200, reply.body
    assert reply.json()["choices"][0]["message"]["content"] == ANSWER
    told = reply.json()["usage"]["waypost"]
    assert (told["calls"], told["ended_by"], told["model"]) == (3, "answer", "r1")


async def test_an_imported_policy_searches_reads_and_answers(tmp_path):
    write_tiny_policy(tmp_path / "policy")
    args = arguments(tmp_path, tmp_path / "policy")
    to_artifact("import", tmp_path / "policy", args)
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
