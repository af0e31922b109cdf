"""Sessions over HTTP: new, kept, moved, after a failover, and where nothing is kept."""

from __future__ import annotations

from typing import Any

import pytest

from support.gateway import ALGEBRA, COOKING, chat, echo_pool, running
from waypost.sessions.token import Token, read_token, write_token

CHAT = "/v1/chat/completions"

STAYS = {"stay_bonus": 1.0}
"""A bonus that no gain exceeds: qualities are from 0 to 1."""


def talk(*texts: str, **fields: Any) -> dict[str, Any]:
    """A chat with an answer after each text but the last, in a session."""
    messages: list[dict[str, Any]] = []
    for text in texts:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}]
    fields = {"waypost": {"session_id": "s"}} | fields
    return {"model": "auto", "messages": messages[:-1], "max_tokens": 8} | fields


def told(reply: Any) -> tuple[str | None, ...]:
    """LLM and state of the session in the headers."""
    assert reply.status == 200, reply.body
    names = ("x-waypost-model", "x-waypost-session")
    return tuple(reply.headers.get(name) for name in names)


@pytest.fixture
async def staying(artifact):
    async with running(artifact, sessions=STAYS) as up:
        yield up


async def test_a_session_keeps_the_llm_of_its_first_turn(staying) -> None:
    first = await staying.client.post(CHAT, talk(COOKING))
    assert told(first) == ("cook", "new")
    assert first.headers["x-waypost-reason"].startswith("highest predicted quality")
    later = await staying.client.post(CHAT, talk(COOKING, ALGEBRA))
    assert told(later) == ("cook", "kept")
    reason = later.headers["x-waypost-reason"]
    assert reason.startswith("kept: prover is ahead by ")
    assert "not more than 1; predicted quality " in reason
    extra = later.json()["usage"]["waypost"]
    assert extra["session"] == "kept"
    assert extra["session_token"] == later.headers["x-waypost-session-token"]
    assert read_token(extra["session_token"]) == Token(2, "cook")
    without = await staying.client.post(CHAT, talk(COOKING, ALGEBRA, waypost={}))
    assert told(without) == ("prover", None)
    assert "x-waypost-session-token" not in without.headers
    assert "session" not in without.json()["usage"]["waypost"]


async def test_a_gain_above_the_bonus_moves_a_session(artifact) -> None:
    async with running(artifact, sessions="on") as up:
        moved = await up.client.post(CHAT, talk(COOKING, ALGEBRA))
        assert told(moved) == ("prover", "moved")
        assert moved.headers["x-waypost-reason"].startswith("moved: prover is ahead of cook by ")
        back = await up.client.post(CHAT, talk(COOKING, ALGEBRA, COOKING))
        assert told(back) == ("cook", "moved")
        same = await up.client.post(CHAT, talk(COOKING, ALGEBRA, ALGEBRA))
        assert told(same) == ("prover", "kept")


async def test_a_stream_tells_the_session_in_its_head_and_its_usage(staying) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}}
    reply = await staying.client.post(CHAT, talk(COOKING, ALGEBRA, **options))
    assert told(reply) == ("cook", "kept")
    token = reply.headers["x-waypost-session-token"]
    extra = reply.events()[-2]["usage"]["waypost"]
    assert (extra["session"], extra["session_token"]) == ("kept", token)


async def test_the_header_opens_a_session_too(staying) -> None:
    body = talk(COOKING, ALGEBRA, waypost={})
    reply = await staying.client.post(CHAT, body, x_waypost_session_id="s")
    assert told(reply) == ("cook", "kept")


async def test_a_token_alone_is_a_session(staying) -> None:
    body = talk(ALGEBRA, waypost={})
    reply = await staying.client.post(CHAT, body, x_waypost_session_token=write_token(4, "tiny"))
    assert told(reply) == ("tiny", "kept")
    assert read_token(reply.headers["x-waypost-session-token"]) == Token(5, "tiny")


async def test_after_a_failover_the_token_tells_who_answered(artifact) -> None:
    """Without it one turn may differ: replicas take the LLM that should have answered."""
    fails_once = {"fail_with": "timeout", "fail_first_n": 1}
    async with running(artifact, sessions=STAYS, pool=echo_pool(cook=fails_once)) as up:
        first = await up.client.post(CHAT, talk(COOKING))
        model, state = told(first)
        assert model != "cook"
        assert state == "new"
        token = first.headers["x-waypost-session-token"]
        assert read_token(token) == Token(1, model)
        again = talk(COOKING, ALGEBRA)
        kept = await up.client.post(CHAT, again, x_waypost_session_token=token)
        assert told(kept) == (model, "kept")
        in_body = talk(COOKING, ALGEBRA, waypost={"session_token": token})
        assert told(await up.client.post(CHAT, in_body)) == (model, "kept")
        assert told(await up.client.post(CHAT, again)) == ("cook", "kept")


