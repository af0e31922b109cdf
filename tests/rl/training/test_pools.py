"""The pool that a run's config names, with the candidates' names in the pool."""

from __future__ import annotations

from typing import Any

import pytest

from support.fake_upstream import FakeUpstream
from support.r1_world import question
from waypost.contracts.errors import ConfigError
from waypost.contracts.tables import split_path, write_routing_table
from waypost_rl.training.config import RunConfig
from waypost_rl.training.parts import Ask, Reply
from waypost_rl.training.pools import open_pool


def config(**pool: Any) -> RunConfig:
    candidates = {"chef": {"output_price": 1.0, "pool_name": "cook"}}
    data: dict[str, Any] = {"base": "tiny", "out": "run", "questions": {"data": "x"}, "steps": 1}
    return RunConfig.model_validate(data | {"pool": pool, "candidates": candidates})


async def test_an_endpoint_is_asked_by_the_names_of_its_pool_and_recorded(tmp_path):
    async with FakeUpstream() as upstream:
        pool = open_pool(config(kind="http", base_url=upstream.url), tmp_path, 3)
        asked = Ask("chef", "one two", question())
        assert await pool.ask(asked) == Reply("one two", 2, 2)
        assert await pool.ask(asked) == Reply("one two", 2, 2, cached=True)
        assert [one.body["model"] for one in upstream.requests] == ["cook"]
        assert (tmp_path / "answers" / "worker_3.jsonl").is_file()
        await pool.close()


async def test_recorded_answers_are_found_by_the_names_of_the_data(tmp_path):
    columns = {"query_id": "q1", "query": "?", "model_name": "cook", "response": "meat"}
    rows = {key: [value] for key, value in columns.items()}
    write_routing_table(split_path(tmp_path, "train"), rows | {"performance": [1.0]})
    pool = open_pool(config(kind="replayed", data=str(tmp_path)), tmp_path, 0)
    assert (await pool.ask(Ask("chef", "whatever", question()))).text == "meat"
    await pool.close()


def test_handles_need_the_ray_that_serves(tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ConfigError, match=r"waypost submit.*RAY_ADDRESS"):
        open_pool(config(kind="handle"), tmp_path, 0)
