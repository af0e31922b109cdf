"""The masks that answers of vLLM 0.6.3 get, without vLLM: it calls a copy for each token."""

from __future__ import annotations

import json
from dataclasses import replace

import jsonschema
import pytest
import torch

from waypost.contracts.errors import EngineRequestError
from waypost.engines import _vllm_guided
from waypost.engines._vllm_guided import Formats
from waypost.testing.tiny_model import write_tiny_model

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 9}, "age": {"enum": [1, 20, None]}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def formats(tiny) -> Formats:
    return Formats(tiny, "m")


@pytest.fixture(scope="module")
def text(tiny):
    from waypost.engines._lm_prompt import ModelText

    return ModelText.of_folder(tiny, "m")


def draw(constraints, text, *, before_each=lambda: None, most=120) -> list[list[int]]:
    """Draw answers in turns, a token each, from random logits, as a batch does."""
    randomness = torch.Generator().manual_seed(3)
    answers: list[list[int]] = [[] for _ in constraints]
    for _ in range(most):
        for constraint, answer in zip(constraints, answers, strict=True):
            if answer and answer[-1] in text.end_ids:
                continue
            before_each()
            logits = torch.randn(text.width, generator=randomness)
            copy = replace(constraint)  # what comes out of vLLM's queue
            answer.append(int(copy(tuple(answer), logits).argmax()))
    return answers


def test_answers_of_a_batch_follow_their_schemas(formats, text):
    schemas = [SCHEMA, {"enum": ["yes", "no"]}, SCHEMA]
    answers = draw([formats.constraint(schema) for schema in schemas], text)
    assert answers[0] != answers[2]
    for schema, answer in zip(schemas, answers, strict=True):
        assert answer[-1] in text.end_ids
        jsonschema.validate(json.loads(text.text(answer[:-1])), schema)


def test_a_parser_that_a_process_keeps_no_more_is_made_again(formats, text):
    (kept,) = draw([formats.constraint(SCHEMA)], text)
    (again,) = draw(
        [formats.constraint(SCHEMA)], text, before_each=_vllm_guided._answer.cache_clear
    )
    assert again == kept


def test_an_answer_that_is_begun_again_gets_the_masks_of_its_beginning(formats, text):
    constraint = formats.constraint(SCHEMA)
    (answer,) = draw([constraint], text)
    logits = torch.zeros(text.width)
    fresh = formats.constraint(SCHEMA)(answer[:3], logits)
    assert torch.equal(constraint(answer[:3], logits), fresh)
    assert torch.isinf(fresh).any()
    assert torch.isfinite(fresh).any()


def test_where_no_token_can_follow_only_an_end_may_and_it_is_seen(formats, text):
    no_json = text._text.encode("no JSON").ids
    logits = formats.constraint(SCHEMA)(no_json, torch.zeros(text.width))
    assert set(torch.isfinite(logits).nonzero().flatten().tolist()) == set(text.end_ids)
    guided = formats.follow(SCHEMA)
    assert not guided.take(*text.end_ids)


def test_an_answer_is_seen_to_follow_its_schema_or_not(formats, text):
    guided = formats.follow({"enum": ["yes"]})
    *start, quote = text._text.encode('"yes"').ids
    assert all(guided.take(token) for token in start)
    assert not guided.complete
    assert guided.take(quote)
    assert guided.complete
    assert not formats.follow({"enum": ["yes"]}).take(quote, quote)


def test_a_schema_that_cannot_be_kept_is_refused_before_vllm_sees_it(formats):
    with pytest.raises(EngineRequestError, match="Unimplemented") as caught:
        formats.follow({"not": {"type": "string"}})
    assert (caught.value.status, caught.value.retryable) == (400, True)
