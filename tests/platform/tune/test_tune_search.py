"""Settings, searchers and the trial queue: what is proposed, in which batches, and what is kept."""

from __future__ import annotations

import json
from contextlib import closing

import numpy as np
import pytest

from waypost.config import parse
from waypost.contracts.errors import ConfigError, SchemaError
from waypost.tune.config import TuneConfig, in_order
from waypost.tune.journal import Journal, Task, TrialRow
from waypost.tune.searchers import Proposals, make_searcher
from waypost.tune.space import SearchSpace
from waypost.tune.trial_queue import MOST_DEATHS, TrialQueue, row_of

DEFAULTS = {"k": None, "weights": "softmax", "tau": 0.1, "depth": 1, "step": 0.5}
SPACE = {
    "tau": {"type": "loguniform", "low": 0.02, "high": 0.4, "when": {"weights": "softmax"}},
    "k": {"type": "choice", "values": [5, 10, None]},
    "weights": {"type": "choice", "values": ["uniform", "softmax"]},
    "depth": {"type": "randint", "low": 1, "high": 4},
    "step": {"type": "quniform", "low": 0.1, "high": 1, "q": 0.25, "when": {"depth": [2, 3]}},
}


def config(space=SPACE, **more) -> TuneConfig:
    return parse(TuneConfig, {"router": "r", "space": space, "budget": {"trials": 9}, **more})


def space_of(made: TuneConfig) -> SearchSpace:
    return SearchSpace(made, DEFAULTS)


def done(task: Task, score: float = 0.5, seconds: float = 1.0) -> TrialRow:
    return row_of(task, seconds, status="done", score=score, blocks=[score, score])


# -- settings -----------------------------------------------------------------------------------


def test_a_parameter_comes_after_those_its_condition_names():
    assert in_order(config().space) == ["k", "weights", "depth", "tau", "step"]


def test_conditions_that_wait_for_one_another_and_other_disagreements_are_faults():
    space = {
        "a": {"type": "choice", "values": [1], "when": {"b": 1}},
        "b": {"type": "grid", "values": [1], "when": {"a": 1}},
    }
    with pytest.raises(ConfigError) as caught:
        config(space, metric={"name": "cost"}, searcher="optuna")
    said = str(caught.value)
    assert "mode is max; cost needs mode min" in said
    assert "b: grid needs the random searcher" in said
    assert "the conditions of a, b depend on each other" in said


def test_the_key_is_that_of_the_router_that_a_setting_makes():
    space = space_of(config())
    assert space.key({}) == space.key({"weights": "softmax", "tau": 0.1, "k": None})
    assert space.key({}) != space.key({"k": 5})
    assert space.key({"k": 1}) != space.key({"k": True})
    fixed = space_of(config({"k": SPACE["k"]}, fixed={"tau": 0.2}))
    assert fixed.key({}) != space.key({})
    assert fixed.parameters({"k": 5}) == {"tau": 0.2, "k": 5}


def test_a_setting_is_inside_where_values_and_conditions_are_kept():
    space = space_of(config())
    inside = {"k": 5, "weights": "softmax", "tau": 0.2, "depth": 1}
    assert space.contains(inside)
    assert not space.contains({**inside, "weights": "uniform"})  # then there is no tau
    assert not space.contains({**inside, "tau": 0.5})
    assert not space.contains({**inside, "depth": True})
    assert not space.contains({})


# -- searchers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("searcher", ["random", "optuna", "hyperopt"])
def test_proposals_lie_inside_and_are_repeated_by_the_seed(searcher):
    made = config(searcher=searcher)
    space = space_of(made)
    asked = []
    for _ in range(2):
        one = make_searcher(made, space)
        one.tell({}, 0.1)  # the default: outside, since it leaves out what it must have
        one.tell({"k": 5, "weights": "uniform", "depth": 1}, 0.2)
        found = []
        for turn in range(25):
            both = [one.ask(), one.ask()]
            for setting in both:
                assert space.contains(setting), setting
                one.tell(setting, None if turn == 3 else float(setting["depth"] == 2))
            found += both
        asked.append(found)
    assert asked[0] == asked[1]
    assert {"tau" in setting for setting in asked[0]} == {True, False}
    assert {"step" in setting for setting in asked[0]} == {True, False}
    if searcher != "random":  # it has learned what earns
        assert sum(s["depth"] == 2 for s in asked[0][-20:]) > 9  # of 20; a third by chance


@pytest.mark.parametrize("searcher", ["random", "optuna", "hyperopt"])
def test_every_searcher_draws_the_multiples_of_q_between_the_bounds(searcher):
    made = config({"step": {**SPACE["step"], "when": {}}}, searcher=searcher)
    one = make_searcher(made, space_of(made))
    one.tell({"step": 0.6}, 0.5)  # from elsewhere, and no multiple
    assert {one.ask()["step"] for _ in range(30)} == {0.25, 0.5, 0.75, 1}


