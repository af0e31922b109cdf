"""Benchmarks of one's own: YAML and Python in plug-in folders, broken ones beside good ones."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from waypost.benchmarks.catalog import (
    custom_metric,
    find_benchmark,
    find_scorer,
    list_benchmarks,
)
from waypost.benchmarks.rows import load_questions
from waypost.cli import command
from waypost.config import settings
from waypost.contracts.errors import ConfigError, PluginError, RegistryError
from waypost.registry import list_routers, searching
from waypost.scorers import score

YAML = """
summary: Questions about our products
source: {path: questions.jsonl}
columns: {question: text, options: texts, answer: text, year: number}
prompt: |
  {question} ({year})
  {choices}
  Letter only.
choices: options
ground_truth: answer
metric: letter
max_tokens: 8
"""
ROW = {"question": "Which blinks? ", "options": ["lamp", "shoe"], "answer": "lamp", "year": 1999}
PYTHON = '''
"""Counts letters."""
from waypost.benchmarks.base import Benchmark, Fields, RowError, Source


class Counting(Benchmark):
    source = Source("", "test", path=None)
    columns = {"word": str}
    max_tokens = 4

    def question(self, row):
        if not row["word"]:
            raise RowError("word", "is empty")
        return Fields(f"How many letters has {row['word']}?", str(len(row["word"])))


def score(response, ground_truth, choices=None, query=None):
    """Half a point for being off by one."""
    off = abs(int(response) - int(ground_truth))
    return {0: 1.0, 1: 0.5}.get(off, 0.0)
'''


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    monkeypatch.setenv("WAYPOST_PLUGINS", str(tmp_path))
    settings.cache_clear()
    return tmp_path


def put(plugins: Path, name: str, **files: str) -> Path:
    folder = plugins / name
    folder.mkdir()
    for key, content in files.items():
        end = "py" if key in ("benchmark", "router") else "yaml"
        stem = "benchmark" if key == "yaml" else key
        (folder / f"{stem}.{end}").write_text(content)
    return folder


def test_a_yaml_task(plugins):
    folder = put(plugins, "products", yaml=YAML)
    (folder / "questions.jsonl").write_text(json.dumps(ROW) + "\n")
    benchmark = find_benchmark("products")
    (question,) = load_questions(benchmark).questions
    assert question.query == "Which blinks? (1999)\nA. lamp\nB. shoe\nLetter only."
    assert (question.ground_truth, question.metric, question.max_tokens) == ("A", "letter", 8)
    assert question.choices == [{"label": "A", "text": "lamp"}, {"label": "B", "text": "shoe"}]
    (entry,) = (one for one in list_benchmarks() if one.kind == "yaml")
    assert (entry.name, entry.summary) == ("products", "Questions about our products")
    assert entry.columns == ("question", "options", "answer", "year")


@pytest.mark.parametrize(
    ("truth", "letter"), [("b", "B"), ("B", "B"), ("shoe", "B"), (1, "B"), (0, "A")]
)
def test_the_right_option_by_letter_text_or_position(plugins, truth, letter):
    put(plugins, "products", yaml=YAML.replace("answer: text", "answer: number"))
    put(plugins, "texts", yaml=YAML)
    name = "products" if isinstance(truth, int) else "texts"
    assert find_benchmark(name).read(ROW | {"answer": truth}).ground_truth == letter


def test_options_in_columns_of_their_own_and_a_name_and_free_text(plugins):
    text = "name: pets\nsource: {dataset: me/pets, config: main, split: dev}\n"
    text += "columns: {q: text, a: text, b: text, right: text}\nprompt: '{q}\n\n  {choices}'\n"
    text += "choices: [a, b]\nground_truth: right\nmetric: letter\nmax_tokens: 4\nversion: 2\n"
    put(plugins, "folder", yaml=text)
    benchmark = find_benchmark("pets")
    question = benchmark.read({"q": "Which barks?", "a": "cat", "b": "dog", "right": "dog"})
    assert question.query == "Which barks?\nA. cat\nB. dog"
    assert (question.ground_truth, question.version) == ("B", "2")
    assert (benchmark.source.dataset, benchmark.source.configs) == ("me/pets", ("main",))
    put(plugins, "free", yaml=FREE)
    question = find_benchmark("free").read({"q": "a {b}", "golds": ["x", "y"]})
    assert (question.query, question.ground_truth) == ("Say {it}: a {b}", ["x", "y"])


FREE = """
source: {path: x.jsonl}
columns: {q: text, golds: texts}
prompt: 'Say {{it}}: {q}'
ground_truth: golds
metric: f1
max_tokens: 4
"""


def test_every_fault_of_a_yaml_at_once(plugins):
    wrong = FREE.replace("{q}'", "{golds} {nope} {q!r}'").replace("f1", "best")
    wrong = wrong.replace("ground_truth: golds", "ground_truth: gold\nchoices: q")
    wrong = wrong.replace("source: {path: x.jsonl}", "source: {}")
    path = put(plugins, "wrong", yaml=wrong) / "benchmark.yaml"
    with pytest.raises(PluginError):
        find_benchmark("wrong")
    (entry,) = (one for one in list_benchmarks() if one.kind == "yaml")
    found = [line.removeprefix(f"{path}: ") for line in entry.error.splitlines()]
    assert [line.partition(":")[0] for line in found] == [
        "source", "prompt", "prompt", "prompt", "ground_truth", "choices", "metric",
    ]  # fmt: skip
    assert "prompt: {nope} cannot be filled in; there are choices, q" in found
    assert "there are exact_match" in found[-1]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("max_tokens: 4", "max_token: 4", "max_token: unknown key"),
        ("golds: texts", "golds: string", "columns.golds: expected 'text', 'texts' or"),
        ("{{it}}", "{it", "prompt: .*; write {{ and }} for braces"),
        ("metric: f1", "metric: [", "is not valid YAML"),
        ("{q}", "{q.__class__}", "cannot be filled in"),
    ],
)
def test_one_fault_of_a_yaml(plugins, old, new, problem):
    put(plugins, "wrong", yaml=FREE.replace(old, new))
    with pytest.raises(PluginError, match=problem):
        find_benchmark("wrong")


def test_a_python_task_with_its_own_metric(plugins):
    put(plugins, "counting", benchmark=PYTHON)
    (entry,) = (one for one in list_benchmarks() if one.kind == "python")
    assert (entry.summary, entry.metric) == ("Counts letters.", None)  # nothing is run to list
    question = find_benchmark("counting").read({"word": "ship"})
    assert question.query_id.startswith("counting-")
    assert (question.ground_truth, question.metric) == ("4", "custom:counting")
    own = find_scorer(question.metric)
    assert [score(own, said, "4") for said in ("4", "5", "9")] == [1.0, 0.5, 0.0]
    with pytest.raises(PluginError, match=r"benchmark\.py, line 19: ValueError$"):
        score(own, "four", "4")


def test_a_python_task_with_a_metric_of_ours_and_an_instance(plugins):
    source = PYTHON[: PYTHON.index("def score")].replace(
        "max_tokens = 4", "max_tokens = 4\n    metric = 'number'"
    )
    put(plugins, "counting", benchmark=source + "\nFIRST = Counting()\n")
    assert find_benchmark("counting").read({"word": "oar"}).metric == "number"
    with pytest.raises(PluginError, match=r"defines no function score\(\)"):
        custom_metric("custom:counting")


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("class Counting(Benchmark)", "class Counting(Nothing)", r"line 6: NameError"),
        ("def question", "def asked", "expected exactly one subclass .* found none"),
        (
            "    max_tokens = 4",
            "    name = 'other'\n    max_tokens = 4",
            "expected its folder's, 'bad'",
        ),
        ("    max_tokens = 4\n", "", r"lacks max_tokens \(int\)"),
        ("def score", "def scores", r"lacks metric \(str\)"),
        (
            "def score",
            "Counting.metric = 'best'\ndef scores",
            r"no metric 'best'.* or define score",
        ),
        ("def score", "class Two(Counting): pass\ndef score", "found Counting, Two"),
        ("def score", "raise SystemExit('bye')\ndef score", "SystemExit: bye"),
    ],
)
def test_a_broken_python_task_is_named(plugins, old, new, problem):
    put(plugins, "bad", benchmark=PYTHON.replace(old, new))
    with pytest.raises(PluginError, match=problem):
        find_benchmark("bad")


def test_a_score_out_of_range_is_refused(plugins):
    put(plugins, "wide", benchmark=PYTHON.replace("{0: 1.0,", "{0: 7,"))
    with pytest.raises(PluginError, match=r"score\(\) gave 7.0; expected 0 to 1"):
        custom_metric("custom:wide")("4", "4")


def test_broken_ones_do_not_hide_the_rest(plugins):
    put(plugins, "a_syntax", benchmark="def (")
    put(plugins, "both", yaml=FREE, benchmark=PYTHON)
    put(plugins, "gsm8k", yaml=FREE)
    put(plugins, "good", yaml=FREE)
    put(plugins, "no_benchmark")
    entries = {entry.location: entry for entry in list_benchmarks()}
    errors = {Path(where).name: one.error for where, one in entries.items() if one.error}
    assert sorted(errors) == ["a_syntax", "both", "gsm8k"]
    assert "benchmark.py, line 1: invalid syntax" in errors["a_syntax"]
    assert "contains both benchmark.yaml and benchmark.py" in errors["both"]
    assert "the name is taken by the built-in benchmark" in errors["gsm8k"]
    assert find_benchmark("gsm8k").source.dataset == "openai/gsm8k"
    assert find_benchmark("good").metric == "f1"
    with pytest.raises(RegistryError, match=r"no benchmark is named 'x'; there are: .*good.*"):
        find_benchmark("x")


def test_the_places_are_those_that_are_searched(plugins, tmp_path):
    put(plugins, "good", yaml=FREE)
    with searching([tmp_path / "elsewhere"]), pytest.raises(RegistryError):
        find_benchmark("good")
    assert find_benchmark("good", [plugins]).name == "good"
    inside = {one.name: one.error for one in list_benchmarks([plugins / "good"])}
    assert "is a plug-in itself" in inside["good"]


def test_a_folder_with_a_benchmark_only_is_no_broken_router(plugins):
    put(plugins, "only_benchmark", yaml=FREE)
    put(plugins, "empty")
    router = "from waypost import MetaRouter\n\n\nclass Both(MetaRouter):\n    pass\n"
    put(plugins, "both_kinds", yaml=FREE, router=router)
    found = {one.name: one.error for one in list_routers() if one.source == "folder"}
    assert found["both_kinds"] is None
    assert "does not exist" in found["empty"]
    assert "only_benchmark" not in found
    assert find_benchmark("both_kinds").metric == "f1"


def test_the_command_lists_and_checks(plugins):
    put(plugins, "counting", benchmark=PYTHON)
    put(plugins, "bad", benchmark="import nothing_of_that_name\n")

    def listed(*options):
        result = CliRunner().invoke(command, ["list-benchmarks", *options, "--json"])
        assert result.exit_code == 0, result.output
        return {row["name"]: row for row in json.loads(result.stdout)}

    rows = listed()
    assert rows["math"]["source"] == "EleutherAI/hendrycks_math"
    assert rows["counting"]["columns"] is None
    assert rows["bad"]["error"] is None
    rows = listed("--check")
    assert (rows["counting"]["metric"], rows["counting"]["columns"]) == (
        "custom:counting",
        ["word"],
    )
    assert "ModuleNotFoundError" in rows["bad"]["error"]
    table = CliRunner().invoke(command, ["list-benchmarks"]).stdout
    assert "Idavidrein/gpqa" in table


def test_config_error_is_what_a_yaml_raises_when_read(plugins):
    from waypost.benchmarks.yaml_task import read_yaml_task

    folder = put(plugins, "wrong", yaml=FREE.replace("max_tokens: 4", "max_tokens: 0"))
    with pytest.raises(ConfigError, match="max_tokens: expected at least 1, found 0"):
        read_yaml_task(folder)
