import json
import re
from dataclasses import replace

import numpy as np
import pytest

from waypost.contracts.errors import ConfigError
from waypost.contracts.routing_data import write_routing_data
from waypost.pipelines.evaluation.run import EvaluateConfig, evaluate
from waypost.report.compact import _curves, compact, insert
from waypost.report.curve_plot import _labels, draw_curve
from waypost.report.drawing import _cells, _short, draw_usage, literal, look
from waypost.report.folder import check_place, report_folder, write_report
from waypost.report.markdown import render
from waypost.report.numbers import fixed, percent, plain, table, usd, with_interval
from waypost.testing.tables import outcomes

ODD = ("a|b", "$x_{1$ ünï", "vendor/" + "long-name-" * 9)


def report_of(folder, *, cost, llms=ODD, routers=("best_single", "randomrouter")):
    draw = np.random.default_rng(0)
    for split in ("train", "test"):
        scores = {name: draw.choice([0.0, 1.0, None], 12, p=[0.4, 0.4, 0.2]) for name in llms}
        dollars = {name: [0.01 * (j + 1)] * 12 for j, name in enumerate(llms)}
        data = outcomes(scores, cost_usd=dollars if cost else None)
        texts = tuple(f"{split} {word}" for word in "abcdefghijkl")
        ids, tasks = tuple(f"{split}{i}" for i in range(12)), ("x|y", "") * 6
        data = replace(data, query_ids=ids, queries=texts, task_names=tasks)
        write_routing_data(folder, data, split)
    config = EvaluateConfig(routers=routers, encoder="hashing", lambdas=(0, 1))
    return evaluate(config, folder).report


@pytest.fixture(scope="module", params=[True, False], ids=["costs", "no costs"])
def report(request, tmp_path_factory):
    return report_of(tmp_path_factory.mktemp("data"), cost=request.param)


def test_odd_names_and_missing_costs_are_written_and_drawn(report, tmp_path):
    found = write_report(tmp_path, report)
    assert json.loads((tmp_path / "report.json").read_text()) == found
    for name in ("curve.png", "usage.png", "reliability.png"):
        width, height = np.frombuffer((tmp_path / name).read_bytes()[16:24], ">u4")
        assert min(width, height) > 200


def test_every_row_of_a_table_has_the_tables_columns(report):
    text = render(plain(report))
    assert r"a\|b" in text
    assert "nan" not in text
    tables = re.findall(r"(?:^\|.*\n)+", text + compact(plain(report)) + "\n", re.MULTILINE)
    assert len(tables) >= 5
    for one in tables:
        widths = {len(re.findall(r"(?<!\\)\|", line)) for line in one.splitlines()}
        assert len(widths) == 1


def test_without_costs_nothing_is_zero_dollars(tmp_path):
    text = render(plain(report_of(tmp_path, cost=False)))
    row = next(line for line in text.splitlines() if line.startswith("| best_single |"))
    assert row.split("|")[3].strip() == "n/a"


def test_the_table_of_two_llms_stands_there_where_there_are_numbers(report):
    changed = plain(report)
    known = {"apgr": 0.6, "apgr_low": 0.5, "apgr_high": 0.7, "cpt_50": 0.25, "cpt_80": 0.5}
    changed["two_models"] = {"weak": "small", "strong": "large", "by": "size"}
    for row in changed["routers"].values():
        row.update(dict.fromkeys([*known, "cpt_95"]))
    assert "With two LLMs" not in render(changed)
    changed["routers"]["best_single"].update(known)
    assert "| best_single | 0.600 [0.500, 0.700] | 25.0 % | 50.0 % | n/a |" in render(changed)
    assert "Two LLMs alone: small, or large for" in render(changed)


def test_a_router_of_other_training_data_is_named(report):
    changed = plain(report)
    assert "Not trained on this" not in render(changed)
    changed["routers"]["best_single"]["trained_on"] = "other"
    assert "Not trained on this folder's training split: best_single." in render(changed)


def test_a_pool_too_large_for_the_plots_is_drawn(tmp_path):
    llms = [f"llm-{i}" for i in range(24)]
    report = plain(report_of(tmp_path, cost=True, llms=llms, routers=("randomrouter",)))
    draw_usage(report, tmp_path / "usage.png")
    draw_curve(report, tmp_path / "curve.png")
    assert (tmp_path / "usage.png").is_file()
    assert (tmp_path / "curve.png").is_file()


