"""A key is searched for in everything that comes out of an engine, in success and failure."""

from __future__ import annotations

import json
import logging
import traceback

import pytest

from support.fake_anthropic import FakeAnthropic
from support.fake_upstream import FakeUpstream, Reply
from waypost import secrets
from waypost.contracts.errors import EngineError, WaypostError
from waypost.contracts.generation import GenerateRequest
from waypost.engines import engine_names, make_engine
from waypost.secrets import HIDDEN, KeyRing
from waypost.testing.tiny_model import write_tiny_model

CANARY = "sk-canary-4b1f/93+d7"  # with characters that JSON and URLs write differently
ECHOED = {"error": {"message": f"Incorrect API key provided: {CANARY}", "code": CANARY}}

REPLIES = {
    "success": Reply(),
    "refused": Reply(status=401, body=ECHOED),
    "bad request": Reply(status=400, body=ECHOED),
    "limited": Reply(status=429, body=ECHOED, headers={"Retry-After": CANARY}),
    "broken": Reply(status=500, body=ECHOED),
    "gateway time-out": Reply(status=504, body=ECHOED),
    "redirect": Reply(status=307, headers={"Location": f"http://127.0.0.1/?key={CANARY}"}),
    "dropped": Reply(drop=True),
    "cut": Reply(cut_after=2),
    "stream error": Reply(stream_error=ECHOED["error"]),
    "no json": Reply(raw=f"data: {CANARY}\n\n".encode()),
    "slow": Reply(first_token_s=0.3),
}


@pytest.fixture
def keys(monkeypatch):
    monkeypatch.setenv("API_KEYS", json.dumps({"svc": CANARY}))
    monkeypatch.delenv("WAYPOST_API_KEYS_FILE", raising=False)
    secrets.key_ring.cache_clear()
    yield
    secrets.key_ring.cache_clear()


def shown(error: BaseException) -> str:
    """Return all that an error can show: text, repr, arguments, its chain and the traceback."""
    parts = []
    link: BaseException | None = error
    while link is not None:
        parts += [str(link), repr(link), repr(link.args), repr(vars(link))]
        link = link.__cause__ or link.__context__
    parts.append("".join(traceback.format_exception(error)))
    if isinstance(error, EngineError):
        parts.append(repr(error.to_dict()))
    return "\n".join(parts)


async def outcome(engine, request: GenerateRequest) -> str:
    """Run a request; return everything it shows, repr of the engine included."""
    parts = []
    try:
        await engine.start()
        parts = [repr(chunk.to_dict()) async for chunk in engine.generate(request)]
    except WaypostError as error:
        parts.append(shown(error))
    finally:
        await engine.close()
    return "\n".join(
        [*parts, repr(engine), repr(vars(engine)), repr(getattr(engine, "config", ""))]
    )


def assert_hidden(text: str) -> None:
    for spelling in (CANARY, json.dumps(CANARY)[1:-1], "4b1f%2F93", "4b1f/93"):
        assert spelling not in text


SENDING = {
    "openai": (FakeUpstream, "Authorization", f"Bearer {CANARY}"),
    "anthropic": (FakeAnthropic, "x-api-key", CANARY),
}
"""Engine -> its upstream, and the header with the key."""


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("kind", REPLIES)
@pytest.mark.parametrize("name", SENDING)
async def test_an_engine_never_shows_its_key(keys, caplog, name, kind, stream):
    caplog.set_level(logging.DEBUG)
    server, header, expected = SENDING[name]
    async with server() as upstream:
        upstream.script(REPLIES[kind])
        config = {
            "base_url": upstream.url,
            "model": "m",
            "service": "svc",
            "stream": stream,
            "max_retries": 0,
            "first_token_timeout_s": 0.1 if kind == "slow" else 60,
        }
        request = GenerateRequest("r", messages=[{"role": "user", "content": "one two three"}])
        text = await outcome(make_engine(name, config), request)
        sent = upstream.requests[0].headers[header]
    assert sent == expected  # it was used
    assert_hidden(text + caplog.text)
    if kind == "bad request":
        assert HIDDEN in text  # the upstream's message is kept, without the key


@pytest.mark.parametrize("name", SENDING)
async def test_an_engine_never_shows_its_key_when_nobody_listens(keys, caplog, name):
    caplog.set_level(logging.DEBUG)
    config = {
        "base_url": "http://127.0.0.1:9/v1",
        "model": "m",
        "service": "svc",
        "retry_base_s": 0.001,
    }
    text = await outcome(make_engine(name, config), GenerateRequest("r", prompt="hi"))
    assert "EngineConnectionError" in text
    assert_hidden(text + caplog.text)


def others_by_tier():
    """Mark the one that runs a model, even a tiny one, for the engine tier."""
    names = [name for name in engine_names() if name not in SENDING]
    real = {"transformers": [pytest.mark.engine]}
    return [pytest.param(name, marks=real.get(name, [])) for name in names]


@pytest.mark.parametrize("name", others_by_tier())
async def test_other_engines_have_no_key_to_show(keys, caplog, tmp_path, name):
    caplog.set_level(logging.DEBUG)
    assert secrets.key_ring().count("svc") == 1
    file = tmp_path / "answers.jsonl"
    file.write_text('{"query": "hello", "response": "answer"}')
    weights = write_tiny_model(tmp_path / "m") if name == "transformers" else tmp_path / "m"
    configs = {
        "echo": [{}, *({"fail_with": kind} for kind in ("timeout", "429", "500", "mid_stream"))],
        "replay": [{"data": str(file)}, {"data": str(tmp_path / "none.jsonl")}],
        "transformers": [
            {"model": str(weights), "max_output_tokens": 3},
            {"model": str(weights), "context_length": 5},
            {"model": str(tmp_path)},
        ],
        "vllm": [{"model": str(tmp_path)}],  # not installed, or no model: it says so
    }
    request = GenerateRequest("r", messages=[{"role": "user", "content": "hello"}])
    for config in configs[name]:
        assert_hidden(await outcome(make_engine(name, config), request) + caplog.text)


def test_a_ring_shows_no_key_anywhere():
    ring = KeyRing({"svc": [CANARY]})
    key = ring.take("svc")
    assert_hidden(f"{ring!r} {vars(ring)!r} {key!r} {key} {[key]} { {'k': key} }")
