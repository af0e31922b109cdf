"""Every engine passes the contract battery; the default tier runs a tiny model, no real LLM."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from support.fake_anthropic import FakeAnthropic, refused
from support.fake_upstream import FakeUpstream, Reply
from waypost.contracts.errors import (
    ContextLengthError,
    EngineAuthError,
    EngineConnectionError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.engines import engine_names, make_engine
from waypost.secrets import KeyRing
from waypost.testing.engine_contract import CHECKS, EngineCase, Failure, check_name
from waypost.testing.tiny_model import write_tiny_model

QUESTIONS = (
    "one fish two fish red fish blue fish and many more words so that it takes a while to say",
    "the quick brown fox jumps over the lazy dog while the band plays on and on and on tonight",
    "numbers 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 and the rest of them follow",
    "Привет, мир! 日本語のテキスト、長い文章。 हिन्दी पाठ — καλημέρα κόσμε, naïve 🦊🌍"
    " مرحبا بالعالم؛ ещё несколько слов, чтобы ответ был достаточно длинным",
)
PACE = 400  # tokens a second: 20 words take 50 ms

FAILING = {
    "timeout": (EngineTimeoutError, True),
    "429": (EngineOverloadedError, True),
    "500": (EngineServerError, True),
    "connection": (EngineConnectionError, True),
    "mid_stream": (EngineConnectionError, True),
}


@asynccontextmanager
async def echo(tmp_path) -> AsyncIterator[EngineCase]:
    yield EngineCase(
        make=lambda: make_engine("echo", {"tokens_per_s": PACE}),
        questions=QUESTIONS,
        tokens=None,
        working=lambda engine: len(engine.calls),
        produced=lambda engine: engine.calls.output_tokens,
        failures=[
            Failure(lambda kind=kind: make_engine("echo", {"fail_with": kind}), *expected)
            for kind, expected in FAILING.items()
        ],
    )


@asynccontextmanager
async def replay(tmp_path) -> AsyncIterator[EngineCase]:
    file = tmp_path / "answers.jsonl"
    rows = [{"query": text, "response": f"{text}, I say"} for text in QUESTIONS]
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    other = tmp_path / "other.jsonl"
    other.write_text('{"query": "something else", "response": "x"}\n')
    yield EngineCase(
        make=lambda: make_engine("replay", {"data": str(file), "tokens_per_s": PACE}),
        questions=QUESTIONS,
        tokens=None,
        working=lambda engine: len(engine.calls),
        produced=lambda engine: engine.calls.output_tokens,
        answers_empty=False,
        failures=[
            Failure(lambda: make_engine("replay", {"data": str(other)}), EngineRequestError, False)
        ],
    )


@asynccontextmanager
async def openai(tmp_path) -> AsyncIterator[EngineCase]:
    from waypost.engines.openai_http import Config, OpenAIEngine

    async with FakeUpstream(Reply(token_s=1 / PACE)) as upstream:

        def make(*replies: Reply, **config: object) -> OpenAIEngine:
            upstream.script(*replies)
            settings = {"base_url": upstream.url, "model": "m", "max_retries": 0} | config
            return OpenAIEngine(Config.model_validate(settings), KeyRing())

        def failing(error: type, retryable: bool, *replies: Reply, **config: object) -> Failure:
            return Failure(lambda: make(*replies, **config), error, retryable)

        def status(code: int, error_code: str | None = None) -> Reply:
            return Reply(status=code, body={"error": {"message": "no", "code": error_code}})

        yield EngineCase(
            make=make,
            questions=QUESTIONS,
            tokens=None,
            working=lambda _: upstream.active,
            produced=lambda _: upstream.sent_tokens,
            failures=[
                failing(EngineAuthError, True, status(401)),
                failing(EngineRequestError, False, status(400)),
                failing(EngineRequestError, True, status(404)),
                failing(ContextLengthError, False, status(400, "context_length_exceeded")),
                failing(EngineTimeoutError, True, status(504)),
                failing(EngineOverloadedError, True, status(429)),
                failing(EngineServerError, True, status(500)),
                failing(EngineConnectionError, True, Reply(drop=True)),
                failing(EngineConnectionError, True, Reply(cut_after=3)),
                failing(EngineConnectionError, True, Reply(finish=False, done=False)),
                failing(EngineServerError, True, Reply(stream_error={"message": "broke"})),
                failing(
                    EngineTimeoutError, True, Reply(first_token_s=0.3), first_token_timeout_s=0.05
                ),
                failing(EngineTimeoutError, True, Reply(token_s=0.3), token_timeout_s=0.05),
            ],
        )


@asynccontextmanager
async def anthropic(tmp_path) -> AsyncIterator[EngineCase]:
    from waypost.engines.anthropic import AnthropicEngine, Config

    async with FakeAnthropic(Reply(token_s=1 / PACE)) as upstream:

        def make(*replies: Reply, **config: object) -> AnthropicEngine:
            upstream.script(*replies)
            settings = {"base_url": upstream.url, "model": "m", "max_retries": 0} | config
            return AnthropicEngine(Config.model_validate(settings), KeyRing())

        def failing(error: type, retryable: bool, *replies: Reply, **config: object) -> Failure:
            return Failure(lambda: make(*replies, **config), error, retryable)

        yield EngineCase(
            make=make,
            questions=QUESTIONS,
            tokens=None,
            working=lambda _: upstream.active,
            produced=lambda _: upstream.sent_tokens,
            answers_empty=False,
            failures=[
                failing(EngineAuthError, True, refused("authentication_error")),
                failing(EngineAuthError, True, refused("permission_error")),
                failing(EngineRequestError, True, refused("billing_error")),
                failing(EngineRequestError, False, refused("invalid_request_error")),
                failing(EngineRequestError, True, refused("not_found_error")),
                failing(EngineRequestError, True, refused("request_too_large")),
                failing(
                    ContextLengthError,
                    False,
                    refused("invalid_request_error", "prompt is too long: 9 tokens > 8 maximum"),
                ),
                failing(EngineOverloadedError, True, refused("rate_limit_error")),
                failing(EngineOverloadedError, True, refused("overloaded_error")),
                failing(EngineServerError, True, refused("api_error")),
                failing(EngineTimeoutError, True, refused("timeout_error")),
                failing(EngineConnectionError, True, Reply(drop=True)),
                failing(EngineConnectionError, True, Reply(cut_after=3)),
                failing(EngineConnectionError, True, Reply(finish=False, done=False)),
                failing(
                    EngineOverloadedError,
                    True,
                    Reply(stream_error={"type": "overloaded_error", "message": "Overloaded"}),
                ),
                failing(
                    EngineTimeoutError, True, Reply(first_token_s=0.3), first_token_timeout_s=0.05
                ),
                failing(EngineTimeoutError, True, Reply(token_s=0.3), token_timeout_s=0.05),
            ],
        )


@asynccontextmanager
async def transformers(tmp_path, model: str | None = None) -> AsyncIterator[EngineCase]:
    config = {
        "model": model or str(write_tiny_model(tmp_path / "model")),
        "device": "cpu",
        "dtype": "float32",  # where an answer alone equals the answer in a batch
        "threads": 1,
        "nice": 0,  # other tests compute beside it
        "max_output_tokens": 300,
    }
    yield EngineCase(
        make=lambda: make_engine("transformers", config),
        questions=QUESTIONS,
        tokens=60 if model is None else 24,
        working=lambda engine: engine.running,
        produced=lambda engine: engine.output_tokens,
        failures=[
            Failure(
                lambda: make_engine("transformers", config | {"context_length": 16}),
                ContextLengthError,
                False,
            )
        ],
    )


CASES = {
    "anthropic": anthropic,
    "echo": echo,
    "openai": openai,
    "replay": replay,
    "transformers": transformers,
}
ELSEWHERE = {"vllm"}  # runs in environments of its own: test_engine_vllm.py


def by_tier():
    """What generates, even with a tiny model, takes its time: the engine tier's."""
    generates = {"transformers": [pytest.mark.engine]}
    return [pytest.param(name, marks=generates.get(name, [])) for name in CASES]


def test_every_engine_has_a_case():
    assert set(CASES) | ELSEWHERE == set(engine_names())


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
@pytest.mark.parametrize("name", by_tier())
async def test_contract(name, check, tmp_path):
    async with CASES[name](tmp_path) as case:
        await check(case)


@pytest.mark.engine
@pytest.mark.parametrize("check", CHECKS, ids=check_name)
async def test_contract_with_smollm2(check, tmp_path):
    async with transformers(tmp_path, "HuggingFaceTB/SmolLM2-135M-Instruct") as case:
        await check(case)
