"""The page's client over a real gateway on a socket, and how answers are stopped."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from support.gateway import COOKING, Running, echo_pool, knn_artifact, running
from waypost.chat.asking import Asking, Wishes, body_of
from waypost.chat.client import GatewayClient
from waypost.chat.talk import Talk
from waypost.contracts.errors import (
    EngineAuthError,
    EngineConnectionError,
    EngineRequestError,
    EngineServerError,
)
from waypost.secrets import Secret
from waypost.serve.gateway.access import ClientKeys
from waypost.serve.gateway.ingress import Ingress
from waypost.serve.handover import listen

LONG = " ".join([COOKING] * 50)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return knn_artifact(tmp_path_factory.mktemp("artifact"))


@asynccontextmanager
async def reached(artifact: Path, **changes: Any) -> AsyncIterator[tuple[GatewayClient, Running]]:
    async with running(artifact, **changes) as found:
        listener = listen("127.0.0.1", 0)
        ingress = Ingress(found.gateway, listener)
        await ingress.start()
        client = GatewayClient(f"http://127.0.0.1:{listener.getsockname()[1]}/v1")
        try:
            yield client, found
        finally:
            await client.close()
            await ingress.close()


def asked(client: GatewayClient, talk: Talk, text: str, wishes: Wishes = Wishes()) -> Asking:  # noqa: B008
    turn = talk.ask(text)
    bodies = [body_of(wishes, talk, side) for side in range(talk.sides)]
    return Asking(client, turn.answers, bodies, wishes.key)


async def finished(asking: Asking) -> int:
    return len([None async for _ in asking.pictures()])


async def test_what_is_served_is_told(artifact: Path) -> None:
    async with reached(artifact) as (client, _):
        pool = await client.pool()
    assert pool.llms == ("cook", "prover", "tiny")
    assert pool.names[0] == "auto"


async def test_an_answer_is_complete(artifact: Path) -> None:
    async with reached(artifact) as (client, _):
        talk = Talk()
        await finished(asked(client, talk, COOKING, Wishes(lam=0.0)))
    (answer,) = talk.turns[0].answers
    assert (answer.state, answer.model, answer.text) == ("answered", "cook", COOKING)
    assert answer.decision["ranking"][0] == "cook"
    assert answer.cost_usd is not None
    assert answer.dearest_usd is not None
    assert answer.cost_usd < answer.dearest_usd
    assert (answer.attempts, answer.failed) == (1, [])


async def test_two_sides_are_written_at_the_same_time(artifact: Path) -> None:
    pool = echo_pool(cook={"tokens_per_s": 40}, tiny={"tokens_per_s": 40})
    async with reached(artifact, pool=pool) as (client, found):
        talk = Talk(view="side", names=["cook", "tiny"])
        together = 0
        async with aclosing(asked(client, talk, COOKING).pictures()) as pictures:
            async for _ in pictures:
                calls = [len(found.echo(name).calls) for name in ("cook", "tiny")]
                together = max(together, sum(calls))
    assert together == 2
    assert [answer.text for answer in talk.turns[0].answers] == [COOKING, COOKING]


@pytest.mark.parametrize("closing", [False, True])
async def test_stopping_stops_the_engine(artifact: Path, closing: bool) -> None:
    pool = echo_pool(cook={"tokens_per_s": 20})
    async with reached(artifact, pool=pool) as (client, found):
        talk = Talk()
        asking = asked(client, talk, LONG)
        async with aclosing(asking.pictures()) as pictures:
            async for _ in pictures:
                if talk.turns[0].answers[0].text:
                    assert len(found.echo("cook").calls) == 1
                    if closing:
                        break
                    asking.stop()
        async with asyncio.timeout(5):
            while len(found.echo("cook").calls):
                await asyncio.sleep(0.01)
    assert talk.turns[0].answers[0].state == "stopped"
    assert 0 < len(talk.turns[0].answers[0].text) < len(LONG)


async def test_twenty_answers_do_not_wait_for_each_other(artifact: Path) -> None:
    pool = echo_pool(cook={"tokens_per_s": 20})
    async with reached(artifact, pool=pool) as (client, found):
        work = [asyncio.create_task(finished(asked(client, Talk(), LONG))) for _ in range(20)]
        async with asyncio.timeout(10):
            while len(found.echo("cook").calls) < 20:
                await asyncio.sleep(0.01)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"fail_with": "500"}, "cook: echo: scripted 500"),
        ({"fail_with": "mid_stream"}, "scripted failure"),
    ],
)
async def test_a_failure_is_one_sentence(
    artifact: Path, config: dict[str, Any], error: str
) -> None:
    async with reached(artifact, pool=echo_pool(cook=config)) as (client, _):
        talk = Talk(names=["cook"])
        await finished(asked(client, talk, COOKING))
    (answer,) = talk.turns[0].answers
    assert answer.state == "failed"
    assert error in (answer.error or "")
    assert "\n" not in (answer.error or "")


async def test_a_gateway_that_is_not_there_is_told() -> None:
    client = GatewayClient("http://127.0.0.1:9")
    with pytest.raises(EngineConnectionError, match="cannot be reached; is it running"):
        await client.pool()
    await client.close()
    client = GatewayClient("nonsense")
    with pytest.raises(EngineConnectionError, match="no URL of a gateway"):
        await client.pool()
    await client.close()


async def test_the_key_is_sent(artifact: Path) -> None:
    async with reached(artifact, keys=ClientKeys(["right-key"])) as (client, _):
        with pytest.raises(EngineAuthError, match="asks for a key"):
            await client.pool(Secret("wrong-key"))
        assert (await client.pool(Secret("right-key"))).llms


async def test_a_rating_without_a_store_is_refused(artifact: Path) -> None:
    async with reached(artifact) as (client, _):
        with pytest.raises(EngineRequestError, match="feedback_dir"):
            await client.rate({"request_id": "1f", "rating": 1})


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (b"HTTP/1.1 500 x\r\ncontent-length: 3\r\n\r\n???", EngineServerError, "HTTP status 500"),
        (b"HTTP/1.1 302 x\r\nlocation: /\r\ncontent-length: 0\r\n\r\n", EngineRequestError, "302"),
        (b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\ndata: {}\n", EngineConnectionError, "broke"),
        (b"HTTP/1.1 200 x\r\ncontent-length: 99\r\n\r\ndata: {", EngineConnectionError, "broke"),
        (b"HTTP/1.1 200 x\r\ncontent-length: 9\r\n\r\ndata: 7\n\n", EngineServerError, "object"),
    ],
)
async def test_what_is_no_gateway_is_told(
    answer: bytes, error: type[Exception], message: str
) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    client = GatewayClient(f"http://127.0.0.1:{port}")
    async with aclosing(client.stream({"model": "auto"})) as events:
        with pytest.raises(error, match=message):
            [event async for event in events]
    await client.close()
    server.close()


def test_a_body_says_how_to_route() -> None:
    talk = Talk(view="side", names=["auto", "cook"], id="talk-1")
    talk.ask("Hello?")
    wishes = Wishes(lam=0.5, route_on="retrieval", top_k=4, user_id="ann")
    told = body_of(wishes, talk, 1)
    assert (told["model"], told["stream"]) == ("cook", True)
    assert told["waypost"] == {
        "lambda": 0.5, "route_on": "retrieval", "top_k": 4, "user_id": "ann",
        "session_id": "talk-1-b", "explain": True, "progress": True,
    }  # fmt: skip
    assert "top_k" not in body_of(Wishes(route_on="full_context", top_k=4), talk, 0)["waypost"]
    assert json.dumps(told)
