"""Answers of local engines that follow a format, beside answers that need not."""

from __future__ import annotations

import asyncio
import json

import jsonschema
import numpy as np
import pytest

from waypost.contracts.errors import EngineRequestError, WeightsError
from waypost.contracts.generation import GenerateRequest
from waypost.engines import make_engine
from waypost.engines._lm_guided import Guide, asked_schema
from waypost.engines.base import collect
from waypost.testing.tiny_model import write_tiny_model

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3},
        "home": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/place"}]},
    },
    "required": ["name", "age", "tags", "home"],
    "additionalProperties": False,
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"city": {"const": "Oslo"}, "open": {"type": "boolean"}},
            "required": ["city", "open"],
            "additionalProperties": False,
        }
    },
}
CHOICE = {"enum": ["yes", "no", 7, None]}


def form(schema) -> dict:
    return {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}


def ask(number=0, form=None, **fields) -> GenerateRequest:
    extra = {} if form is None else {"response_format": form}
    messages = [{"role": "user", "content": f"question {number}"}]
    plain = {"temperature": 1.0, "seed": number, "max_tokens": 200}
    return GenerateRequest(f"r{number}", messages=messages, extra=extra, **plain | fields)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
async def engine(tiny):
    config = {"model": str(tiny), "device": "cpu", "dtype": "float32", "threads": 1, "nice": 0}
    found = make_engine("transformers", config | {"response_format": "enforce"})
    await found.start()
    yield found
    await found.close()


async def test_every_answer_of_a_batch_follows_its_schema(engine):
    asked = [PERSON, CHOICE, None, PERSON, None, {"type": "integer", "minimum": 3, "maximum": 9}]
    requests = [
        ask(i, form(schema), max_tokens=150) if schema else ask(i, max_tokens=150, temperature=0.0)
        for i, schema in enumerate(asked)
    ]
    answers = await asyncio.gather(*(collect(engine, request) for request in requests))
    for schema, answer in zip(asked, answers, strict=True):
        if schema is None:
            assert (answer.finish_reason, answer.usage.output_tokens) == ("length", 150)
        else:
            assert answer.finish_reason == "stop"
            jsonschema.validate(json.loads(answer.text), schema)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 2.0])
async def test_at_every_temperature_and_seed(engine, temperature):
    requests = [ask(i, form(PERSON), temperature=temperature, top_p=0.9) for i in range(4)]
    answers = await asyncio.gather(*(collect(engine, request) for request in requests))
    for answer in answers:
        jsonschema.validate(json.loads(answer.text), PERSON)


async def test_a_free_answer_is_the_same_beside_a_guided_one(engine):
    alone = await collect(engine, ask(1, max_tokens=40))
    free, _ = await asyncio.gather(
        collect(engine, ask(1, max_tokens=40)), collect(engine, ask(2, form(PERSON)))
    )
    assert free.text == alone.text
    # the same prompt again: its kept logits are not those that the schema left
    await collect(engine, ask(1, form(CHOICE)))
    assert (await collect(engine, ask(1, max_tokens=40))).text == alone.text


async def test_a_stream_comes_in_pieces(engine):
    chunks = [chunk async for chunk in engine.generate(ask(3, form(PERSON)))]
    texts = [chunk.text for chunk in chunks if chunk.text]
    assert len(texts) > 20
    jsonschema.validate(json.loads("".join(texts)), PERSON)


async def test_an_object_of_any_form(engine):
    answers = [await collect(engine, ask(i, {"type": "json_object"})) for i in range(3)]
    for answer in answers:
        assert answer.text.startswith("{")
        if answer.finish_reason == "stop":
            assert isinstance(json.loads(answer.text), dict)


async def test_a_schema_beside_json_object_is_followed(engine):
    answer = await collect(engine, ask(1, {"type": "json_object", "schema": PERSON}))
    jsonschema.validate(json.loads(answer.text), PERSON)


async def test_an_answer_that_the_limit_cuts_off_says_so(engine):
    answer = await collect(engine, ask(1, form(PERSON), max_tokens=5))
    assert (answer.finish_reason, answer.usage.output_tokens) == ("length", 5)
    assert answer.text.startswith('{"nam')


@pytest.mark.parametrize(
    ("wrong", "told", "another_may"),
    [
        (
            {"type": "yaml"},
            "response_format.type: expected text, json_object or json_schema",
            False,
        ),
        ("json", "response_format.type: expected", False),
        ({"type": "json_schema"}, "response_format.json_schema: expected an object", False),
        (form("x"), "response_format.json_schema.schema: expected a JSON schema", False),
        (form({"type": "nonsense"}), "response_format.json_schema.schema: Invalid type", False),
        (form({"type": "string", "pattern": "(secret"}), "schema: regex parse error", False),
        (form({"$ref": "http://127.0.0.1:9/x"}), "does not fetch resources", False),
        (form({"not": {"type": "string"}}), 'Unimplemented keys: ["not"]', True),
    ],
    ids=str,
)
async def test_a_wrong_format_is_named(engine, wrong, told, another_may):
    with pytest.raises(EngineRequestError) as caught:
        await collect(engine, ask(1, wrong))
    assert told in str(caught.value)
    assert "secret" not in str(caught.value)
    assert (caught.value.status, caught.value.retryable) == (400, another_may)


async def test_text_is_no_format(engine):
    plain = await collect(engine, ask(1, max_tokens=20))
    assert (await collect(engine, ask(1, {"type": "text"}, max_tokens=20))).text == plain.text


@pytest.mark.parametrize("kind", [{"type": "json_object"}, form(PERSON)])
async def test_refused_by_default_with_what_to_set(kind):
    with pytest.raises(EngineRequestError, match="set response_format: enforce") as caught:
        asked_schema(ask(1, kind), "refuse", "m")
    assert (caught.value.status, caught.value.retryable) == (400, True)
    assert asked_schema(ask(1, {"type": "text"}), "refuse", "m") is None


async def test_logits_beyond_the_vocabulary_are_never_allowed(engine, tiny):
    tokenizer = (tiny / "tokenizer.json").read_text()
    guided = Guide(tokenizer, 300, {256}, "m").follow(CHOICE)
    allowed = np.flatnonzero(~guided.forbidden())
    letters = json.loads(tokenizer)["model"]["vocab"]
    assert {letters[x] for x in '"7n'} == set(allowed.tolist())


async def test_a_tokenizer_that_cannot_be_constrained_is_told():
    with pytest.raises(WeightsError, match="set response_format: refuse"):
        Guide("{}", 10, {1}, "m")
