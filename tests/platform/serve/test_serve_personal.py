"""A served personal router: what a user says changes that user's LLM, in every process."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from support.fans import fans_artifact
from support.gateway import ALGEBRA, COOKING, Running, arguments, chat, running
from support.owner import owned
from waypost.contracts.errors import ConfigError
from waypost.feedback import forget_user
from waypost.learning.user_turns import UserTurns, turns_path
from waypost.serve.backends.messages import read_reply
from waypost.serve.backends.owned_states import LOOK_S
from waypost.serve.backends.owner import OwnedFeedback
from waypost.serve.backends.router_replica import Routers
from waypost.serve.changes import change_plan
from waypost.serve.config import AUTO, ServeArgs, UserConfig
from waypost.serve.plan import RouterPlan, make_plan
from waypost.testing.synthetic import ENCODER_ID

CHAT = "/v1/chat/completions"
FEEDBACK = "/v1/feedback"
N_EVENTS = 6
NEW = f"{COOKING} And then?"


@pytest.fixture(scope="module")
def personal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fans_artifact(tmp_path_factory.mktemp("personal") / "artifact")


async def ask(up: Running, text: str = COOKING, **fields: Any) -> str:
    """Ask, and return the request's id."""
    return (await up.client.post(CHAT, chat(text, **fields))).headers["x-waypost-request-id"]


async def choice(up: Running, user: str | None, text: str = NEW) -> str:
    """Return the LLM that a user's new question goes to."""
    body = chat(text) if user is None else chat(text, user=user)
    return (await up.client.post("/v1/route", body)).json()["model_name"]


async def prefer_tiny(up: Running, user: str, n: int = N_EVENTS) -> None:
    """Compare the router's answers with those of tiny, which this user always likes better."""
    for i in range(n):
        text = f"{COOKING} {i}"
        mine = await ask(up, text, user=user, model="tiny")
        routed = await ask(up, text, user=user, waypost={"allowed_models": ["cook", "prover"]})
        said = {"request_id": mine, "other_request_id": routed, "preference": "left"}
        assert (await up.client.post(FEEDBACK, said)).status == 200


def turns(folder: Path) -> UserTurns:
    return UserTurns(turns_path(folder, ENCODER_ID), ENCODER_ID)


async def test_what_a_user_says_changes_that_users_llm_and_no_others(personal, tmp_path):
    changes = {"feedback_dir": str(tmp_path)}
    async with running(personal, **changes) as up, running(personal, **changes) as beside:
        before = await choice(up, "ann")
        assert before != "tiny"
        await prefer_tiny(up, "ann")
        for gateway in (up, beside):
            assert await choice(gateway, "ann") == "tiny"
            assert await choice(gateway, "bob") == await choice(gateway, None) == before
    async with running(personal, **changes) as up:  # after a restart
        assert await choice(up, "ann") == "tiny"
        assert forget_user(tmp_path, "ann").turns == N_EVENTS
        assert await choice(up, "ann") == before
    assert not any(b"ann" in path.read_bytes() for path in tmp_path.iterdir())


async def test_machines_share_users_through_the_owner_of_the_folder(personal, tmp_path):
    async with owned(tmp_path) as wire:
        elsewhere = {"feedback_dir": str(tmp_path / "not here"), "store_place": "head"}
        changes = {"feedback": OwnedFeedback(wire.ask), "ask": wire.ask, **elsewhere}
        async with running(personal, **changes) as up, running(personal, **changes) as beside:
            before = await choice(beside, "ann")
            await prefer_tiny(up, "ann")
            await asyncio.sleep(LOOK_S)
            assert [await choice(one, "ann") for one in (up, beside)] == ["tiny"] * 2
            assert await choice(beside, "bob") == before
    assert not (tmp_path / "not here").exists()


async def test_no_text_is_kept_to_learn_from(personal, tmp_path):
    async with running(personal, feedback_dir=str(tmp_path)) as up:
        await prefer_tiny(up, "ann", 1)
        with turns(tmp_path) as found:
            history = found.history("ann")
    assert (history.llms, history.values.tolist()) == (("tiny",), [1.0])
    assert history.embeddings.shape == (1, 64)
    assert not any(COOKING.encode() in path.read_bytes() for path in tmp_path.iterdir())


