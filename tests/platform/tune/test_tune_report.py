"""What a sweep's report says of the default and of the best other trial."""

from __future__ import annotations

import numpy as np
import pytest

from waypost.contracts.errors import ConfigError
from waypost.tune.config import check_sweep, defaults_of
from waypost.tune.journal import TrialRow
from waypost.tune.plots import _unit
from waypost.tune.report import describe, render
from waypost.tune.select import choose, render_taken
from waypost.tune.space import SearchSpace

KNN = {
    "router": "knnrouter",
    "fixed": {"kappa": 2},
    "space": {"k": {"type": "choice", "values": [1, 3, 9]}},
    "budget": {"trials": 3},
}
BASE = np.tile([0.4, 0.6], 25)  # mean 0.5, standard error 0.1 sqrt(50 / 49) / sqrt(50) = 0.1 / 7


def row(number: int, k: int | None, blocks, deal: int = 0) -> TrialRow:
    setting = {} if k is None else {"k": k}
    numbers = [float(one) for one in blocks]
    return TrialRow(
        number, f"k{k}", setting, deal, "done", float(np.mean(numbers)), 1.0, blocks=numbers
    )


def report_of(rows: list[TrialRow], again: list[TrialRow]) -> dict:
    config = check_sweep(KNN, "x")
    facts = {"queries": 50, "data_digest": "d"}
    space = SearchSpace(config, defaults_of(config))
    found = describe(config, space, rows, choose(rows, again, 1.0, 0), facts)
    return {**found, "plots": ["progress"]}


def test_where_the_default_stays_both_settings_stand_side_by_side():
    noisy = BASE + np.where(np.arange(50) < 26, 0.2, -0.2)  # +0.008
    rows = [row(0, None, BASE), row(1, 3, noisy), row(2, 9, BASE - 0.1)]
    again = [row(0, None, BASE, 1), row(1, 3, noisy, 1)]
    found = report_of(rows, again)
    default, other = found["compared"]["default"], found["compared"]["best_other"]
    assert found["taken"]["is_default"]
    assert (default["trial"], other["trial"]) == (0, 1)
    assert default["score"] == pytest.approx(0.5)
    assert default["score_se"] == pytest.approx(0.1 / 7)
    assert other["gain"] == pytest.approx(0.008)
    assert other["gain_se"] == pytest.approx(np.std(noisy - BASE, ddof=1) / np.sqrt(50))
    # all parameters, the fixed one as it was fixed, not the searched ones only
    assert default["parameters"].keys() == other["parameters"].keys()
    assert (default["parameters"]["kappa"], default["parameters"]["k"]) == (2, None)
    assert other["parameters"] == {**default["parameters"], "k": 3}
    text = "\n".join(render_taken(found))
    assert "3 trials were tried. The default stays: trial 1 gains 0.008" in text
    assert "| parameter | default (taken) | trial 1 |" in text
    assert "| `k` | null | **3** |" in text
    assert "| `kappa` | 2 | 2 |" in text
    assert "0.5000 (SE 0.0143) | 0.5080 (SE " in text
    assert "mean of 2 deals" in text
    assert text in render(found)


def test_where_another_trial_is_taken_it_stands_beside_the_default():
    found = report_of([row(0, None, BASE), row(1, 3, BASE + 0.1)], [])
    text = "\n".join(render_taken(found))
    assert "| parameter | default | trial 1 (taken) |" in text
    assert "gain over the default |  | 0.1000 (SE " in text
    assert "mean of 1 deal of" in text


def test_a_sweep_without_a_second_side():
    alone = report_of([row(0, None, BASE)], [])
    assert alone["compared"]["best_other"] is None
    assert "| parameter | default (taken) |" in render(alone)
    failed = TrialRow(0, "k0", {}, 0, "failed", None, 0.1, error="no weights")
    other = report_of([failed, row(1, 3, BASE)], [])
    assert other["compared"]["default"] is None
    assert "| parameter | trial 1 (taken) |" in render(other)
    assert "| gain over the default | n/a |" in render(other)


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one():
    wrong = {
        "router": "mlprouter", "budgt": {"trials": 2}, "searcher": "optunna", "scheduler": "ashaa",
        "metric": {"name": "qualty"}, "fixed": {"epoch": 3},
        "space": {"hiden": {"type": "choice", "values": [8]}},
    }  # fmt: skip
    with pytest.raises(ConfigError) as caught:
        check_sweep(wrong, "x")
    for name in ("budget", "optuna", "asha", "quality", "epochs", "hidden"):
        assert f"did you mean '{name}'?" in str(caught.value)


def test_the_sweeps_time_is_drawn_in_a_unit_that_fits():
    assert [_unit(seconds)[0] for seconds in (0.0, 45.0, 119.0, 120.0, 7199.0, 7200.0)] == [
        "seconds", "seconds", "seconds", "minutes", "minutes", "hours",
    ]  # fmt: skip


def test_a_winner_that_the_test_split_cannot_measure_is_told_with_its_reason():
    from waypost.tune.report import _test

    assert _test({"queries": 3, "trials": 2, "failed": {"best": "no scores"}}) == [
        "Not measured: best: no scores"
    ]
