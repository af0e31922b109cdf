"""Shadow routers decide beside the one that acts: they are logged, and nothing else."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support.gateway import ALGEBRA, COOKING, arguments, chat, running
from waypost.contracts.errors import ConfigError
from waypost.loading import load_router
from waypost.serve.backends.base import LocalRouter
from waypost.serve.changes import change_plan
from waypost.serve.comparing import ShadowArgs
from waypost.serve.config import ServeArgs, UserConfig
from waypost.serve.gateway import shadows
from waypost.serve.plan import make_plan

CHAT = "/v1/chat/completions"
TIMED = {"x-waypost-request-id", "x-request-id", "x-waypost-decision-ms", "content-length"}


def rows(folder: Path) -> list[dict[str, Any]]:
    found = [row for path in folder.rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    return sorted(found, key=lambda row: row["time"])


def shadow_thread(up: Any, monkeypatch: Any, before: Any) -> None:
    """Call ``before`` whenever the thread of the shadows begins to decide."""
    router = up.gateway._router
    assert isinstance(router, LocalRouter)
    decide = router.decider.routers.decide

    def watched(queries: Any) -> Any:
        if threading.current_thread().name.startswith("shadow"):
            before()
        return decide(queries)

    monkeypatch.setattr(router.decider.routers, "decide", watched)


async def counts(up: Any, outcome: str) -> float:
    text = (await up.gateway.metrics.text()).decode()
    name = f'waypost_shadow_decisions_total{{outcome="{outcome}",router="second"}}'
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith(name))


async def test_a_shadow_is_logged_and_changes_neither_answers_nor_headers(routers, tmp_path):
    told = {}
    for name, changes in {"with": {"shadow": "second"}, "without": {}}.items():
        log = str(tmp_path / name)
        async with running(Path(), routers=routers, decision_log=log, **changes) as up:
            replies = [await up.client.post(CHAT, chat(text)) for text in (COOKING, ALGEBRA)]
            await up.client.post(CHAT, chat(model="tiny"))
            told[name] = [
                ({k: v for k, v in reply.headers.items() if k not in TIMED}, reply.json()["model"])
                for reply in replies
            ]
            assert await counts(up, "dropped") == 0
    assert told["with"] == told["without"]
    assert [model for _, model in told["with"]] == ["cook", "prover"]
    found = rows(tmp_path / "with")
    with_it, without = found, rows(tmp_path / "without")
    for row, other, text in zip(with_it[:2], without[:2], (COOKING, ALGEBRA), strict=True):
        assert (row["ranking"], row["quality"]) == (other["ranking"], other["quality"])
        own = load_router(routers["second"]).route_single(text)
        assert row["shadow_router"] == ["second"]
        assert row["shadow_model"] == [own.model]
        assert row["shadow_ranking"] == [list(own.ranking)]
        assert row["shadow_quality"][0] == pytest.approx([own.quality[n] for n in own.ranking])
        assert row["shadow_propensity"] == [1.0]
    assert found[2]["shadow_router"] is None  # the client asked for an LLM
    assert {row["shadow_router"] for row in without} == {None}


async def test_a_shadow_that_hangs_holds_up_no_request(routers, tmp_path, monkeypatch):
    monkeypatch.setattr(shadows, "GATHER_S", 0.01)
    hanging, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        hanging.set()
        assert go_on.wait(60)

    changes = {"decision_log": str(tmp_path), "shadow": ["second"]}
    async with running(Path(), routers=routers, **changes) as up:
        shadow_thread(up, monkeypatch, hang)
        await up.client.post(CHAT, chat())
        assert await asyncio.to_thread(hanging.wait, 60)
        for _ in range(3):
            reply = await asyncio.wait_for(up.client.post(CHAT, chat()), 30)
            assert reply.status == 200
        go_on.set()
    assert [row["shadow_model"] is None for row in rows(tmp_path)] == [False] * 4


async def test_a_shadow_that_fails_is_counted_and_the_row_is_kept(routers, tmp_path, monkeypatch):
    def fail() -> None:
        raise RuntimeError("text of a user")

    changes = {"decision_log": str(tmp_path), "shadow": ["second"]}
    async with running(Path(), routers=routers, **changes) as up:
        shadow_thread(up, monkeypatch, fail)
        assert (await up.client.post(CHAT, chat())).status == 200
        await up.gateway._recording.settle()
        assert (await counts(up, "failed"), await counts(up, "decided")) == (1, 0)
    (row,) = rows(tmp_path)
    assert (row["model_name"], row["shadow_router"]) == ("cook", None)


async def test_more_than_may_wait_are_logged_without_shadow_and_counted(
    routers, tmp_path, monkeypatch
):
    monkeypatch.setattr(shadows, "MOST_WAITING", 2)
    async with running(Path(), routers=routers, decision_log=str(tmp_path), shadow="second") as up:
        for _ in range(5):
            await up.client.post("/v1/route", {"query": COOKING})
        assert await counts(up, "dropped") == 3
    assert (
        sorted(row["shadow_router"] is None for row in rows(tmp_path)) == [False] * 2 + [True] * 3
    )


async def test_only_shadows_get_the_texts_of_earlier_turns_and_these_are_bounded(
    routers, tmp_path, monkeypatch
):
    talk = [("user", COOKING), ("assistant", "ok"), ("user", ALGEBRA)]
    body = {"messages": [{"role": role, "content": text} for role, text in talk]}
    body["waypost"] = {"session_id": "s"}
    monkeypatch.setattr(shadows, "MOST_SIZE", 2 * len(COOKING + ALGEBRA))
    monkeypatch.setattr(shadows, "GATHER_S", 60)
    monkeypatch.setattr(shadows, "CLOSE_S", 0.01)
    changes = {"decision_log": str(tmp_path), "shadow": "second", "sessions": "on"}
    async with running(Path(), routers=routers, **changes) as up:
        for _ in range(3):
            assert (await up.client.post("/v1/route", body)).status == 200
        waiting = up.gateway._recording._shadows._waiting
        assert (await counts(up, "dropped"), len(waiting)) == (1, 2)
        for one in waiting:
            assert "session" not in one.outcome.query
            assert one.query["session"]["earlier"][0]["query"] == COOKING
    assert len(rows(tmp_path)) == 3


def test_a_share_of_the_requests_is_drawn():
    some = ShadowArgs(routers=("second",), share=0.25)
    taken = sum(some.takes(f"{i:024x}") for i in range(4000))
    assert abs(taken - 1000) < 4 * 27  # 27: the binomial's standard deviation
    assert all(ShadowArgs(routers=("second",)).takes(str(i)) for i in range(50))


def test_what_cannot_be_a_shadow_is_told(routers, tiers):
    def plan(**changes: Any) -> Any:
        return make_plan(ServeArgs.model_validate(arguments("", routers=routers, **changes)))

    log = {"decision_log": "log"}
    with pytest.raises(ConfigError, match=r"shadow: 'third' is not a router; known: first, second"):
        plan(shadow="third", **log)
    with pytest.raises(ConfigError, match="shadow: only the decision log has its decisions"):
        plan(shadow="second")
    steps = {**routers, "steps": str(tiers)}
    args = arguments("", routers=steps, shadow="steps", allow_plugin_code=True, **log)
    with pytest.raises(ConfigError, match="shadow: steps works in steps"):
        make_plan(ServeArgs.model_validate(args))
    served = plan(shadow={"routers": ["second"], "share": 0.5}, **log)
    changed = change_plan(served, UserConfig.model_validate({"shadow": "first"}))
    assert changed.shadow == ShadowArgs(routers=("first",))
    lam = UserConfig.model_validate({"policy": {"lambda": 1}})
    assert change_plan(served, lam).shadow == served.shadow
    trial = {"name": "trial", "arms": {"first": 0.5, "second": 0.5}}
    both = plan(shadow="second", experiment=trial, **log)
    for key in ("shadow", "experiment"):  # YAML 1.1 reads off as false
        for off in ("off", False):
            ended = change_plan(both, UserConfig.model_validate({key: off}))
            left = {name: getattr(ended, name) is None for name in ("shadow", "experiment")}
            assert left == {"shadow": key == "shadow", "experiment": key == "experiment"}
    assert plan(shadow="off", experiment="off").shadow is None
    with pytest.raises(ConfigError, match="'nobody' is not a router"):
        change_plan(served, UserConfig.model_validate({"shadow": "nobody"}))
