"""Results of other projects, in the layouts they publish (made-up questions)."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.contracts.errors import ConfigError, SchemaError
from waypost.contracts.routing_data import read_routing_data
from waypost.contracts.tables import read_routing_table, split_path
from waypost.pipelines.data.results import import_results

ROUTERBENCH = """sample_id,prompt,eval_name,small,small|model_response,small|total_cost,\
big/one,big/one|model_response,big/one|total_cost,oracle_model_to_route_to
arc.1,"['Which is wet?', 'A. rain']",arc,0.0,B,1e-05,1.0,A,0.002,big/one
arc.2,Name a metal.,arc,1.0,iron,,0.5,"lead, ""soft"" one",0.001,small
"""
ROUTELLM = """prompt,mixtral-8x7b,gpt-4,mixtral-8x7b_response,gpt-4_response
"Two and two?
A. 3
B. 4",True,False,B,A
Six less one?,False,True,,5
"""


def arena(index, **changes):
    judged = {"ground_truth": "D", "score": 1.0, "metric": "mcq", "inference_cost": 0.0001}
    line = {
        "global_index": index,
        "question": f"Question {index}?",
        "llm_selected": "vendor/a",
        "generated_answer": "boxed D",
        "token_usage": {"input_tokens": 92, "output_tokens": 55, "total_tokens": 147},
        "success": True,
        "error": None,
        "evaluation_result": judged,
    }
    return json.dumps({**line, **changes}) + "\n"


def read(target, split="train"):
    return read_routing_table(split_path(target, split)).to_pylist()


def test_routerbench(tmp_path):
    (tmp_path / "rb.csv").write_text(ROUTERBENCH)
    found = import_results([tmp_path / "rb.csv"], tmp_path / "new", test=0.0)
    assert found["formats"] == {"RouterBench": 1}
    assert found["llms"] == ["small", "big/one"]
    rows = read(tmp_path / "new")
    assert [(r["query_id"], r["model_name"], r["performance"]) for r in rows] == [
        ("arc.1", "small", 0.0), ("arc.1", "big/one", 1.0),
        ("arc.2", "small", 1.0), ("arc.2", "big/one", 0.5),
    ]  # fmt: skip
    assert rows[0]["query"] == "Which is wet?\nA. rain"
    assert [r["cost_usd"] for r in rows] == [1e-05, 0.002, None, 0.001]
    assert rows[3]["response"] == 'lead, "soft" one'
    assert {r["task_name"] for r in rows} == {"arc"}


def test_routerbench_as_parquet_and_without_costs(tmp_path):
    table = {"prompt": ["One?", "Two?"], "eval_name": ["a", "b"], "m": [1.0, None], "n": [0.0, 1.0]}
    pq.write_table(pa.table(table), tmp_path / "rb.parquet")
    found = import_results([tmp_path / "rb.parquet"], tmp_path / "new", test=0.0)
    assert (found["llms"], found["unscored"]) == (["m", "n"], 1)
    data = read_routing_data(tmp_path / "new")
    assert len(set(data.query_ids)) == 2


def test_routellm_and_repeated_questions(tmp_path):
    folder = tmp_path / "responses"
    folder.mkdir()
    (folder / "mmlu_anatomy.csv").write_text(ROUTELLM)
    (folder / "gsm8k_responses.csv").write_text(ROUTELLM.replace("Six", "Nine"))
    found = import_results([folder], tmp_path / "new", test=0.0)
    assert (found["formats"], found["repeated"]) == ({"RouteLLM": 2}, 2)
    rows = read(tmp_path / "new")
    assert {r["task_name"] for r in rows} == {"gsm8k", "mmlu_anatomy"}
    by_cell = {(r["query"][:3], r["model_name"]): r for r in rows}
    assert by_cell["Two", "mixtral-8x7b"]["performance"] == 1
    assert by_cell["Two", "gpt-4"]["response"] == "A"
    assert by_cell["Six", "mixtral-8x7b"]["response"] is None


def test_routerarena(tmp_path):
    lines = arena("ArcMMLU_12") + arena(
        "AIME_1", evaluation_result=None, success=False, error="timeout", generated_answer=None
    )
    (tmp_path / "vendor_a.jsonl").write_text(lines)
    found = import_results([tmp_path / "vendor_a.jsonl"], tmp_path / "new", test=0.0)
    assert (found["formats"], found["unscored"]) == ({"RouterArena": 1}, 1)
    first, second = read(tmp_path / "new")
    assert (first["query_id"], first["task_name"], first["ground_truth"]) == (
        "ArcMMLU_12", "ArcMMLU", "D",
    )  # fmt: skip
    assert (first["performance"], first["cost_usd"]) == (1.0, 0.0001)
    assert (first["input_tokens"], first["output_tokens"]) == (92, 55)
    assert (second["performance"], second["error"]) == (None, "timeout")


def test_questions_are_split_by_task(tmp_path):
    words = [
        "amber",
        "birch",
        "cedar",
        "delta",
        "ember",
        "fjord",
        "grove",
        "haven",
        "islet",
        "jetty",
    ]
    lines = [arena(f"T{i % 2}_{i}", question=f"{w} {w}s {w}ing?") for i, w in enumerate(words)]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    found = import_results([tmp_path / "a.jsonl"], tmp_path / "new", test=0.4)
    assert found["splits"] == {
        "train": {"questions": 6, "rows": 6},
        "test": {"questions": 4, "rows": 4},
    }
    tested = sorted(r["task_name"] for r in read(tmp_path / "new", "test"))
    assert tested == ["T0", "T0", "T1", "T1"]


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.csv", "prompt,eval_name,m\nOne?,x,7\n", "row 1: m is 7; expected 0 to 1"),
        ("a.csv", "prompt,eval_name,m\nOne?,x,good\n", "row 1: m is 'good'; expected a number"),
        ("a.csv", "prompt,eval_name,m\n,x,1\n", "row 1: the question is empty"),
        ("a.csv", "question;answer\nOne?;x\n", "is no known format of results; expected columns"),
        ("a.csv", "prompt,eval_name,m\nOne?,x,\n", "none of 1 rows has a score"),
        ("a.csv", "prompt,eval_name,m\n", "holds no row"),
        ("a.jsonl", "{]", "line 1: is not JSON"),
        ("a.jsonl", arena("A_1", llm_selected=None), "row 1: the LLM has no name"),
        ("a.jsonl", arena("A_1", token_usage=3), "row 1: token_usage is int; expected an object"),
        ("a.parquet", "no parquet", "cannot be read"),
        ("a.pkl", "x", "is a pickle, which can run code"),
        ("a.txt", "x", "is no file of results"),
    ],
)
def test_wrong_files_are_named(tmp_path, name, text, problem):
    (tmp_path / name).write_text(text)
    with pytest.raises(SchemaError, match=r"a\.") as caught:
        import_results([tmp_path / name], tmp_path / "new")
    assert problem in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_an_empty_folder(tmp_path):
    with pytest.raises(ConfigError, match="contains no file of results"):
        import_results([tmp_path], tmp_path / "new")


def test_command(tmp_path):
    (tmp_path / "rb.csv").write_text(ROUTERBENCH)
    words = ["data", "import", str(tmp_path / "rb.csv"), str(tmp_path / "new"), "--test", "0"]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 0, result.output
    assert "2 LLMs; 1 files of RouterBench" in result.output
