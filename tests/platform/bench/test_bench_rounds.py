"""Questions of two facts, their table by hand, and a quick run of the bench with scripted LLMs."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from waypost.bench import rounds
from waypost.bench._two_facts import CHAINED, FAMILIES, JOINED, MAX_PER_FAMILY, two_facts
from waypost.bench.rounds import MULTI, Options, evaluated_data, figures, result
from waypost.cli import command
from waypost.contracts.duplicates import duplicate_groups
from waypost.contracts.errors import SchemaError
from waypost.contracts.questions import read_questions
from waypost.contracts.routing_data import read_routing_data, write_routing_data
from waypost.scorers import score
from waypost.testing.synthetic import planted
from waypost_routers._rounds import prompts
from waypost_routers._rounds.plans import read_plan

EVERY = two_facts(MAX_PER_FAMILY, 0, 48)


def scored(question, answer):
    return score(question.metric, answer, question.ground_truth)


# questions


def test_the_questions_are_many_of_many_families_and_mostly_chained():
    drawn = two_facts(Options().per_family, 0, 48)
    assert len(drawn) >= 100
    assert len(FAMILIES) >= 10
    assert len({family.name for family in FAMILIES}) == len(FAMILIES)
    assert sum(one.task_name == CHAINED for one in drawn) >= len(drawn) / 2
    assert {one.task_name for one in drawn} == {CHAINED, JOINED}
    assert len({one.query for one in EVERY}) == len({one.query_id for one in EVERY}) == len(EVERY)
    assert len(EVERY) == MAX_PER_FAMILY * len(FAMILIES)


def test_the_draw_depends_on_the_seed_alone_and_grows():
    assert two_facts(3, 7, 48) == two_facts(3, 7, 48)
    assert {one.query for one in two_facts(3, 0, 48)} < {one.query for one in EVERY}
    assert {one.query for one in two_facts(3, 0, 48)} != {one.query for one in two_facts(3, 1, 48)}


@pytest.mark.parametrize(
    ("family", "fields", "answer"),
    [
        ("currency_of_capital", {"capital": "Tokyo"}, "Japanese yen"),
        ("capital_of_landmark", {"landmark": "the Taj Mahal"}, "New Delhi"),
        ("country_of_author", {"work": "Heidi"}, "Switzerland."),
        ("number_of_symbol", {"symbol": "Fe"}, "The atomic number is 26."),
        ("letters_of_capital", {"country": "Japan"}, "5"),
        ("initial_of_planet", {"ordinal": "third"}, "E"),
        ("sides_times", {"article": "an", "polygon": "octagon", "n": "9"}, "72"),
        ("roman_count", {"things": "cards of a full deck without jokers"}, "LII"),
        ("roman_count", {"things": "keys of a full piano"}, "LXXXVIII"),
        ("roman_count", {"things": "strings of a violin"}, "iv"),
        ("month_after_holiday", {"holiday": "Christmas Day"}, "January"),
        ("grown_up_legs", {"young": "tadpole"}, "A frog has 4"),
        ("legs_together", {"n": "3", "one": "chickens", "m": "4", "other": "horses"}, "22"),
        ("corners_together", {"one": "triangle", "other": "square"}, "3 + 4 = 7"),
        ("atomic_sum", {"one": "hydrogen", "other": "carbon"}, "7"),
        ("days_together", {"one": "February", "other": "March"}, "59"),
        ("mixed_colours", {"one": "a lemon", "other": "a sapphire"}, "Green"),
    ],
)
def test_answers_by_hand(family, fields, answer):
    (found,) = [one for one in FAMILIES if one.name == family]
    truths = [truth for given, truth in found.cases() if given == fields]
    assert len(truths) == 1
    assert score(found.metric, answer, truths[0]) == 1
    assert score(found.metric, "I am not sure: 1000", truths[0]) == 0


def test_every_question_is_right_by_its_own_truth_and_wrong_by_most_others():
    for one in EVERY:
        accepted = [one.ground_truth] if isinstance(one.ground_truth, str) else one.ground_truth
        assert all(scored(one, answer) == 1 for answer in accepted), one
        assert scored(one, "") == 0
    for name in ("short_answer", "number"):
        some = [one for one in EVERY if one.metric == name]
        first = [q.ground_truth if isinstance(q.ground_truth, str) else q.ground_truth[0]
                 for q in some]  # fmt: skip
        assert sum(scored(q, a) for q in some for a in first) < len(some) ** 2 / 5


def test_no_template_is_one_of_the_planners_examples():
    plan = read_plan(prompts._example(()), 8)
    examples = [prompts.EXAMPLE, prompts.WHOLE_EXAMPLE, *(step.text for step in plan.steps)]
    assert len(examples) == 5
    for family in FAMILIES:
        # the pattern finds its own questions, so it would find an example, too
        own = [one.query for one in EVERY if one.query_id.startswith(f"{family.name}-")]
        assert len(own) == MAX_PER_FAMILY
        assert all(family.pattern.fullmatch(query) for query in own)
        others = [one.query for one in EVERY if one.query not in own]
        assert not any(family.pattern.fullmatch(query) for query in (*others, *examples))
    asked = {word for one in EVERY for word in re.findall(r"\w+", one.query.lower())}
    assert not {"mountain", "high", "higher", "highest", "height", "heights"} & asked
    assert {"capital", "country"} <= asked


def test_no_question_is_one_of_the_training_data(root):
    starter = read_questions(root / "serve_configs" / "starter" / "questions.jsonl")
    texts = [one.query for one in (*starter, *EVERY)]
    groups = duplicate_groups(texts)
    assert not set(groups[: len(starter)]) & set(groups[len(starter) :])


# the table


def decision(router, task, quality, calls):
    return {"router": router, "task_name": task, "quality": quality, "calls": calls}


def report_of(**rows):
    keys = {"delta_best_single": 0.0, "cost_usd_per_1k": 0.5, "answer_s": 2.0, "answer_s_p95": 4.0}
    live = {"calls": 9, "failed": 1, "unanswered": 0, "cost_usd": 0.001}
    return {
        "n_queries": 4,
        "routers": {name: {**keys, "quality": q, "calls": c} for name, (q, c) in rows.items()},
        "reference": {"oracle": {"quality": 0.75}},
        "live": {name: live for name in rows if "multi" in name},
        "failed": {"llmmultiroundrouter:step_tokens=48": "no pool"},
    }


def test_figures_by_hand():
    label = "knnmultiroundrouter:step_tokens=48,plan_tokens=160"
    report = report_of(knnrouter=(0.5, 1.0), **{label: (0.25, 3.5)})
    log = [
        *(decision("knnrouter", task, q, 1) for task, q in
          ((CHAINED, 1.0), (CHAINED, 0.0), (JOINED, 1.0), (JOINED, None))),
        *(decision(label, task, q, calls) for task, q, calls in
          ((CHAINED, 1.0, 4), (CHAINED, 0.0, 6), (JOINED, 0.0, 2), (JOINED, 0.0, 2))),
    ]  # fmt: skip
    found = figures(report, log)
    own = found["routers"]["knnmultiroundrouter"]
    assert (own["split"], own[CHAINED], own[JOINED]) == (0.5, 0.5, 0.0)
    assert found["routers"]["knnrouter"][JOINED] == 0.5  # an answer without a score is none
    shown = result(found, report, Options(per_family=1))
    rows = {row[0]: row[1:] for row in shown.tables[0].rows}
    assert rows["knnrouter"][0] == "0.500"
    assert rows["knnrouter"][-3:] == ["n/a", "0.500", "0.500"]
    assert rows["knnmultiroundrouter"][-3:] == ["50.0 %", "0.500", "0.000"]
    assert shown.tables[1].rows == [["knnmultiroundrouter", "9", "1", "0", "0.001"]]
    first, second = shown.aims
    assert (first.value, first.reached) == (-0.25, False)
    assert (second.value, second.reached) == (None, None)
    assert shown.failed == {"llmmultiroundrouter:step_tokens=48": "no pool"}


def test_data_of_other_llms_is_refused(tmp_path):
    data = planted()
    write_routing_data(tmp_path / "one", data)
    write_routing_data(tmp_path / "two", data.select_llms(["cook", "tiny"]))
    with pytest.raises(SchemaError, match="expected those of the data run"):
        evaluated_data(tmp_path / "one", tmp_path / "two", tmp_path / "both")
    folder = evaluated_data(tmp_path / "one", tmp_path / "one", tmp_path / "both")
    splits = [read_routing_data(folder, name) for name in ("train", "test")]
    assert splits[0].queries == splits[1].queries == data.queries


# a run


@pytest.mark.long
@pytest.mark.ray
def test_a_quick_run_goes_on_where_it_was(root, tmp_path, monkeypatch, ray_here):
    monkeypatch.chdir(root)
    out = tmp_path / "rounds"

    def run():
        words = ["bench", "rounds", "--quick", "--out", str(out), "--json"]
        done = CliRunner().invoke(command, words)
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    found = run()
    assert found["questions"] == len(FAMILIES)
    assert found["failed"] == {}
    assert json.loads((out / "result.json").read_text())["routers"] == found["routers"]
    # the planner's plan has two steps in turn; it assigns no LLM, so the other router asks for a
    # repair, in vain
    rows = found["routers"]
    assert [rows[name]["calls"] for name in rounds.SINGLE] == [1, 1]
    assert [rows[name]["calls"] for name in MULTI] == [4, 5]
    assert [rows[name]["split"] for name in MULTI] == [1, 1]
    asked = read_questions(out / "questions.jsonl")
    said = ("6", "7", json.dumps(rounds.PLAN))
    best = [max(scored(question, answer) for answer in said) for question in asked]
    assert found["oracle"] == pytest.approx(sum(best) / len(best))
    assert all(one["calls"] > len(FAMILIES) for one in found["live"].values())
    assert all(one["failed"] == 0 for one in found["live"].values())
    logs = {path: path.stat().st_size for path in (out / "report" / "calls").rglob("*") if
            path.is_file()}  # fmt: skip
    again = run()
    assert again["routers"] == found["routers"]
    assert {path: path.stat().st_size for path in logs} == logs
