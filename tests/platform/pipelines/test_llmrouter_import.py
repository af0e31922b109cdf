import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.config import load_config
from waypost.contracts.routing_data import read_routing_data
from waypost.contracts.tables import split_path
from waypost.pipelines.train import TrainConfig

LINE = {
    "task_name": "arc",
    "query": "Which is a gas?",
    "ground_truth": "B",
    "metric": "em_mc",
    "choices": "{'text': ['iron', \"it's neon\"], 'labels': ['A', 'B']}",
    "task_id": None,
    "model_name": "a",
    "response": "(B)",
    "token_num": 12,
    "input_tokens": 10,
    "output_tokens": 2,
    "response_time": 0.5,
    "api_key_used": "secret-key",
    "performance": 1.0,
    "embedding_id": 0,
    "user_id": None,
    "fig_id": None,
}
LLMS = {
    "a": {"size": "7B", "feature": "small", "input_price": 0.2, "output_price": 0.2},
    "b": {"size": "70B", "feature": "large", "input_price": 0.9, "output_price": 0.9},
}
CONFIG = """
data_path:
  routing_data_train: 'data/routing/routing_train.jsonl'
  llm_data: 'data/llm.json'
model_path: {ini_model_path: '', save_model_path: 'saved_models/knnrouter/knnrouter.pkl'}
metric: {weights: {performance: 1, cost: 0}}
hparam: {n_neighbors: 7, weights: distance, algorithm: auto, n_jobs: -1, seed: 3}
api_key: secret-key
"""


def lines(*changes, **common):
    return [{**LINE, **common, **change} for change in changes]


def write(folder, train, llms=LLMS, **more):
    (folder / "data" / "routing").mkdir(parents=True)
    files = {"routing_train": train, **more}
    for name, rows in files.items():
        text = rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows)) + "\n"
        (folder / "data" / "routing" / f"{name}.jsonl").write_text(text)
    (folder / "data" / "llm.json").write_text(json.dumps(llms))
    return folder


def run(source, target, *options):
    arguments = ["data", "import-llmrouter", str(source), str(target), *options]
    return CliRunner().invoke(command, arguments)


