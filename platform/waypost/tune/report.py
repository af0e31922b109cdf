"""Report of a sweep: report.json, report.md, trials.parquet, plots, importance of parameters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from waypost.report.folder import write_json
from waypost.report.numbers import table
from waypost.tune.config import Range, TuneConfig
from waypost.tune.journal import TrialRow
from waypost.tune.plots import draw_curves, draw_importance, draw_parallel, draw_progress
from waypost.tune.select import Choice, compared, given, number, ranked, render_taken, value
from waypost.tune.space import SearchSpace

FEWEST = 12
"""Minimum number of trials for an estimate of importance."""

_TREES = 80
_LISTED = 15

Report = dict[str, Any]


def importance(rows: Sequence[TrialRow], space: SearchSpace, seed: int) -> dict[str, float] | None:
    """Return each parameter's share of permutation importance; the shares sum to 1.

    A random forest predicts the score from the setting. The importance of a parameter is the loss
    of accuracy on out-of-bag trials when its values are shuffled (Breiman, 2001). Returns None for
    too few trials, or if the forest explains nothing.
    """
    from sklearn.tree import DecisionTreeRegressor

    known = [row for row in rows if row.status == "done" and row.score is not None]
    names = list(space.space)
    if len(known) < FEWEST:
        return None
    columns, owner = _encoded(known, space)
    score = np.array([row.score for row in known])
    draw = np.random.default_rng(seed)
    lost = np.zeros(len(names))
    for tree in range(_TREES):
        rows_in = draw.integers(len(known), size=len(known))
        out = np.setdiff1d(np.arange(len(known)), rows_in)
        if len(out) < 2:
            continue
        fitted = DecisionTreeRegressor(max_features=0.7, min_samples_leaf=2, random_state=tree)
        fitted.fit(columns[rows_in], score[rows_in])
        base = ((fitted.predict(columns[out]) - score[out]) ** 2).mean()
        for place in range(len(names)):
            shuffled = columns[out].copy()
            own = np.flatnonzero(owner == place)
            shuffled[:, own] = shuffled[draw.permutation(len(out))][:, own]
            lost[place] += ((fitted.predict(shuffled) - score[out]) ** 2).mean() - base
    lost = np.maximum(lost, 0.0)
    if lost.sum() <= 0:
        return None
    return {name: float(part) for name, part in zip(names, lost / lost.sum(), strict=True)}


def _encoded(rows: Sequence[TrialRow], space: SearchSpace) -> tuple[NDArray[Any], NDArray[np.intp]]:
    """Return settings as numeric columns and the parameter of each; choices are one-hot."""
    columns: list[list[float]] = []
    owner: list[int] = []
    for place, (name, dimension) in enumerate(space.space.items()):
        if isinstance(dimension, Range):
            log = dimension.type == "loguniform"
            values = [row.setting.get(name) for row in rows]
            outside = (np.log(dimension.low) if log else dimension.low) - 1
            columns.append(
                [outside if v is None else float(np.log(v) if log else v) for v in values]
            )
            owner.append(place)
            continue
        for choice in dimension.values:
            columns.append(
                [float(name in row.setting and row.setting[name] == choice) for row in rows]
            )
            owner.append(place)
    return np.array(columns).T, np.array(owner, np.intp)


def describe(
    config: TuneConfig,
    space: SearchSpace,
    rows: Sequence[TrialRow],
    choice: Choice,
    facts: Mapping[str, Any],
) -> Report:
    """Return the content of report.json, without the numbers of the test split.

    Args:
        config: The sweep.
        space: Its search space.
        rows: Rows of the search.
        choice: The choice.
        facts: Further facts: data digest, questions, command.
    """
    sign = 1.0 if config.mode == "max" else -1.0
    by = {status: sum(row.status == status for row in rows) for status in ("done", "stopped")}
    failed = [row for row in rows if row.status == "failed"]
    return {
        "router": config.router,
        "metric": {
            "name": config.metric.name,
            "label": config.metric.label,
            "lambda": config.metric.lam,
            "mode": config.mode,
        },
        "folds": config.folds,
        "repeats": config.repeats,
        "seed": config.seed,
        "searcher": config.searcher,
        "scheduler": config.scheduler,
        "trials": {"tried": len(rows), **by, "failed": len(failed)},
        "taken": {
            "trial": choice.row.number,
            "is_default": choice.keeps_default,
            "parameters": space.parameters(given(choice.row)),
            "schedule": choice.row.schedule,
            "setting": choice.row.setting,
            "score": choice.score,
            "default_score": choice.default_score,
            "deals": choice.deals,
            "why": choice.why,
        },
        "compared": compared(space, choice),
        "gain": choice.gain,
        "gain_se": choice.gain_se,
        "chosen_gain": choice.chosen_gain,
        "best_of_search": {"trial": choice.best.number, "score": choice.best.score},
        "finalists": choice.finalists,
        "best_trials": [
            {"trial": one.number, **{k: getattr(one, k) for k in ("score", "seconds", "setting")}}
            for one in ranked(rows, sign)[:_LISTED]
        ],
        "failures": [{"trial": row.number, "error": row.error, **row.setting} for row in failed],
        "importance": importance(rows, space, config.seed),
        "seconds": max((row.at_s for row in rows), default=0.0),
        "fit_seconds": sum(row.seconds for row in rows),
        **facts,
    }


def write(
    folder: Path, report: Report, config: TuneConfig, space: SearchSpace, rows: Sequence[TrialRow]
) -> Report:
    """Write all files of the report and return the content of report.json.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    search = [row for row in rows if row.deal == 0]
    sign, taken = (1.0 if config.mode == "max" else -1.0), report["taken"]["trial"]
    label = config.metric.label
    draw_progress(search, label, sign, taken, folder / "progress.png")
    draw_parallel(search, space.space, label, sign, taken, folder / "parallel.png")
    write_trials(folder / "trials.parquet", rows, space)
    plots = ["progress", "parallel"]
    if draw_importance(report["importance"], folder / "importance.png"):
        plots.append("importance")
    if draw_curves(search, label, sign, taken, folder / "curves.png"):
        plots.append("curves")
    data = write_json(folder, {**report, "plots": plots})
    (folder / "report.md").write_text(render(data), encoding="utf-8")
    return data


