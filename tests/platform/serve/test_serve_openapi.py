"""The served document says what the gateway does."""

from __future__ import annotations

import jsonschema
import pytest

from support.gateway import chat, running
from waypost.serve.gateway.schemas import PASSED_ON

PATHS = {"chat": "/v1/chat/completions", "text": "/v1/completions", "route": "/v1/route"}

VALID = [
    ("chat", chat("x")),
    ("chat", chat("x", model="tiny", temperature=0, n=2, stop=["a"], max_tokens=3, seed=1)),
    ("chat", {"messages": [{"role": "assistant"}, {"role": "user", "content": "x", "name": "n"}]}),
    ("chat", chat("x", waypost={"lambda": 0.5, "allowed_models": ["cook"], "user_id": "u"})),
    ("chat", chat("x", tools=[{"type": "function", "function": {"name": "f"}}], logprobs=False)),
    ("chat", chat("x", logprobs=True, top_logprobs=20, tools=[], user="")),
    ("text", {"prompt": "x"}),
    ("text", {"prompt": ["x", "y"], "echo": False, "suffix": None}),
    ("route", {"query": "x"}),
    ("route", chat("x")),
]
WRONG = [
    ("chat", {}),
    ("chat", chat("x", model="other")),
    ("chat", chat("x", tools=[{"type": "custom"}])),
    ("chat", chat("x", n=99)),
    ("chat", chat("x", typo=1)),
    ("chat", chat("x", logprobs=1)),
    ("chat", chat("x", logprobs=True, top_logprobs=21)),
    ("chat", {"messages": [{"role": "user"}]}),
    ("chat", {"messages": [{"role": "user", "content": None}]}),
    ("chat", chat("x", waypost={"allowed_models": ["other"]})),
    ("text", {}),
    ("text", {"prompt": [1]}),
    ("route", {}),
    ("route", {"query": "x", **chat("x")}),
]


@pytest.fixture
async def up(artifact):
    async with running(artifact) as found:
        yield found


async def test_the_document_and_the_gateway_agree_on_bodies(up):
    document = (await up.client.get("/openapi.json")).json()
    for bodies, accepted in ((VALID, True), (WRONG, False)):
        for kind, body in bodies:
            operation = document["paths"][PATHS[kind]]["post"]
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            whole = {**schema, "components": document["components"]}
            validator = jsonschema.Draft202012Validator(whole)
            assert validator.is_valid(body) is accepted, body
            assert ((await up.client.post(PATHS[kind], body)).status == 200) is accepted, body


async def test_every_path_of_the_document_is_there_and_the_other_way_round(up):
    document = (await up.client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            reply = await up.client.open(method.upper(), path.format(model="cook"), {}).end()
            assert reply.status not in {405, 500}
            assert str(reply.status) in operation["responses"]
    missing = (await up.client.get("/nothing")).json()["error"]["message"]
    assert all(path in missing for path in document["paths"])


def test_fields_that_are_only_passed_on_are_none_that_is_read():
    assert {"response_format", "logit_bias", "user", "parallel_tool_calls"} <= PASSED_ON
    assert not {"messages", "model", "stream", "n", "tools", "stop", "waypost"} & PASSED_ON
