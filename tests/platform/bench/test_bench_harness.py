"""What all benches share: found by their module, made into commands, aims, figures, tables."""

from __future__ import annotations

import json
import sys

import click
import pytest
from click.testing import CliRunner

import waypost.bench
from waypost.bench import harness
from waypost.bench.harness import Aim, at_least, at_most
from waypost.cli import command

BENCH = '''"""Count to a number.

A second paragraph.

Example: waypost bench counting --most 3
"""

from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench.harness import Aim, Result, Table, at_least

QUICK = {"most": 1, "hidden": 10}


class Options(harness.Options):
    """What is counted."""

    most: int = Field(5, ge=1, description="Where it ends.")
    word: tuple[str, ...] = Field((), description="Said, too.")
    folder: DirectoryPath | None = Field(None, description="Looked at.")
    loud: bool = Field(True, description="Says so.")
    hidden: int = 7


def run(options, tell):
    tell("counting")
    rows = [[str(n), str(n * options.hidden)] for n in range(1, options.most + 1)]
    failed = {"shouting": "no voice"} if "shout" in options.word else {}
    aims = [at_least("counted", options.most, 2), Aim("asked: at most 1", None, None)]
    return Result([Table("Numbers", ("n", "times"), rows)], "By hand.", aims, {"n": 3}, failed)
'''


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A bench of one file beside the others."""
    (tmp_path / "counting.py").write_text(BENCH)
    monkeypatch.setattr(waypost.bench, "__path__", [*waypost.bench.__path__, str(tmp_path)])
    yield
    del waypost.bench.counting, sys.modules["waypost.bench.counting"]


def call(*words):
    return CliRunner().invoke(command, ["bench", *words])


def test_every_public_module_is_a_bench_with_options_and_an_example():
    names = list(harness.benches())
    known = "cluster consensus cpu data difficulty encoder faults feedback gateway modes ope "
    known += "personal rl rounds routers scores shadow start states"
    assert names == [*known.split(), "tune", "tuned"]
    group = command.get_command(click.Context(command), "bench")
    for name in names:
        found = group.get_command(click.Context(group), name)
        assert found.epilog.startswith(f"Example: waypost bench {name} ")
        assert {"insert_at", "as_json"} <= {one.name for one in found.params}


def test_a_bench_is_added_by_one_file(bench):
    assert "Count to a number." in call("--help").output
    told = call("counting", "--help").output
    assert "A second paragraph." in told
    assert "[default: 5; 1 with --quick]" in " ".join(told.split())
    assert "--loud / --no-loud" in told
    assert "hidden" not in told
    done = call("counting", "--most", "2")
    assert done.exit_code == 0, done.output
    assert done.stderr == "counting\n"
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["2", "14"] in lines
    assert ["counted:", "at", "least", "2", "2.00", "reached"] in lines
    assert ["asked:", "at", "most", "1", "n/a", "not", "measured"] in lines
    assert "By hand. Load " in done.stdout
    assert "Measured 20" in done.stdout


def test_quick_sets_what_is_not_given(bench):
    assert json.loads(call("counting", "--quick", "--json").stdout)["options"]["most"] == 1
    found = json.loads(call("counting", "--quick", "--most", "4", "--json").stdout)
    assert (found["options"]["most"], found["options"]["hidden"]) == (4, 10)


def test_the_result_is_json_with_machine_options_and_aims(bench, tmp_path):
    out = tmp_path / "out.json"
    done = call("counting", "--json", "--out", str(out))
    found = json.loads(done.stdout)
    assert found == json.loads(out.read_text())
    assert (found["format"], found["n"], found["failed"]) == ("waypost-bench-counting/2", 3, {})
    assert found["options"]["loud"] is True
    assert found["aims"][0] == {"aim": "counted: at least 2", "value": 5, "reached": True}
    machine = found["machine"]
    assert len(machine["load"]) == 2
    assert machine["cores"] > 0
    assert machine["packages"]["numpy"]


def test_tables_are_inserted_with_the_command_line_and_without_where_they_go(bench, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- n begin -->\nprevious\n<!-- n end -->\nafter\n")
    words = ["--word", "a b", "--word", "c", "--no-loud", "--folder", str(tmp_path), "--quick"]
    done = call("counting", *words, "--insert", f"{page}:n", "--json")
    assert done.exit_code == 0, done.output
    text = page.read_text()
    assert text.startswith("before\n<!-- n begin -->\nNumbers:\n\n| n | times |\n| --- | ---: |\n")
    assert "| 1 | 10 |" in text
    assert "previous" not in text
    line = f"    waypost bench counting --word 'a b' --word c --folder {tmp_path} --no-loud --quick"
    assert line in text.splitlines()
    assert "Measured 20" in text


def test_a_place_that_is_not_there_is_said_before_anything_is_measured(bench):
    assert "expected FILE:MARKER" in call("counting", "--insert", "nowhere").output
    done = call("counting", "--insert", "nowhere.md:n")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "counting" not in done.stderr.splitlines()


def test_what_failed_is_told_and_is_no_success(bench):
    done = call("counting", "--word", "shout")
    assert done.exit_code == 1
    assert "shouting: measurement failed: no voice" in done.stderr
    assert "Numbers" in done.stdout


@pytest.mark.parametrize("words", [["--most", "0"], ["--folder", "nowhere"], ["--hidden", "3"]])
def test_wrong_options_are_wrong_input(bench, words):
    assert call("counting", *words).exit_code == 2


def test_aims_say_their_bound_and_whether_it_was_reached():
    assert at_most("a, ms", 2.0, 2) == Aim("a, ms: at most 2", 2.0, True)
    assert at_least("b", 1999.0, 2000) == Aim("b: at least 2,000", 1999.0, False)
    assert at_least("c", None, 0.5) == Aim("c: at least 0.5", None, None)


def test_percentiles_are_taken_in_each_round_and_spread_over_the_rounds():
    rounds = [[1.0, 2.0, 3.0], [10.0], [4.0, 6.0]]
    assert harness.over_rounds(rounds)["p50"] == {"median": 5, "least": 2, "most": 10}
    with pytest.raises(ValueError, match="no values"):
        harness.percentiles([])


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "n/a"), (0.0123, "0.0123"), (2, "2.00"), (104.4, "104"), (281_234, "281,000")],
)
def test_figures_have_three_significant_digits(value, text):
    assert harness.figure(value) == text