def test_conditions_on_a_parameter_that_is_not_searched_or_has_one_itself():
    space = {
        "a": {"type": "choice", "values": [1, 2], "when": {"weights": "softmax"}},
        "b": {"type": "choice", "values": [7, 8], "when": {"a": 2, "weights": ["softmax", "x"]}},
        "c": {"type": "choice", "values": [7, 8], "when": {"weights": "uniform"}},
    }
    for searcher in ("random", "optuna", "hyperopt"):
        made = config(space, searcher=searcher)
        found = [make_searcher(made, space_of(made)).ask() for _ in range(1)]
        one = make_searcher(made, space_of(made))
        found += [one.ask() for _ in range(20)]
        assert all("c" not in setting and "a" in setting for setting in found)
        assert {("b" in s) == (s["a"] == 2) for s in found} == {True}


def test_a_grid_is_gone_through_in_turn_and_ends_where_nothing_is_drawn():
    grid = {"k": {"type": "grid", "values": [5, 10]}, "depth": {"type": "grid", "values": [1, 2]}}
    one = make_searcher(config(grid), space_of(config(grid)))
    asked = [one.ask() for _ in range(5)]
    assert asked[-1] is None
    assert [(s["k"], s["depth"]) for s in asked[:-1]] == [(5, 1), (5, 2), (10, 1), (10, 2)]
    mixed = {**grid, "tau": {"type": "uniform", "low": 0.1, "high": 0.2}}
    one = make_searcher(config(mixed), space_of(config(mixed)))
    asked = [one.ask() for _ in range(8)]
    assert [s["k"] for s in asked] == [5, 5, 10, 10, 5, 5, 10, 10]
    assert len({s["tau"] for s in asked}) == 8


# -- journal ------------------------------------------------------------------------------------


def test_rows_survive_and_a_torn_last_line_is_dropped(tmp_path):
    path = tmp_path / "trials.jsonl"
    journal = Journal(path, {"seed": 1})
    rows = [done(Task(n, f"k{n}", {"k": n}, {}), n / 10) for n in range(3)]
    for row in rows:
        journal.add(row)
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"number": 3, "key": "k3", "sco')
    again = Journal(path, {"seed": 1})
    assert again.search() == rows
    again.add(done(Task(3, "k3", {}, {})))
    again.close()
    assert path.read_bytes().startswith(whole)
    assert [json.loads(line)["number"] for line in path.read_text().splitlines()[1:]] == [
        0,
        1,
        2,
        3,
    ]


def test_a_measurement_stands_once_and_nan_is_null(tmp_path):
    journal = Journal(tmp_path / "trials.jsonl", {})
    task = Task(0, "k", {}, {})
    journal.add(row_of(task, 1.0, status="done", score=0.5, blocks=[np.nan, 1.0]))
    journal.add(done(task, 0.9))
    journal.close()
    with closing(Journal(tmp_path / "trials.jsonl", {})) as again:
        (row,) = again.search()
    assert (row.score, row.blocks) == (0.5, [None, 1.0])


def test_another_sweep_in_the_folder_is_named(tmp_path):
    Journal(tmp_path / "trials.jsonl", {"seed": 1, "data": "a", "folds": 5}).close()
    with pytest.raises(ConfigError) as caught:
        Journal(tmp_path / "trials.jsonl", {"seed": 2, "data": "b", "folds": 5})
    assert [fault.where.rpartition(": ")[2] for fault in caught.value.faults] == ["seed", "data"]
    assert "--fresh" in str(caught.value)


def test_two_sweeps_do_not_write_one_file(tmp_path):
    first = Journal(tmp_path / "trials.jsonl", {})
    with pytest.raises(ConfigError, match="another waypost tune"):
        Journal(tmp_path / "trials.jsonl", {})
    first.close()
    Journal(tmp_path / "trials.jsonl", {}).close()


def test_a_file_that_is_no_record_is_refused(tmp_path):
    (tmp_path / "trials.jsonl").write_text("hello\nworld\n")
    with pytest.raises(SchemaError, match="not a journal of a sweep"):
        Journal(tmp_path / "trials.jsonl", {})


# -- trial queue --------------------------------------------------------------------------------


def proposals(made: TuneConfig, journal: Journal, trials: int) -> Proposals:
    space = space_of(made)
    return Proposals(space, make_searcher(made, space), journal, trials, 1.0)


@pytest.fixture
def journal(tmp_path):
    with_file = Journal(tmp_path / "trials.jsonl", {})
    yield with_file
    with_file.close()


def measure(queue: TrialQueue, limit: int = 1000) -> list[str]:
    keys = []
    while len(keys) < limit and (tasks := queue.take()):
        queue.record([done(task, 0.5) for task in tasks])
        keys += [task.key for task in tasks]
    return keys