async def test_a_failed_llm_moves_the_session(artifact) -> None:
    async with running(
        artifact, sessions=STAYS, pool=echo_pool(cook={"fail_with": "timeout"})
    ) as up:
        reply = await up.client.post(CHAT, talk(COOKING, ALGEBRA))
        assert told(reply) == ("prover", "moved")
        assert reply.headers["x-waypost-reason"].startswith("moved: cook did not answer; prover")


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("nonsense", "it has another form or version"),
        ("x" * 5_000, "it has another form or version"),
        (write_token(1, "nobody"), "it names no LLM of the pool"),
    ],
)
async def test_a_token_that_cannot_be_used_is_ignored_and_named(staying, token, why) -> None:
    body = talk(COOKING, ALGEBRA, waypost={"session_token": token, "session_id": "s"})
    reply = await staying.client.post(CHAT, body)
    assert told(reply) == ("cook", "kept")
    assert reply.headers["x-waypost-reason"].endswith(f"; the session token was ignored: {why}")


async def test_calls_of_tools_belong_to_their_turn(staying) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = talk(COOKING, ALGEBRA)
    body["messages"] += [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "found"},
    ]
    reply = await staying.client.post(CHAT, body)
    assert told(reply) == ("cook", "kept")
    assert read_token(reply.headers["x-waypost-session-token"]) == Token(2, "cook")


async def test_an_llm_named_by_the_client_keeps_nothing(staying) -> None:
    reply = await staying.client.post(CHAT, talk(COOKING, model="tiny"))
    assert told(reply) == ("tiny", None)
    assert "x-waypost-session-token" not in reply.headers


async def test_an_llm_that_is_not_allowed_is_left(staying) -> None:
    body = talk(COOKING, ALGEBRA)
    body["waypost"] |= {"allowed_models": ["prover", "tiny"], "session_token": "1.1.Y29vaw"}
    reply = await staying.client.post(CHAT, body)
    assert told(reply) == ("prover", "moved")
    reason = reply.headers["x-waypost-reason"]
    assert reason.startswith("moved: cook may not be chosen for this request; ")


async def test_a_session_by_the_first_messages(artifact) -> None:
    async with running(artifact, sessions=STAYS | {"from_first_messages": True}) as up:
        assert told(await up.client.post(CHAT, chat(COOKING))) == ("cook", "new")
        assert told(await up.client.post(CHAT, talk(COOKING, ALGEBRA, waypost={}))) == (
            "cook", "kept",
        )  # fmt: skip


async def test_the_fold_begins_at_the_oldest_turn_looked_at(artifact) -> None:
    async with running(artifact, sessions=STAYS | {"max_turns": 2}) as up:
        assert told(await up.client.post(CHAT, talk(COOKING, ALGEBRA))) == ("cook", "kept")
        late = talk(COOKING, ALGEBRA, COOKING)
        assert told(await up.client.post(CHAT, late)) == ("prover", "kept")


async def test_a_decision_alone_tells_the_session_and_no_token(staying) -> None:
    body = talk(COOKING, ALGEBRA)
    reply = await staying.client.post("/v1/route", body)
    assert told(reply) == ("cook", "kept")
    found = reply.json()
    assert (found["session"], found["last_model"], found["ranking"][0]) == ("kept", "cook", "cook")
    assert "x-waypost-session-token" not in reply.headers


async def test_without_sessions_an_id_keeps_nothing(artifact) -> None:
    async with running(artifact) as up:
        assert told(await up.client.post(CHAT, talk(COOKING, ALGEBRA))) == ("prover", None)


async def test_reminders_of_a_harness_are_not_routed_on(artifact) -> None:
    reminder = f"<system-reminder>{ALGEBRA}</system-reminder>"
    own = {"start": "[[", "end": "]]"}
    async with running(artifact, route_clean=["claude-code", own], sessions=STAYS) as up:
        body = chat(f"{reminder}\n{COOKING}[[{ALGEBRA}]]")
        reply = await up.client.post("/v1/route", body)
        assert reply.json()["characters"] == len(COOKING)
        assert told(reply) == ("cook", None)
        # what the LLM gets is whole
        whole = await up.client.post(CHAT, body)
        assert reminder in whole.json()["choices"][0]["message"]["content"]
        only = talk(COOKING, reminder, ALGEBRA)
        assert told(await up.client.post(CHAT, only)) == ("cook", "kept")
