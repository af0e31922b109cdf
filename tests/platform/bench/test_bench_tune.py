"""The bench of sweeps: what figures come to by hand, and a run of little of everything."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from waypost.bench import tune
from waypost.bench._processes import Watched
from waypost.bench.harness import BenchError
from waypost.bench.tune import SPACES, Case, aims, check_same, compared, figures, timed_queue
from waypost.cli import command
from waypost.tune.journal import Journal, Task
from waypost.tune.trial_queue import row_of


def seen(first=2.0, last=12.0, end=13.0, fits=10.0, cpu=1.0, scores=None) -> Watched:
    """Ten trials, from second 1 on; ``cpu`` seconds are taken a second."""
    said = {
        "ready": 1.0, "first": first, "last": last, "end": end, "trials": 10, "fit_seconds": fits,
        "scores": scores or {"a": 0.5},
    }  # fmt: skip
    return Watched(said=said, times=[0.0, 20.0], cpu_s=[0.0, 20 * cpu])


LOOP = seen(first=1.0, last=11.0, end=11.0, fits=9.0)
TWO = seen(first=3.0, last=9.0, end=9.5, fits=11.0, cpu=2.0)


def test_figures_by_hand():
    found = figures(TWO, 2)
    assert found["seconds"] == 8.5
    assert (found["start_s"], found["fitting_s"]) == (2.0, 6.0)
    assert found["per_s"] == pytest.approx(10 / 8.5)
    assert found["idle_ms"] == pytest.approx(100)  # 12 s of two workers, 11 of them fits
    assert found["trial_ms"] == pytest.approx(1100)
    assert (found["cpu_s"], found["fitting_cpu_s"]) == (17.0, 12.0)


def test_ray_beside_the_loop_by_hand():
    found = compared(figures(LOOP, 1), figures(TWO, 2))
    assert found["ratio"] == pytest.approx(0.85)
    assert found["speed_up"] == pytest.approx(10 / 6)
    assert found["of_linear"] == pytest.approx(5 / 6)
    assert found["overhead_ms"] == pytest.approx(200)  # 12 s of CPU less the loop's 10, ten trials
    assert found["start_cpu_s"] == pytest.approx(5)


def test_aims_go_by_the_way_with_most_workers():
    one, two = {"ratio": 1.3, "of_linear": 0.9}, {"ratio": 1.1, "of_linear": 0.7}
    cases = {"cheap": {"compared": {"1": one, "2": two}}, "costly": {"compared": {"1": one}}}
    assert [(aim.value, aim.reached) for aim in aims(cases)] == [(1.1, True), (0.9, True)]
    assert [aim.reached for aim in aims({"costly": {"compared": {"2": two}}})] == [None, False]


def test_ways_that_made_other_fits_are_not_compared():
    check_same({"loop": LOOP, "ray": TWO})
    for scores in ({"a": 0.6}, {"b": 0.5}, {"a": 0.5, "b": 0.5}):
        with pytest.raises(BenchError, match="ray: its scores"):
            check_same({"loop": LOOP, "ray": seen(scores=scores)})


def test_a_worker_begins_when_its_first_rows_came_less_their_fits(tmp_path):
    clock = [0.0]
    journal = Journal(tmp_path / "trials.jsonl", {})
    tasks = [Task(i, f"key{i}", {}, {}) for i in range(8)]
    queue, began = timed_queue(journal, 2, tasks, lambda: clock[0])

    def bring(tasks, at, each):
        clock[0] = at
        queue.record([row_of(task, each, status="done", score=0.0) for task in tasks])

    first, second = queue.take(), queue.take()
    bring(second[:1], 5.0, 1.0)
    assert began == [4.0]
    third = queue.take()
    bring(first, 10.0, 2.0)
    assert began == [4.0, 10 - 2.0 * len(first)]
    bring([*second[1:], *third], 20.0, 1.0)
    assert len(began) == 2
    journal.close()


@pytest.mark.parametrize("router", SPACES)
def test_the_settings_of_a_case_are_those_of_the_router_and_the_same_again(router, tmp_path):
    case = Case(router, 60, 5, 2, 3, 8)
    tasks = case.tasks(tmp_path)
    assert [task.number for task in tasks] == list(range(5))
    assert tasks == case.tasks(tmp_path / "again")
    assert len(case.problem().data) == 60


def test_the_tables_say_what_was_measured():
    ways = {"plain loop": figures(LOOP, 1), "Ray Tune, 2 workers": figures(TWO, 2)}
    over = {"Ray Tune, 2 workers": compared(*ways.values())}
    case = {"router": "knnrouter", "n": 60, "llms": 3, "trials": 10, "folds": 2}
    found = tune.result({"cheap": {"case": case, "ways": ways, "compared": over}})
    (table,) = found.tables
    assert table.title.startswith("10 cheap trials of knnrouter, 2 fits each, 60 made-up questions")
    loop, ray = table.rows
    assert ray[:4] == ["Ray Tune, 2 workers", "8.5", "0.85", "1.18"]
    assert "83.3 %" in ray
    assert loop[2] == "n/a"
    assert len(table.heads) == len(ray)
    assert [aim.reached for aim in found.aims] == [True, None]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cheap", "nobody"], "nobody: no settings to measure; expected one of knnrouter"),
        (["--insert", "nowhere"], "expected FILE:MARKER"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(words, said):
    result = CliRunner().invoke(command, ["bench", "tune", *words])
    assert result.exit_code != 0
    assert said in result.output


@pytest.mark.ray
@pytest.mark.long
def test_a_run_of_little(tmp_path):
    out, readme = tmp_path / "out.json", tmp_path / "README.md"
    readme.write_text("<!-- here begin -->\n<!-- here end -->\n", encoding="utf-8")
    words = [
        "bench",
        "tune",
        "--quick",
        "--costly",
        "none",
        "--cheap-trials",
        "4",
        "--workers",
        "1",
    ]
    result = CliRunner().invoke(
        command, [*words, "--out", str(out), "--insert", f"{readme}:here"], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    found = json.loads(out.read_text(encoding="utf-8"))
    ways = found["cases"]["cheap"]["ways"]
    assert list(ways) == ["plain loop", "Ray Tune, 1 worker"]
    assert {one["trials"] for one in ways.values()} == {4}
    assert ways["plain loop"]["start_s"] < ways["Ray Tune, 1 worker"]["start_s"]
    assert [aim["reached"] is None for aim in found["aims"]] == [False, True]
    text = readme.read_text(encoding="utf-8")
    assert "    waypost bench tune --cheap-trials 4 --costly none --workers 1 --quick" in text