def test_the_default_comes_first_and_nothing_twice(journal):
    queue = TrialQueue(journal, 2, proposals=proposals(config(), journal, 30))
    keys = measure(queue)
    assert queue.is_done
    assert len(keys) == len(set(keys)) == 30
    assert journal.search()[0].number == 0
    assert journal.search()[0].setting == {}
    assert [row.number for row in journal.search()] == list(range(30))


def test_a_small_space_ends_when_all_of_it_was_tried(journal):
    made = config({"k": SPACE["k"]})
    assert len(measure(TrialQueue(journal, 2, proposals=proposals(made, journal, 50)))) == 3


@pytest.mark.parametrize("searcher", ["random", "optuna", "hyperopt"])
def test_resumed_it_measures_what_is_missing_and_no_more(tmp_path, searcher):
    made = config(searcher=searcher)
    with closing(Journal(tmp_path / "whole.jsonl", {})) as whole:
        all_keys = measure(TrialQueue(whole, 1, proposals=proposals(made, whole, 24)))
    with closing(Journal(tmp_path / "cut.jsonl", {})) as cut:
        first = measure(TrialQueue(cut, 1, proposals=proposals(made, cut, 24)), limit=9)
    with closing(Journal(tmp_path / "cut.jsonl", {})) as again:
        second = measure(TrialQueue(again, 1, proposals=proposals(made, again, 24)))
        numbers = [row.number for row in again.search()]
    assert not set(first) & set(second)
    assert numbers == list(range(24))
    if searcher == "random":
        assert set(first) | set(second) == set(all_keys)


def test_batches_are_large_first_and_hold_seconds_of_work(journal):
    queue = TrialQueue(journal, 2, proposals=proposals(config(), journal, 200))
    sizes = []
    while tasks := queue.take():
        sizes.append(len(tasks))
        queue.record([done(task, seconds=0.01) for task in tasks])
    # half an even share, but at least the rest's even share where that is 2 s of work or less
    assert sizes == [50, 75, 38, 19, 9, 5, 2, 1, 1]


def test_a_searcher_that_learns_is_asked_for_few_at_once(journal):
    queue = TrialQueue(journal, 2, proposals=proposals(config(searcher="optuna"), journal, 100))
    assert len(queue.take()) == 5


def test_what_a_batch_did_not_get_to_is_handed_out_again_in_order(journal):
    queue = TrialQueue(journal, 1, proposals=proposals(config(), journal, 8))
    tasks = queue.take()
    queue.record([done(tasks[0])])
    assert not queue.is_done
    queue.give_back(tasks)
    assert queue.take()[: len(tasks) - 1] == tasks[1:]


def test_a_trial_that_kills_its_worker_fails_and_the_others_go_on(journal):
    queue = TrialQueue(journal, 1, proposals=proposals(config(), journal, 8))
    for _ in range(MOST_DEATHS):
        tasks = queue.take()
        queue.give_back(tasks, died="out of memory")
    (failed,) = journal.search()
    assert (failed.status, failed.number) == ("failed", 0)
    assert "out of memory" in failed.error
    measure(queue)
    assert len(journal.search()) == 8


def test_time_ends_a_search_and_counts_over_all_its_runs(journal):
    journal.add(TrialRow(0, "k", {}, 0, "done", 0.5, 1.0, at_s=90.0))
    assert TrialQueue(journal, 1, proposals=proposals(config(), journal, 8), time_s=91).left > 0
    assert TrialQueue(journal, 1, proposals=proposals(config(), journal, 8), time_s=89).is_done


def test_what_comes_after_is_asked_when_all_is_done_or_the_time_is_over(tmp_path, journal):
    def after() -> list[Task]:
        asked.append(len(journal.rows))
        return [Task(0, "again", {}, {}, deal=1)]

    asked: list[int] = []
    queue = TrialQueue(journal, 1, proposals=proposals(config(), journal, 5), after=after)
    assert len(measure(queue)) == 6
    assert asked == [5]
    assert queue.is_done
    with closing(Journal(tmp_path / "late.jsonl", {})) as late:
        late.add(TrialRow(0, "k", {}, 0, "done", 0.5, 1.0, at_s=90.0))
        made = proposals(config(), late, 8)
        assert measure(TrialQueue(late, 1, proposals=made, time_s=89, after=after)) == ["again"]


def test_the_default_is_trial_0_also_where_a_kill_lost_it(journal):
    journal.add(TrialRow(4, "k", {"k": 5}, 0, "done", 0.5, 1.0))
    tasks = TrialQueue(journal, 1, proposals=proposals(config(), journal, 8)).take()
    assert [task.number for task in tasks] == [0, 5, 6, 7]
    assert tasks[0].setting == {}
