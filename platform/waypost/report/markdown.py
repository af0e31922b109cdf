"""report.md: the tables of an evaluation, and the definition of each number."""

from __future__ import annotations

from waypost.metrics.table import MATCHED, METRICS, PAIRED, PREDICTIONS, ROUTERS
from waypost.report import tables
from waypost.report.numbers import percent, table
from waypost.report.tables import Report


def render(report: Report) -> str:
    """Return report.md of a report."""
    parts = [
        ["# Evaluation", "", *_facts(report)],
        [f"## {ROUTERS}", "", *tables.routers(report)],
        *([tables.failed(report)] if report["failed"] else []),
        *([lines] if (lines := tables.by_seed(report)) else []),
        tables.unseen(report),
        ["## Quality by task, lambda 0", "", *tables.tasks(report)],
        ["## Single LLMs", "", *tables.llms(report)],
        *tables.prices(report),
        [f"## {MATCHED}", "", *tables.matched(report)],
        *tables.two_models(report),
        [f"## {PREDICTIONS}", "", *tables.predictions(report)],
        [f"## {PAIRED}", "", *tables.paired(report)],
        *tables.calls(report),
        *tables.episodes(report),
        *tables.live(report),
        ["## Plots", "", *_plots(report)],
        ["## How the numbers were computed", "", *_how(report)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def _facts(report: Report) -> list[str]:
    seeds = report["seed"]
    lines = [
        f"- data digest `{report['data_digest']}`",
        f"- {report['split']} split: {report['n_queries']:g} queries of "
        f"{len(report['tasks'])} tasks, {len(report['llms'])} LLMs; "
        f"training split: {report['n_train']:g} queries",
        f"- seed{'s' if isinstance(seeds, list) else ''} "
        f"{', '.join(map(str, seeds)) if isinstance(seeds, list) else seeds}",
        f"- cost: {report['cost_basis']}",
    ]
    if report.get("command"):
        lines.append(f"- `{report['command']}`")
    return lines


def _plots(report: Report) -> list[str]:
    files = {
        "curve.png": "Cost and quality of each router, hull of the single LLMs, oracle",
        "usage.png": "Share of queries of each LLM, by lambda",
        "reliability.png": "Predicted and measured scores",
    }
    return [f"![{text}]({name})" for name, text in files.items()]


def _how(report: Report) -> list[str]:
    how = report["how"]
    lines = [
        "Replay: each choice is looked up in the measured outcomes; "
        + (
            f"calls of {', '.join(report['live'])} were made live."
            if report["live"]
            else "no LLM was called."
        )
        + " A choice that was not measured is left out and counted; it is not scored as 0.",
        "Intervals: paired bootstrap over queries, near-duplicates drawn together, percentile "
        f"95 %, {how['bootstrap_draws']} draws; metrics of curves and predictions use "
        f"{how['curve_draws']} of them."
        + (
            " Numbers are means over the seeds. Intervals are from nested draws of seeds and "
            "queries, in which a query has the same weight in all splits that contain it."
            if isinstance(report["seed"], list)
            else ""
        ),
        "Best single and cheapest are chosen on the training split. Task oracle: the best LLM of "
        "the query's true task by training means. Zero router: the hull of the single LLMs on "
        "this split. Oracle: the cheapest of the best LLMs of each query; it also selects chance "
        "successes.",
        "Lambda 1e9: only cost decides. Dollars are per 1,000 queries, also in report.json.",
        f"A mean cost is given if at most {percent(how['most_unknown_cost'])} of the calls have "
        "no known cost.",
        f"Timed: {how['timed']:g} texts; rewritten: {how['rewritten']:g} texts.",
        "In formulas s[i,j] is the measured score of LLM j on question i, p[i,j] the predicted "
        "score; Q and C are mean score and dollars of the choices at lambda 0.",
        "Routers of several calls: escalated is the share of queries whose answer is not from the "
        "LLM called first. The table shows how many kept answers are wrong, and how many of the "
        "answers that were escalated were right. Calls include verdicts.",
    ]
    heads = ("metric", "in report.json", "how", "better", "source")
    rows = [
        (one.title.replace("{}", "x"), f"`{one.key}`", one.formula, one.better, one.source)
        for one in METRICS
        if one.table
    ]
    return [*table(heads, rows), "", *(f"- {line}" for line in lines)]
