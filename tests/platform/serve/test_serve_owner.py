"""One owner of ``feedback_dir`` for gateways on several machines: no gateway opens the folder."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from support.gateway import chat, echo_pool, running
from support.owner import Wire, owned
from waypost.contracts.errors import EngineServerError
from waypost.feedback import read_rated
from waypost.feedback import store as store_module
from waypost.serve.backends.owner import OwnedFeedback

CHAT, FEEDBACK = "/v1/chat/completions", "/v1/feedback"


def options(wire: Wire, elsewhere: Path, **changes: Any) -> dict[str, Any]:
    """Return arguments of a gateway on a machine where the folder cannot even be made."""
    elsewhere.write_text("")
    folder = {"feedback_dir": str(elsewhere / "f"), "store_place": "head"}
    return {"feedback": OwnedFeedback(wire.ask)} | folder | changes


async def ask(up: Any, **fields: Any) -> str:
    answer = await up.client.post(CHAT, chat(**fields))
    assert answer.status == 200
    return answer.headers["x-waypost-request-id"]


async def test_an_event_about_a_request_of_another_machine_is_counted_once(artifact, tmp_path):
    async with owned(tmp_path / "f") as wire:
        changes = options(wire, tmp_path / "file")
        async with running(artifact, **changes) as one, running(artifact, **changes) as other:
            left, right = await ask(one), await ask(other, model="prover")
            said = {"request_id": left, "rating": 0.5, "idempotency_key": "k"}
            # at once, while the record of the request waits in the gateway that answered it
            first, again = await asyncio.gather(
                other.client.post(FEEDBACK, said), one.client.post(FEEDBACK, said)
            )
            assert first.status == 200
            assert first.json() == again.json()
            differs = await other.client.post(FEEDBACK, said | {"rating": 1})
            assert differs.status == 409
            pair = {"request_id": left, "other_request_id": right, "preference": "right"}
            assert (await one.client.post(FEEDBACK, pair)).json()["model"] == "cook"
            unknown = await one.client.post(FEEDBACK, {"request_id": "never", "rating": 1})
            assert unknown.status == 404
            assert "of this machine" not in unknown.json()["error"]["message"]
    found = read_rated(tmp_path / "f")
    assert [(event["kind"], event["rating"]) for event in found.events] == [
        ("rating", 0.5),
        ("preference", None),
    ]
    assert found.requests[right]["model_name"] == "prover"


async def test_requests_go_on_while_the_owner_is_down_and_their_records_wait(artifact, tmp_path):
    async with (
        owned(tmp_path / "f") as wire,
        running(artifact, **options(wire, tmp_path / "file")) as up,
    ):
        wire.cut = True
        ids = [await ask(up) for _ in range(3)]
        reply = await up.client.post(FEEDBACK, {"request_id": ids[0], "rating": 1})
        assert (reply.status, reply.headers["retry-after"]) == (503, "1")
        assert reply.json()["error"]["code"] == "feedback_unavailable"
        await asyncio.sleep(2 * store_module.FLUSH_S)
        wire.cut = False
        for request_id in ids:
            reply = await up.client.post(FEEDBACK, {"request_id": request_id, "rating": 1})
            assert reply.status == 200
        assert b"waypost_lost_records_total 0.0" in await up.gateway.metrics.text()
    assert len(read_rated(tmp_path / "f").events) == 3


async def test_what_waits_is_bounded_and_what_is_lost_is_counted(artifact, tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_PENDING", 3)
    async with (
        owned(tmp_path / "f") as wire,
        running(artifact, **options(wire, tmp_path / "file")) as up,
    ):
        wire.cut = True
        ids = [await ask(up) for _ in range(5)]
        await asyncio.sleep(2 * store_module.FLUSH_S)
        assert b"waypost_lost_records_total 2.0" in await up.gateway.metrics.text()
        monkeypatch.setattr(store_module, "MOST_SIZE", 1)
        await asyncio.sleep(2 * store_module.FLUSH_S)
        assert b"waypost_lost_records_total 5.0" in await up.gateway.metrics.text()
        wire.cut = False
        monkeypatch.undo()
        last = await ask(up)
        for request_id, status in ((ids[0], 404), (last, 200)):
            reply = await up.client.post(FEEDBACK, {"request_id": request_id, "rating": 1})
            assert reply.status == status


async def test_a_call_on_which_the_owner_fails_does_not_hold_up_the_next_ones(artifact, tmp_path):
    async with (
        owned(tmp_path / "f") as wire,
        running(artifact, **options(wire, tmp_path / "file")) as up,
    ):
        wire.fails = EngineServerError("too large")
        first = await ask(up)
        reply = await up.client.post(FEEDBACK, {"request_id": first, "rating": 1})
        assert reply.status == 503
        wire.fails = None
        reply = await up.client.post(FEEDBACK, {"request_id": await ask(up), "rating": 1})
        assert reply.status == 200
        assert b"waypost_lost_records_total 1.0" in await up.gateway.metrics.text()


@pytest.mark.parametrize("where", ["node", "head"])
async def test_a_changed_config_says_whether_texts_are_kept(artifact, tmp_path, where):
    async with owned(tmp_path / "f") as wire:
        changes = options(wire, tmp_path / "file") if where == "head" else {
            "feedback_dir": str(tmp_path / "f")
        }  # fmt: skip
        async with running(artifact, **changes, pool=echo_pool()) as up:
            before = await ask(up)
            await asyncio.sleep(2 * store_module.FLUSH_S)
            changed = {"log_queries": True, "remember_decisions": 5}
            await up.gateway.adopt(up.plan.model_copy(update=changed))
            for request_id in (before, await ask(up)):
                reply = await up.client.post(FEEDBACK, {"request_id": request_id, "rating": 1})
                assert reply.status == 200
            unknown = await up.client.post(FEEDBACK, {"request_id": "never", "rating": 1})
            assert "the latest 5 answers" in unknown.json()["error"]["message"]
    found = read_rated(tmp_path / "f").requests
    assert [found[e["request_id"]]["query"] is None for e in read_rated(tmp_path / "f").events] == [
        True,
        False,
    ]
