"""A node whose engine does not start: refuses, says why in the log, and tries again."""

from __future__ import annotations

import asyncio

import pytest

from waypost.contracts.errors import (
    ConfigError,
    EngineConnectionError,
    Fault,
    WeightsError,
    engine_error,
)
from waypost.engines.echo import Config, EchoEngine
from waypost.serve.backends.base import AbsentLLM, LocalLLM
from waypost.serve.backends.llm_replica import LLMHost, Pace

PACE = {"first_s": 5.0, "between_s": 5.0}
ASK = {"request_id": "r", "messages": [{"role": "user", "content": "a b"}]}
CANARY = "sk-canary-0123456789abcdef"


class Reluctant(EchoEngine):
    """Starts at its third try."""

    tries = 0
    error: Exception = WeightsError("no such folder")

    async def start(self) -> None:
        type(self).tries += 1
        if self.tries < 3:
            raise self.error
        await super().start()


def host(error: Exception, retry_s: float) -> LLMHost:
    kind = type("Kind", (Reluctant,), {"error": error, "tries": 0})
    return LLMHost("tiny", lambda: kind(Config()), 0.0, retry_s)


async def messages(found: LLMHost, *, whole: bool) -> list[dict]:
    return [message async for part in found.stream(ASK, PACE, whole) for message in part]


async def refusal(found: LLMHost) -> Exception:
    whole, streamed = await messages(found, whole=True), await messages(found, whole=False)
    assert whole == streamed
    return engine_error(whole[0]["error"])


async def test_an_engine_that_does_not_start_is_refused_and_named_in_the_log_only(caplog):
    found = host(WeightsError("/models/x does not load"), retry_s=60)
    await found.start()
    error = await refusal(found)
    assert type(error) is EngineConnectionError
    assert error.retryable  # the next of the ranking is asked
    assert "/models/x" not in str(error)
    assert found.problem == "/models/x does not load"
    assert "tiny is not served: /models/x does not load" in caplog.text
    assert await found.healthy()  # Serve must not replace the replica
    await found.close()


async def test_it_is_tried_again_until_it_starts():
    found = host(WeightsError("not yet"), retry_s=0.01)
    await found.start()
    assert found.problem == "not yet"
    async with asyncio.timeout(60):
        while found.problem is not None:
            await asyncio.sleep(0.01)
    (message,) = await messages(found, whole=True)
    assert message["answer"]["text"] == "a b"
    assert message["seconds"] > 0
    await found.close()
    assert not await found.healthy()


async def test_what_a_library_raises_is_told_without_its_message(caplog):
    found = host(RuntimeError(f"token {CANARY} was refused"), retry_s=60)
    await found.start()
    assert "RuntimeError at" in found.problem
    assert CANARY not in found.problem + caplog.text
    await found.close()


async def test_an_inline_engine_that_does_not_start_is_asked_last(caplog):
    kind = type("Kind", (Reluctant,), {"tries": 0})
    llm = LocalLLM("tiny", kind(Config()), 8, 8, 1.0)
    await llm.start()
    assert (llm.loading.ready, llm.loading.loading_s) == (False, None)
    assert "tiny is not served: no such folder" in caplog.text
    assert llm.problem == "no such folder"
    for client, reason in (
        (llm, "WeightsError: its load failed"),
        (AbsentLLM("tiny"), "its Python"),
    ):
        with pytest.raises(EngineConnectionError, match=f"tiny is not served: {reason}"):
            await client.answer(None, Pace(1, 1))
        with pytest.raises(EngineConnectionError, match=f"tiny is not served: {reason}"):
            await anext(client.stream(None, Pace(1, 1)))


async def test_a_wrong_setting_is_told_to_clients():
    found = host(ConfigError([Fault("engine x", "no key for the service 'y'")]), retry_s=60)
    await found.start()
    assert "engine x: no key for the service 'y'" in str(await refusal(found))
    await found.close()
