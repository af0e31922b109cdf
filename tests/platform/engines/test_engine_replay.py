from __future__ import annotations

import json

import pytest

from waypost.contracts.errors import ConfigError, EngineRequestError, SchemaError
from waypost.contracts.generation import GenerateRequest
from waypost.contracts.tables import split_path, write_routing_table
from waypost.engines import make_engine
from waypost.engines.base import collect


def ask(text: str, **fields) -> GenerateRequest:
    return GenerateRequest("r", messages=[{"role": "user", "content": text}], **fields)


@pytest.fixture
def folder(tmp_path):
    rows = {
        "query_id": ["1", "1", "2", "3"],
        "query": ["Capital of France?", "Capital of France?", "2+3?", "Who?"],
        "model_name": ["small", "large", "small", "small"],
        "response": ["Lyon, I think", "Paris", "5", None],
        "performance": [0.0, 1.0, 1.0, None],
        "input_tokens": [12, 13, 7, None],
        "output_tokens": [4, 1, None, None],
    }
    write_routing_table(split_path(tmp_path, "train"), rows)
    return tmp_path


async def started(**config):
    engine = make_engine("replay", config)
    await engine.start()
    return engine


async def test_gives_the_answer_of_its_model_with_the_recorded_counts(folder):
    engine = await started(data=str(folder), model="small")
    answer = await collect(engine, ask("  Capital of France?\n"))
    assert (answer.text, answer.finish_reason) == ("Lyon, I think", "stop")
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (12, 4)


async def test_counts_pieces_where_cut_or_not_recorded(folder):
    engine = await started(data=str(folder), model="small")
    cut = await collect(engine, ask("Capital of France?", max_tokens=2))
    assert (cut.text, cut.finish_reason, cut.usage.output_tokens) == ("Lyon, I", "length", 2)
    assert (await collect(engine, ask("2+3?"))).usage.output_tokens == 1


@pytest.mark.parametrize("query", ["Who?", "never asked"])
async def test_a_missing_record_is_refused_without_repeating_the_query(folder, query):
    engine = await started(data=str(folder), model="small")
    with pytest.raises(EngineRequestError, match="no answer of small") as caught:
        await collect(engine, ask(query))
    assert query not in str(caught.value)


async def test_a_folder_needs_the_name_of_a_model(folder):
    with pytest.raises(SchemaError, match="set `model`"):
        await started(data=str(folder))
    with pytest.raises(SchemaError, match="no recorded answer of huge"):
        await started(data=str(folder), model="huge")


async def test_a_folder_without_tables_is_named(tmp_path):
    with pytest.raises(SchemaError, match="routing_<split>"):
        await started(data=str(tmp_path), model="m")


async def test_jsonl_keeps_the_first_record_and_unusual_line_ends(tmp_path):
    file = tmp_path / "answers.jsonl"
    rows = [
        {"query": "q\u2028", "response": "first\u2028line", "model_name": "m"},
        {"query": "q", "response": "second"},
    ]
    text = "\n".join(json.dumps(r, ensure_ascii=False) for r in rows) + "\n"
    file.write_text(f"\ufeff{text}", "utf-8")
    engine = await started(data=str(file))
    assert (await collect(engine, ask("q"))).text == "first\u2028line"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("not json", "answers.jsonl:2 is not a JSON object"),
        ('{"response": "x"}', "answers.jsonl:2 is not a JSON object with `query`"),
        ('{"query": "x", "response": 3}', "answers.jsonl:2: `response`"),
        ('{"query": "x", "response": "y", "input_tokens": "3"}', "`input_tokens`"),
    ],
)
async def test_a_wrong_line_is_named(tmp_path, line, problem):
    file = tmp_path / "answers.jsonl"
    file.write_text('{"query": "q", "response": "r"}\n' + line)
    with pytest.raises(SchemaError, match=problem):
        await started(data=str(file))


async def test_a_missing_file_is_a_schema_error(tmp_path):
    with pytest.raises(SchemaError, match="cannot be read"):
        await started(data=str(tmp_path / "none.jsonl"))


def test_data_is_required():
    with pytest.raises(ConfigError, match="data"):
        make_engine("replay", {})