def write_trials(path: Path, rows: Sequence[TrialRow], space: SearchSpace) -> None:
    """Write a row for each measurement; parameters outside its setting are null.

    Parameter columns are JSON text if their values have several types.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {
        "trial": [row.number for row in rows],
        "deal": [row.deal for row in rows],
        "status": [row.status for row in rows],
        "score": pa.array([row.score for row in rows], pa.float64()),
        "seconds": [row.seconds for row in rows],
        "at_s": [row.at_s for row in rows],
        "error": pa.array([row.error for row in rows], pa.string()),
        "epochs": pa.array([row.epochs for row in rows], pa.list_(pa.float64())),
        "losses": pa.array([row.losses for row in rows], pa.list_(pa.float64())),
    }
    for name in space.space:
        values = [row.setting.get(name) for row in rows]
        try:
            columns[f"parameter.{name}"] = pa.array(values)
        except (pa.ArrowInvalid, pa.ArrowTypeError):
            texts = [None if value is None else json.dumps(value) for value in values]
            columns[f"parameter.{name}"] = pa.array(texts, pa.string())
    parquet.write_table(pa.table(columns), path)


def render(report: Report) -> str:
    """Return report.md (null where a number cannot be computed)."""
    parts = [
        [f"# Sweep of {report['router']}", "", *_facts(report)],
        ["## What was taken", "", *render_taken(report)],
        *([["## On the test split", "", *_test(report["test"])]] if report.get("test") else []),
        ["## Finalists", "", *_finalists(report)],
        [f"## Best trials of {report['trials']['tried']}", "", *_best(report)],
        *([["## Trials that failed", "", *_failures(report)]] if report["failures"] else []),
        ["## Plots", "", *_plots(report["plots"])],
        ["## How it was measured", "", *_how(report)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _facts(report: Report) -> list[str]:
    tried = report["trials"]
    lines = [
        f"- {tried['tried']} trials: {tried['done']} measured, {tried['stopped']} stopped early, "
        f"{tried['failed']} failed; {report['searcher']} searcher, {report['scheduler']} "
        f"scheduler, {report['seconds'] / 60:.1f} minutes",
        f"- metric: {report['metric']['label']}, {report['metric']['mode']}; {report['folds']}"
        f"-fold cross-validation of {report['queries']} training questions, seed {report['seed']}",
        f"- data digest `{report['data_digest']}`",
    ]
    if report.get("command"):
        lines.append(f"- `{report['command']}`")
    return lines


def _test(test: Report) -> list[str]:
    if "failed" in test:
        return [f"Not measured: {name}: {why}" for name, why in test["failed"].items()]
    rows = [
        [name, *(number(test[key][name]) for key in ("quality", "aiq", "cost_usd_per_1k"))]
        for name in test["quality"]
    ]
    lines = table(("", "quality, lambda 0", "AIQ", "USD per 1k"), rows)
    if test.get("difference") is not None:
        lines += [
            "",
            f"Tuned less default, quality: {test['difference']:+.4f} "
            f"[{test['low']:+.4f}, {test['high']:+.4f}]; AIQ: {number(test['aiq_difference'])} "
            f"[{number(test['aiq_low'])}, {number(test['aiq_high'])}] (paired bootstrap, 95 %).",
        ]
    return [
        *lines,
        "",
        f"{test['queries']} questions, read once, after the choice among {test['trials']} trials.",
    ]


def _finalists(report: Report) -> list[str]:
    rows = [
        [
            "default" if one["trial"] == 0 else f"trial {one['trial']}",
            number(one["score"]),
            number(one["score_se"]),
            number(one["gain"]),
            number(one["gain_se"]),
        ]
        for one in report["finalists"]
    ]
    return table(("", "score", "its SE", "gain over default", "its SE"), rows)


def _best(report: Report) -> list[str]:
    rows = [
        [
            str(one["trial"]),
            number(one["score"]),
            f"{one['seconds']:.1f}",
            ", ".join(f"{k}={value(v)}" for k, v in one["setting"].items()) or "default",
        ]
        for one in report["best_trials"]
    ]
    return table(("trial", "score", "seconds", "setting"), rows)


def _failures(report: Report) -> list[str]:
    known = ("trial", "error")
    rows = [
        [
            str(one["trial"]),
            ", ".join(f"{k}={value(v)}" for k, v in one.items() if k not in known),
            one["error"] or "",
        ]
        for one in report["failures"][:_LISTED]
    ]
    more = len(report["failures"]) - _LISTED
    return [*table(("trial", "setting", "why"), rows), *([f"and {more} more"] if more > 0 else [])]


def _plots(names: Sequence[str]) -> list[str]:
    known = {
        "progress": "Every trial's score and the best so far",
        "parallel": "Settings of the trials, the best ones in blue",
        "importance": "How much each parameter matters",
        "curves": "Learning curves of the trials",
    }
    return [f"![{known[name]}]({name}.png)" for name in names]


def _how(report: Report) -> list[str]:
    chosen = report["chosen_gain"]
    lines = [
        "For each fold, a trial is fitted on the other folds and routes the questions of that "
        "fold; near-duplicates stay in one fold. The metric is computed on all these decisions "
        "together. The test split is not read before the choice is made.",
        "Trial 0 is the router's default (with the config's fixed values). The best trials are "
        f"measured again on {report['repeats']} further deals of the questions to folds. The "
        "default stays unless the best of them gains over one standard error (paired, over blocks "
        "of questions), and choosing the best trial gains on questions outside the choice.",
        "That last gain is estimated by bootstrap bias corrected cross-validation: "
        f"{number(chosen)}. The best score of the search, "
        f"{number(report['best_of_search']['score'])}, is optimistic: it is the best of many.",
    ]
    return [f"- {line}" for line in lines]