def imported(tmp_path, train, **more):
    source = write(tmp_path / "source", train, **more)
    result = run(source, tmp_path / "new", "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), read_routing_data(tmp_path / "new")


def test_a_line_by_hand(tmp_path):
    found, data = imported(tmp_path, lines({}, {"model_name": "b", "performance": 0.25}))
    assert data.query_ids == ("0",)
    assert data.queries == ("Which is a gas?\nA. iron\nB. it's neon",)
    assert data.task_names == ("arc",)
    assert data.names == ("a", "b")
    assert data.llms[1].input_price == 0.9
    assert data.quality.tolist() == [[1.0, 0.25]]
    assert data.input_tokens.tolist() == [[10, 10]]
    assert data.latency_s.tolist() == [[0.5, 0.5]]
    assert np.isnan(data.cost_usd).all()
    assert found["unknown_fields"] == ["api_key_used"]
    table = pq.read_table(split_path(tmp_path / "new", "train"))
    assert table["ground_truth"].to_pylist() == ["B", "B"]
    assert json.loads(table["choices"][0].as_py())["labels"] == ["A", "B"]
    assert "secret" not in (tmp_path / "new" / "routing_train.parquet").read_bytes().decode(
        "latin1"
    )


def test_a_failed_call_was_not_measured(tmp_path):
    failed = {"model_name": "b", "response": "API Error: busy", "performance": 0.3, "token_num": 0}
    answered = {"query": "two", "response": "ERROR: is what it prints", "performance": 1}
    found, data = imported(tmp_path, lines({}, failed, answered, {**answered, "model_name": "b"}))
    np.testing.assert_array_equal(data.quality, [[1, np.nan], [1, 1]])
    assert found["splits"]["train"]["failed_calls"] == 1


def test_null_and_nan_are_not_measured(tmp_path):
    absent = {"query": "two", "performance": float("nan"), "input_tokens": float("nan")}
    found, data = imported(tmp_path, lines({}, absent, {**absent, "model_name": "b"}))
    assert np.isnan(data.quality[1]).all()
    assert found["splits"]["train"]["queries"] == 2


def test_asked_twice(tmp_path):
    rows = lines({}, {}, {"performance": 0}, {"task_name": "other"})
    found, data = imported(tmp_path, rows)
    # The same line once; another outcome is a second asking; another task another question.
    assert data.query_ids == ("0", "0#2", "1")
    assert data.quality[:, 0].tolist() == [1, 0, 1]
    assert found["splits"]["train"]["repeated"] == 1
    assert data.groups.tolist() == [0, 0, 0]


def test_a_question_has_one_id_in_all_splits(tmp_path):
    rows = lines({"query": "other"}, {})
    _, data = imported(tmp_path, lines({}), routing_test=rows)
    test = read_routing_data(tmp_path / "new", "test")
    assert (data.query_ids, test.query_ids) == (("0",), ("1", "0"))


def test_ids_that_the_lines_have_are_kept(tmp_path):
    _, data = imported(tmp_path, lines({"query_id": "x7"}))
    assert data.query_ids == ("x7",)


def test_a_config_names_its_files_and_becomes_ours(tmp_path):
    source = write(tmp_path / "peer", lines({}))
    (source / "configs").mkdir()
    (source / "configs" / "knnrouter.yaml").write_text(CONFIG)
    result = run(source / "configs" / "knnrouter.yaml", tmp_path / "new")
    assert result.exit_code == 0, result.output
    unmapped = "metric.weights.performance, metric.weights.cost, hparam.algorithm, hparam.n_jobs"
    assert f"without a counterpart: {unmapped}, api_key" in result.stdout
    path = tmp_path / "new" / "train-knnrouter.yaml"
    config = load_config(TrainConfig, path)
    assert (config.router, config.seed) == ("knnrouter", 3)
    assert config.parameters == {"k": 7, "weights": "softmax"}
    assert "#   hparam.n_jobs" in path.read_text()
    assert "secret" not in path.read_text() + result.stdout


def test_configs_in_a_folder(tmp_path):
    source = write(tmp_path / "peer", lines({}))
    (source / "knnrouter.yaml").write_text(CONFIG)
    (source / "weird.yaml").write_text("hparam: {x: 1}")
    (source / "unrelated.yaml").write_text("services: {}")
    found = json.loads(run(source, tmp_path / "new", "--json").stdout)
    assert [one["router"] for one in found["configs"]] == ["knnrouter", None]
    assert [one.rsplit("/", 1)[-1] for one in found["ignored"]] == ["unrelated.yaml"]


@pytest.mark.parametrize("form", ["dict", "tensor"])
def test_embeddings_are_kept(tmp_path, form):
    import torch

    without = {"query": "three", "embedding_id": None}
    source = write(tmp_path / "peer", lines({}, {"query": "two", "embedding_id": 1}, without))
    rows = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    torch.save(dict(enumerate(rows)) if form == "dict" else rows, source / "query_embeddings.pt")
    result = run(source, tmp_path / "new")
    assert result.exit_code == 0, result.output
    assert "2 query embeddings kept" in result.stdout
    assert (tmp_path / "new" / "query_embeddings-llmrouter.safetensors").is_file()


def bad_pt(content):
    def make(source):
        import torch

        torch.save(content(torch), source / "query_embeddings.pt")

    return make


def not_tensors(source):
    import pickle

    (source / "query_embeddings.pt").write_bytes(pickle.dumps({0: print}))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (not_tensors, "query_embeddings.pt: not readable as tensors"),
        (bad_pt(lambda t: {1: t.ones(2)}), "line 1: embedding_id 0 is not in"),
        (bad_pt(lambda t: {0: t.ones(2), 1: t.ones(3)}), "embedding_id 1 is 3 wide; others 2"),
        (bad_pt(lambda t: {0: t.tensor([float("nan")])}), "embedding_id 0 is not finite"),
        (bad_pt(lambda t: {"0": t.ones(2)}), "expected embedding ids"),
        (bad_pt(lambda t: t.ones(3)), "expected a matrix or a dict"),
    ],
)
def test_bad_embeddings(tmp_path, make, problem):
    source = write(tmp_path / "source", lines({}))
    make(source)
    refused(tmp_path, source, 1, problem)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("{", "line 2: not JSON"),
        ('"text"', "line 2: expected an object"),
        ("\\ud800", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ('{"query": "x", "performance": 1}', "line 2: lacks model_name"),
        (json.dumps({**LINE, "query": 3}), "line 2: query is int; expected a text"),
        (json.dumps({**LINE, "query": "\ud800"}), "line 2: query has half of a surrogate pair"),
        (json.dumps({**LINE, "performance": "1"}), "line 2: performance is str"),
        (json.dumps({**LINE, "performance": 1.5}), "line 2: performance is 1.5; expected 0 to 1"),
        (json.dumps({**LINE, "performance": float("inf")}), "line 2: performance is inf"),
        (json.dumps({**LINE, "input_tokens": -1}), "line 2: input_tokens is -1"),
        (json.dumps({**LINE, "output_tokens": 1.5}), "line 2: output_tokens is 1.5"),
        (json.dumps({**LINE, "response_time": "fast"}), "line 2: response_time is str"),
        (json.dumps({**LINE, "model_name": "ghost"}), "line 2: model_name ghost is not in"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, problem):
    source = write(tmp_path / "source", f"{json.dumps(LINE)}\n{line}\n")
    refused(tmp_path, source, 1, f"routing_train.jsonl: {problem}")


def test_a_line_that_is_not_utf8(tmp_path):
    source = write(tmp_path / "source", lines({}))
    with (source / "data" / "routing" / "routing_train.jsonl").open("ab") as file:
        file.write(b'\n{"query": "\xff"}')
    refused(tmp_path, source, 1, "line 3: not UTF-8")


def test_nothing_measured(tmp_path):
    source = write(tmp_path / "source", lines({"performance": None}))
    refused(tmp_path, source, 1, "holds no line with a performance")


def test_missing_and_doubled_files_are_all_named(tmp_path):
    source = tmp_path / "source"
    for name in ("a", "b"):
        (source / name).mkdir(parents=True)
        (source / name / "routing_train.jsonl").write_text("")
    refused(tmp_path, source, 2, "holds more than one routing JSONL", "holds no LLM JSON")


def test_a_config_whose_files_are_not_there(tmp_path):
    source = tmp_path / "knnrouter.yaml"
    source.write_text(CONFIG)
    for problem in ("data_path.routing_data_train: no such file", "data_path.llm_data: no such"):
        assert problem in run(source, tmp_path / "new").output
    source.write_text("hparam: {k: 1}")
    assert "data_path: expected the paths" in run(source, tmp_path / "new").output


def refused(tmp_path, source, code, *problems):
    result = run(source, tmp_path / "new")
    assert result.exit_code == code, result.output
    for problem in problems:
        assert problem in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
