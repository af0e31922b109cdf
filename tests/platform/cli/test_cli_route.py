import json

import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.loading import save_router
from waypost.testing.fitted_routers import fitted
from waypost.testing.synthetic import planted

COOKING, ALGEBRA = planted(2, seed=3).queries


@pytest.fixture(scope="module")
def artifact(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts") / "knn"
    save_router(fitted("knnrouter"), folder, planted(160))
    return folder


def route(artifact, *arguments, lines=None):
    return CliRunner().invoke(
        command,
        ["route", "--artifact", str(artifact), *arguments],
        input=None if lines is None else "\n".join(lines),
    )


def test_one_query_as_a_table(artifact):
    result = route(artifact, "--query", ALGEBRA)
    assert result.exit_code == 0, result.output
    first, header, best, *_ = result.stdout.splitlines()
    assert first.startswith("prover: highest predicted quality")
    assert header.split() == ["model", "quality", "cost", "USD", "confidence"]
    assert best.split()[0] == "prover"


def test_one_query_as_json(artifact):
    found = json.loads(route(artifact, "--query", COOKING, "--json").stdout)
    assert found["model_name"] == found["ranking"][0] == "cook"
    assert found["router"] == "knnrouter"


def test_lambda_allowed_models_and_budget(artifact):
    def model(*options):
        return json.loads(route(artifact, "--query", ALGEBRA, "--json", *options).stdout)[
            "model_name"
        ]

    assert model() == "prover"
    assert model("--lambda", "inf") == "tiny"
    assert model("--allowed", "cook", "--allowed", "tiny") == "tiny"
    assert model("--max-cost-usd", "0.00001") == "tiny"


def test_an_infinite_lambda_is_still_json(artifact):
    result = route(artifact, "--query", COOKING, "--json", "--lambda", "inf")
    assert json.loads(result.stdout)["lambda"] == "inf"


LINES = [
    json.dumps(COOKING),
    "",
    json.dumps({"query": ALGEBRA, "query_id": 7}),
    json.dumps({"query": ALGEBRA, "allowed_models": ["tiny"]}),
]


def test_lines_in_lines_out(artifact):
    result = route(artifact, "--input", "-", "--json", lines=LINES)
    assert result.exit_code == 0, result.output
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert [row["model_name"] for row in rows] == ["cook", "prover", "tiny"]
    assert [row.get("query_id") for row in rows] == [None, 7, None]


def test_lines_to_a_file(artifact, tmp_path):
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(LINES))
    result = route(artifact, "--input", str(source), "--output", str(target))
    assert result.stdout == ""
    assert "wrote 3 decisions" in result.stderr
    assert len([json.loads(line) for line in target.read_text().splitlines()]) == 3


def test_lines_as_a_table(artifact):
    result = route(artifact, "--input", "-", lines=LINES)
    assert [line.split()[:2] for line in result.stdout.splitlines()[1:]] == [
        ["1", "cook"],
        ["2", "prover"],
        ["3", "tiny"],
    ]


def test_a_chat_is_routed_on_by_mode(artifact):
    chat = [{"role": "user", "content": COOKING}, {"role": "user", "content": "And for two?"}]
    chat.insert(1, {"role": "assistant", "content": "ok"})
    lines = [json.dumps({"messages": chat})]

    def row(*options):
        result = route(artifact, "--input", "-", "--json", *options, lines=lines)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    assert row()["model_name"] == "prover"
    found = row("--mode", "retrieval", "--top-k", "1")
    assert (found["model_name"], found["retrieved"]) == ("cook", {"turns": 1, "of": 1})
    assert row("--mode", "full_context")["model_name"] == "cook"
    assert route(artifact, "--query", COOKING, "--mode", "retrieval").exit_code == 0
    assert route(artifact, "--query", COOKING, "--mode", "all").exit_code == 2
    assert route(artifact, "--query", COOKING, "--top-k", "0").exit_code == 2


def test_every_wrong_line_is_named_and_none_quoted(artifact):
    lines = ["{secret", '"fine"', "7", '{"query": "secret", "lambda": -1}']
    result = route(artifact, "--input", "-", lines=lines)
    assert result.exit_code == 1
    assert "line 1: not JSON" in result.stderr
    assert "line 3: query: expected a text" in result.stderr
    assert "line 4: query: lambda" in result.stderr
    assert "secret" not in result.output


def test_a_query_without_a_possible_model_is_named(artifact):
    lines = ['"fine"', json.dumps({"query": "x", "max_cost_usd": 0})]
    result = route(artifact, "--input", "-", lines=lines)
    assert result.exit_code == 1
    assert "query 2: no allowed model fits max_cost_usd = 0" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "give either --query or --input"),
        (["--query", "x", "--input", "-"], 2, "give either --query or --input"),
        (["--query", "x", "--output", "y"], 2, "--output needs --input"),
        (["--query", ""], 2, "--query: empty; expected a text"),
        (["--query", " \n"], 2, "--query: empty; expected a text"),
        (["--query", "x", "--lambda", "-1"], 2, "--lambda"),
        (["--query", "x", "--allowed", "ghost"], 1, "does not know ghost"),
        (["--query", "x", "--max-cost-usd", "0"], 1, "max_cost_usd"),
    ],
)
def test_wrong_input(artifact, arguments, code, said):
    result = route(artifact, *arguments)
    assert result.exit_code == code
    assert said in result.output


def test_a_folder_that_is_no_artifact(tmp_path):
    result = route(tmp_path, "--query", "x")
    assert result.exit_code == 1
    assert "expected a folder written by `waypost train`" in result.stderr