async def test_a_rating_says_something_once_and_the_later_one_counts(personal, tmp_path):
    async with running(personal, feedback_dir=str(tmp_path)) as up:
        request_id = await ask(up, user="ann")
        for rating, key in ((0.25, "a"), (0.75, "b"), (0.25, "a")):
            said = {"request_id": request_id, "rating": rating, "idempotency_key": key}
            assert (await up.client.post(FEEDBACK, said)).status == 200
        await up.client.post(FEEDBACK, {"request_id": request_id, "rating": 1, "time": 1})
        with turns(tmp_path) as found:
            assert found.history("ann").values.tolist() == [0.75]


async def test_what_is_no_taste_of_a_known_user_is_not_learned(personal, tmp_path):
    async with running(personal, feedback_dir=str(tmp_path)) as up:
        mine, nobodys = await ask(up, user="ann"), await ask(up)
        pinned = await ask(up, user="ann", model="cook")
        again = await ask(up, f"{COOKING} again", user="ann")
        same = {"request_id": mine, "other_request_id": again, "preference": "left"}
        events = [
            {"request_id": mine, "verdict": "wrong"},
            {"request_id": mine, "rating": 0, "source": "judge"},
            {"request_id": nobodys, "rating": 0},
            {"request_id": nobodys, "rating": 0, "user_id": "ann"},
            {"request_id": pinned, "rating": 0},
            same,
        ]
        told = (await up.client.post(FEEDBACK, {"events": events})).json()["events"]
        assert [each["status"] for each in told] == [200] * 6
    assert not turns_path(tmp_path, ENCODER_ID).exists() or len(turns(tmp_path)) == 0


async def test_a_router_that_is_not_personal_makes_turns_for_one_that_is(
    artifact, personal, tmp_path
):
    routers = {"careful": str(artifact), "mine": str(personal)}
    async with running(artifact, routers=routers, feedback_dir=str(tmp_path)) as up:
        await prefer_tiny(up, "ann")
        assert await choice(up, "ann") != "tiny"
        body = chat(NEW, user="ann", model="mine")
        assert (await up.client.post("/v1/route", body)).json()["model_name"] == "tiny"


async def test_hostile_names_of_users_are_names(personal, tmp_path):
    async with running(personal, feedback_dir=str(tmp_path)) as up:
        for user in ("'; DROP TABLE turns; --", "\x00", "ü" * 100):
            request_id = await ask(up, user=user)
            reply = await up.client.post(FEEDBACK, {"request_id": request_id, "rating": 1})
            assert reply.status == 200
            assert await choice(up, user, ALGEBRA) in ("cook", "prover", "tiny")
        with turns(tmp_path) as found:
            assert len(found) == 3


def plan(artifact: Path, folder: Path) -> Any:
    args = arguments(artifact, feedback_dir=str(folder))
    return make_plan(ServeArgs.model_validate(args))


def routed(routers: Routers, user: str) -> str:
    return read_reply(routers.decide([({"query": COOKING, "user_id": user}, AUTO)])[0]).model


def test_states_stay_in_memory_where_the_router_stays(personal, tmp_path):
    graph = plan(personal, tmp_path)
    routers = Routers(graph.router)
    routers.load()
    changed: RouterPlan = change_plan(
        graph, UserConfig.model_validate({"policy": {"lambda": 1}})
    ).router
    later = Routers(changed, routers)
    later.load()
    (router, states), (router_later, states_later) = routers._users._pairs + later._users._pairs
    assert router is router_later
    assert states is states_later


def test_a_file_of_users_that_is_none_stops_the_start(personal, tmp_path):
    turns_path(tmp_path, ENCODER_ID).write_text("no database, " * 100)
    with pytest.raises(ConfigError, match="cannot be opened as a store of users"):
        Routers(plan(personal, tmp_path).router).load()


def test_where_the_turns_cannot_be_read_the_user_is_not_known(personal, tmp_path):
    routers = Routers(plan(personal, tmp_path).router)
    routers.load()
    before = routed(routers, "ann")
    with sqlite3.connect(turns_path(tmp_path, ENCODER_ID)) as database:
        database.execute("DROP TABLE users")
    assert routed(routers, "ann") == before
