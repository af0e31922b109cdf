"""What a chat is routed on, over HTTP: the mode of a request, earlier turns, and their end."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from support.gateway import ALGEBRA, COOKING, chat, echo_pool, running, stepping
from support.ingress import listening
from waypost.contracts.errors import ConfigError
from waypost.feedback import forget_user
from waypost.serve.config import ServeArgs
from waypost.serve.plan import make_plan

CHAT = "/v1/chat/completions"
KEEPS = {"retrieval": {"top_k": 2, "keep_turns": "on"}}


def talk(*texts: str, **waypost: Any) -> dict[str, Any]:
    """A chat with an answer after each text but the last."""
    messages: list[dict[str, Any]] = []
    for text in texts:
        messages += [{"role": "user", "content": text}, {"role": "assistant", "content": "ok"}]
    return {"messages": messages[:-1], "waypost": waypost}


@pytest.fixture
async def up(artifact):
    async with running(artifact) as found:
        yield found


async def routed(up, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    reply = await up.client.post("/v1/route", body, **headers)
    assert reply.status == 200, reply.body
    return reply.json()


async def test_a_request_says_what_it_is_routed_on(up) -> None:
    body = talk(ALGEBRA, COOKING)
    last, all_ = len(COOKING), len(f"{ALGEBRA}\nok\n{COOKING}")
    assert (await routed(up, body))["characters"] == last
    for mode, characters in (("full_context", all_), ("current_only", last)):
        told = await routed(up, talk(ALGEBRA, COOKING, route_on=mode))
        assert (told["route_on"], told["characters"]) == (mode, characters)
        told = await routed(up, body, x_waypost_route_on=mode)
        assert (told["route_on"], told["characters"]) == (mode, characters)
    told = await routed(
        up, talk(ALGEBRA, COOKING, route_on="current_only"), x_waypost_route_on="full_context"
    )
    assert told["characters"] == last  # the body wins


async def test_retrieval_adds_the_earlier_turns_of_the_chat_that_are_most_like_it(up) -> None:
    short = "And for two?"
    alone = await routed(up, talk(short))
    told = await routed(up, talk(COOKING, ALGEBRA, short, route_on="retrieval", top_k=1))
    assert told["route_on"] == "retrieval"
    assert told["retrieved"] == {"turns": 1, "of": 2}
    assert told["characters"] > alone["characters"]
    both = await routed(
        up,
        talk(COOKING, ALGEBRA, short),
        x_waypost_route_on="retrieval",
        x_waypost_top_k="32",
    )
    assert both["retrieved"] == {"turns": 2, "of": 2}
    assert both["characters"] == len(f"{COOKING}\n{ALGEBRA}\n{short}")
    first = await routed(up, talk(COOKING, route_on="retrieval"))
    assert first["retrieved"] == {"turns": 0, "of": 0}
    assert first["model_name"] == "cook"


async def test_earlier_turns_change_what_is_chosen_and_the_llm_gets_the_chat_as_it_is(up) -> None:
    bare = await routed(up, talk("And for two?"))
    assert bare["model_name"] == "prover"
    body = talk(COOKING, "And for two?", route_on="retrieval", explain=True)
    reply = await up.client.post(CHAT, {"model": "auto"} | body)
    decision = reply.json()["usage"]["waypost"]["decision"]
    assert decision["retrieved"] == {"turns": 1, "of": 1}
    assert decision["model_name"] == reply.headers["x-waypost-model"] == "cook"
    assert reply.json()["choices"][0]["message"]["content"] == "And for two?"  # echo


@pytest.mark.parametrize(
    ("waypost", "headers", "param"),
    [
        ({"route_on": "last"}, {}, "waypost.route_on"),
        ({"top_k": 0}, {}, "waypost.top_k"),
        ({"top_k": 33}, {}, "waypost.top_k"),
        ({}, {"x_waypost_route_on": "all"}, "x-waypost-route-on"),
        ({}, {"x_waypost_top_k": "0"}, "x-waypost-top-k"),
        ({}, {"x_waypost_top_k": "1.5"}, "x-waypost-top-k"),
    ],
)
async def test_a_wrong_mode_or_number_is_named(up, waypost, headers, param) -> None:
    reply = await up.client.post("/v1/route", talk(COOKING, **waypost), **headers)
    assert reply.status == 400
    assert reply.json()["error"]["param"] == param


async def test_turns_of_earlier_chats_are_kept_by_user_where_the_file_says_so(artifact) -> None:
    ask = {"route_on": "retrieval", "user_id": "ann"}
    async with running(artifact, **KEEPS) as up:
        for text in (COOKING, ALGEBRA):
            await up.client.post(CHAT, {"model": "auto"} | talk(text, **ask))
        told = await routed(up, talk("And for two?", **ask))
        assert told["retrieved"] == {"turns": 2, "of": 2}
        again = await routed(up, talk("And for two?", **ask))
        assert again["retrieved"]["of"] == 2  # /v1/route asks, and is no turn
        other = await routed(up, talk("And for two?", **(ask | {"user_id": "bob"})))
        assert other["retrieved"]["of"] == 0
        nobody = await routed(up, talk("And for two?", route_on="retrieval"))
        assert nobody["retrieved"]["of"] == 0
        gone = up.client.open("DELETE", "/v1/turns", b"", {"x-waypost-user-id": "ann"})
        assert (await gone.end()).json() == {"deleted": 2}
        assert (await routed(up, talk("And for two?", **ask)))["retrieved"]["of"] == 0
        unnamed = await up.client.open("DELETE", "/v1/turns").end()
        assert unnamed.status == 400
    async with running(artifact) as up:
        await up.client.post(CHAT, {"model": "auto"} | talk(COOKING, **ask))
        assert (await routed(up, talk("And for two?", **ask)))["retrieved"]["of"] == 0
        gone = await up.client.open("DELETE", "/v1/turns", b"", {"x-waypost-user-id": "ann"}).end()
        assert gone.json()["error"]["code"] == "no_turns"


async def test_a_stream_is_routed_on_kept_turns_over_http_and_keeps_its_own(artifact) -> None:
    body = {"stream": True, "stream_options": {"include_usage": True}}
    ask = {"route_on": "retrieval", "session_id": "s", "explain": True}
    async with listening(artifact, **KEEPS) as there, aiohttp.ClientSession() as client:
        for number in range(2):
            asked = {**body, **talk(f"{ALGEBRA} {number}", **ask)}
            async with client.post(f"{there.url}{CHAT}", json=asked) as reply:
                text = await reply.text()
            assert f'"retrieved":{{"turns":{number},"of":{number}}}' in text


async def test_forgetting_a_user_reaches_the_memory_of_a_running_gateway(
    artifact, tmp_path
) -> None:
    folder = tmp_path / "feedback"
    ask = {"route_on": "retrieval", "user_id": "ann"}
    async with running(artifact, **KEEPS, feedback_dir=str(folder)) as up:
        await up.client.post(CHAT, {"model": "auto"} | talk(COOKING, **ask))
        assert (await routed(up, talk("Two?", **ask)))["retrieved"]["of"] == 1
        forget_user(tmp_path, "bob")
        assert (await routed(up, talk("Two?", **ask)))["retrieved"]["of"] == 1
        forget_user(tmp_path, "ann")
        assert (await routed(up, talk("Two?", **ask)))["retrieved"]["of"] == 0


async def test_a_router_without_an_encoder_refuses_to_look_for_turns(tiers) -> None:
    async with stepping(tiers, pool=echo_pool()) as up:
        body = {"model": "auto"} | talk(ALGEBRA, COOKING, route_on="retrieval")
        reply = await up.client.post(CHAT, body)
        assert reply.json()["error"]["code"] == "no_encoder"
        assert reply.json()["error"]["param"] == "waypost.route_on"


def test_a_file_whose_router_has_no_encoder_cannot_make_retrieval_its_default(tiers) -> None:
    args = {"artifact": str(tiers), "pool": echo_pool(), "allow_plugin_code": True}
    with pytest.raises(ConfigError, match=r"route_on: router .* has no encoder"):
        make_plan(ServeArgs.model_validate({**args, "route_on": "retrieval"}))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"retrieval": {"keep_turns": {"most_turns": 300}}}, "less than or equal to 256"),
        ({**KEEPS, "feedback_dir": "f", "store_place": "head"}, "does not reach the memory"),
        ({"log_queries": True}, "set one"),
    ],
)
def test_settings_without_effect_or_out_of_reach_are_faults(changes, expected) -> None:
    with pytest.raises(ValueError, match=expected):
        ServeArgs.model_validate({"artifact": "a", "pool": echo_pool(), **changes})


async def test_a_session_and_retrieval_go_together(artifact) -> None:
    async with running(artifact, sessions="on") as up:
        waypost = {"session_id": "s", "route_on": "retrieval", "explain": True}
        reply = await up.client.post(CHAT, {"model": "auto"} | talk(COOKING, "Two?", **waypost))
        told = reply.json()["usage"]["waypost"]
        assert told["session"] in {"kept", "moved"}
        assert told["decision"]["retrieved"] == {"turns": 1, "of": 1}


async def test_a_named_llm_is_asked_whatever_is_routed_on(up) -> None:
    body = chat(COOKING, model="tiny", waypost={"route_on": "retrieval", "explain": True})
    told = (await up.client.post(CHAT, body)).json()["usage"]["waypost"]
    assert told["model"] == "tiny"
    assert "retrieved" not in told["decision"]