def test_every_llm_of_a_large_pool_is_named_or_numbered():
    labels = _labels({f"vendor/llm-{i:02d}": (1.0, i / 100) for i in range(14)})
    assert list(labels.values())[:2] == ["llm-13", "llm-12"]
    assert {name: text for name, text in labels.items() if text.isdecimal()} == {
        "vendor/llm-01": "1",
        "vendor/llm-00": "2",
    }


def test_what_plots_say_of_lambdas_and_bins():
    assert [_short(lam) for lam in (0.0, 0.0352, 2.2, 12345.0, 1e9)] == [
        "0", "0.035", "2.2", "1e4", "cost\nalone",
    ]  # fmt: skip
    assert _cells([500.0, 1500.0, 500.0]) == "3 bins of 500 to 1,500 cells"
    assert _cells([300.0, 300.0]) == "2 bins of 300 cells"


def test_numbers():
    assert plain({"a": [np.nan, 1.0, (float("inf"), True)], 2: None}) == {
        "a": [None, 1.0, [None, True]],
        "2": None,
    }
    assert (fixed(None), fixed(0.12345), fixed(0.5, 2, sign=True)) == ("n/a", "0.123", "+0.50")
    assert (percent(None), percent(0.5)) == ("n/a", "50.0 %")
    assert [usd(v) for v in (None, 0.12345, 5.98, 0.00002, 123456.0)] == [
        "n/a", "0.123", "5.98", "2.00e-05", "1.23e+05",
    ]  # fmt: skip
    row = {"q": 0.5, "low": 0.4, "high": None}
    assert with_interval(row, "q", "low", "high") == "0.500"
    assert with_interval({**row, "high": 0.6}, "q", "low", "high") == "0.500 [0.400, 0.600]"
    assert table(("a", "b"), [("x|\n", "y")]) == ["| a | b |", "| --- | ---: |", r"| x\|  | y |"]


def test_looks_differ_and_names_are_no_mathematics():
    assert len({tuple(look(i).values()) for i in range(32)}) == 32
    assert literal("$x$") == r"\$x\$"
    assert len(literal("n" * 50)) <= 35


def test_insert_keeps_everything_else(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("a\n<!-- m begin --><!-- m end -->\n<!-- n begin -->keep<!-- n end -->")
    insert(path, "m", "| new |")
    insert(path, "m", "| newer |")
    before, _, after = path.read_text().partition("Measured ")
    assert before == "a\n<!-- m begin -->\n| newer |\n\n"
    assert "Measured" not in after
    assert after.partition("\n")[2] == "<!-- m end -->\n<!-- n begin -->keep<!-- n end -->"
    assert [p.name for p in tmp_path.iterdir()] == ["page.md"]


@pytest.mark.parametrize(
    "text",
    ["", "<!-- m end --> <!-- m begin -->", "<!-- m begin -->" * 2 + "<!-- m end -->"],
)
def test_markers_must_be_there_once_and_in_order(tmp_path, text):
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ConfigError, match="each exactly once"):
        insert(tmp_path / "page.md", "m", "x")
    assert (tmp_path / "page.md").read_text() == text


def test_a_report_that_does_not_end_well_leaves_the_earlier_one(tmp_path):
    (tmp_path / "R").mkdir()
    (tmp_path / "R" / "report.json").write_text("{}")

    def fail_halfway():
        with report_folder(tmp_path / "R") as folder:
            (folder / "report.json").write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert (tmp_path / "R" / "report.json").read_text() == "{}"
    assert [path.name for path in tmp_path.iterdir()] == ["R"]


def test_only_a_report_is_replaced(tmp_path):
    check_place(tmp_path)  # empty
    check_place(tmp_path / "new")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ConfigError, match="is not a report"):
        check_place(tmp_path)
    with pytest.raises(ConfigError, match="is not a report"):
        check_place(tmp_path / "notes.txt")


def test_the_short_table_tells_the_best_quality_within_a_share_of_the_cost():
    curve = [[0.0, 0.9, 10.0], [0.1, 0.8, 4.0], [1.0, 0.85, 2.4], [9.0, 0.5, 1.1]]
    one = {"aiq": 0.7, "curve": curve}
    report = {
        "reference": {"best_single": {"cost_usd_per_1k": 10.0}},
        "routers": {"knn": one, "free": {"aiq": None, "curve": []}},
    }
    lines = _curves(report)
    assert [line for line in lines if line.startswith("| knn")] == [
        "| knn | n/a | 0.850 | 0.850 | 0.850 | 0.900 |"
    ]
    assert not any("free" in line for line in lines)
    assert _curves({"reference": {"best_single": {"cost_usd_per_1k": None}}, "routers": {}}) == []
