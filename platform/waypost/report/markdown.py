"""report.md: the tables of an evaluation, and how each number was computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.report.numbers import UNKNOWN, fixed, percent, table, usd, with_interval

REFERENCES = {
    "random": "random",
    "best_single": "best single",
    "cheapest": "cheapest",
    "smallest": "smallest",
    "largest": "largest",
    "zero_router": "zero router",
    "task_oracle": "task oracle",
    "oracle": "oracle",
}
"""Reference policies and what people call them, in the order of the table."""

_COLUMNS = (
    "router", "quality", "USD per 1k", "vs best single", "CostSave@100 %", "CostSave@95 %",
    "PerfGain", "AIQ", "AIQ vs zero", "Gap@Oracle", "headroom", "decision ms p50 / p99",
    "usage entropy", "collapse", "flips", "fit s",
)  # fmt: skip

Report = Mapping[str, Any]


def render(report: Report) -> str:
    """Return report.md of a report (null where a number cannot be computed)."""
    parts = [
        ["# Evaluation", "", *_facts(report)],
        ["## Routers", "", *_routers(report)],
        *([_failed(report)] if report["failed"] else []),
        _unseen(report),
        ["## Quality by task, lambda 0", "", *_tasks(report)],
        ["## Single LLMs", "", *_llms(report)],
        *_prices(report),
        ["## Calibration and hard questions", "", *_details(report)],
        ["## Plots", "", *_plots(report)],
        ["## How the numbers were computed", "", *_how(report)],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


def name_of(key: str, row: Mapping[str, Any]) -> str:
    """Return what a reference is called in a table, with the LLM where it is one."""
    model = row.get("model_name")
    return f"*{REFERENCES[key]}*" + (f" ({model})" if model else "")


def references(report: Report) -> dict[str, Mapping[str, Any]]:
    """Return the references there are, in the order of the table."""
    return {key: report["reference"][key] for key in REFERENCES if key in report["reference"]}


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


def _routers(report: Report) -> list[str]:
    rows = [_row(name_of(key, row), row) for key, row in references(report).items()]
    rows += [_row(name, row) for name, row in report["routers"].items()]
    note = (
        "Quality and cost at lambda 0; 95 % intervals in brackets. References in italics; "
        "n/a: cannot be computed, or not reached."
    )
    return [*table(_COLUMNS, rows), "", note]


def _row(name: str, row: Mapping[str, Any]) -> list[str]:
    p50, p99 = row.get("decision_ms_p50"), row.get("decision_ms_p99")
    return [
        name,
        with_interval(row, "quality", "quality_low", "quality_high"),
        usd(row.get("cost_usd_per_1k")),
        with_interval(row, "delta_best_single", "delta_low", "delta_high", sign=True),
        percent(row.get("cost_save")),
        percent(row.get("cost_save_95")),
        percent(row.get("perf_gain")),
        with_interval(row, "aiq", "aiq_low", "aiq_high"),
        with_interval(row, "delta_aiq", "delta_aiq_low", "delta_aiq_high", sign=True),
        percent(row.get("gap_oracle")),
        percent(row.get("recovered_headroom")),
        UNKNOWN if p50 is None else f"{p50:.2f} / {p99:.2f}",
        fixed(row.get("usage_entropy"), 2),
        fixed(row.get("collapse_index"), 2, sign=True),
        percent(row.get("flip_rate")),
        fixed(row.get("fit_s"), 2),
    ]


def _failed(report: Report) -> list[str]:
    rows = [[name, why] for name, why in report["failed"].items()]
    return ["## Not measured", "", *table(("router", "why"), rows)]


def _unseen(report: Report) -> list[str]:
    count, ids = report["leaks"]["count"], report["leaks"]["query_ids"]
    lines = ["## Questions that stand in training, too", ""]
    if not count:
        return [*lines, "None: no query has a near-duplicate in the training split."]
    shown = ", ".join(map(str, ids[:30])) + (f" and {len(ids) - 30} more" if len(ids) > 30 else "")
    rows = [
        [
            name,
            with_interval(row["unseen"], "quality", "quality_low", "quality_high"),
            with_interval(row["unseen"], "delta_best_single", "delta_low", "delta_high", sign=True),
        ]
        for name, row in _named(report)
        if "unseen" in row
    ]
    head = f"quality on the {report['n_queries'] - count:g} others"
    return [
        *lines,
        f"{count:g} of {report['n_queries']:g} queries have a near-duplicate in the training "
        f"split: query_id {shown}. Without them:",
        "",
        *table(("router", head, "vs best single"), rows),
    ]


def _named(report: Report) -> list[tuple[str, Mapping[str, Any]]]:
    named = [(name_of(key, row), row) for key, row in references(report).items()]
    return [*named, *report["routers"].items()]


def _tasks(report: Report) -> list[str]:
    tasks = list(report["tasks"])
    heads = ("router", "mean of tasks", *(f"{t} ({report['tasks'][t]:g})" for t in tasks))
    rows = [
        [
            name,
            fixed(_mean(list(row["tasks"].values()))),
            *(fixed(row["tasks"].get(t)) for t in tasks),
        ]
        for name, row in _named(report)
        if "tasks" in row
    ]
    return table(heads, rows)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _llms(report: Report) -> list[str]:
    rows = [
        [name, fixed(row["quality"]), usd(row["cost_usd_per_1k"]), usd(row["list_price"])]
        for name, row in report["llms"].items()
    ]
    return table(("LLM", "quality", "USD per 1k", "list price, USD per 1M tokens"), rows)


def _prices(report: Report) -> list[list[str]]:
    routers = report["routers"]
    first = next((row["quality_at_price"] for row in routers.values()), None)
    if not first:
        return []
    alone: dict[float, float] = {}
    for row in report["llms"].values():
        price = row["list_price"]
        if price is not None and row["quality"] is not None:
            alone[price] = max(alone.get(price, 0.0), row["quality"])
    prices = [price for price, _, _ in first]
    best = ["*best single LLM of that price*", *(fixed(_near(alone, p)) for p in prices), ""]
    rows = [
        [
            name,
            *(f"{fixed(at)} ({fixed(mixed)})" for _, at, mixed in row["quality_at_price"]),
            usd(row["list_price"]),
        ]
        for name, row in routers.items()
    ]
    heads = ("router", *(f"at {usd(p)}" for p in prices), "price at lambda 0")
    note = (
        "Best quality of a setting whose LLMs cost at most this on average (list price, USD per "
        "million tokens, three prompt tokens for one generated); in brackets with the traffic "
        "shared between two settings."
    )
    return [["## Quality at a price", "", *table(heads, [best, *rows]), "", note]]


def _near(alone: Mapping[float, float], price: float) -> float | None:
    return next((q for p, q in alone.items() if abs(p - price) <= 1e-9 * price), None)


def _details(report: Report) -> list[str]:
    heads = ["router", "Brier", "ECE", "wins / ties / losses", "McNemar p (Holm)"]
    groups = next((list(row["solver_recall"]) for row in report["routers"].values()), [])
    heads += [f"solver picked, {g} solve it" for g in groups]
    heads += ["not worse by 2 points", "beats single LLMs", "delta IBC", "cost rises"]
    heads += ["not measured"]
    rows = []
    for name, row in report["routers"].items():
        holm = row["mcnemar_p_holm"]
        recall = [row["solver_recall"][g]["recall"] for g in groups]
        rows.append(
            [
                name,
                fixed(row["brier"]),
                fixed(row["ece"]),
                f"{row['wins']:g} / {row['ties']:g} / {row['losses']:g}",
                UNKNOWN if holm is None else f"{holm:.2g}",
                *map(percent, recall),
                {True: "yes", False: "no", None: UNKNOWN}[row["non_inferior"]],
                UNKNOWN if row["beats_singles"] is None else f"{row['beats_singles']:g}",
                "dominates" if row["dominates_cheapest"] else _ibc(row["delta_ibc"]),
                UNKNOWN if row["cost_rises"] is None else f"{row['cost_rises']:g}",
                f"{row['not_measured']:g}",
            ]
        )
    return table(heads, rows)


def _ibc(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:+.0f} %"


def _plots(report: Report) -> list[str]:
    files = {
        "curve.png": "Cost and quality of each router, hull of the single LLMs, oracle",
        "usage.png": "Who answers, by lambda",
        "reliability.png": "Predicted and measured scores",
    }
    return [f"![{text}]({name})" for name, text in files.items()]


def _how(report: Report) -> list[str]:
    how = report["how"]
    lines = [
        "Replay: each choice is looked up in the measured outcomes; no LLM was called. A choice "
        "that was not measured is left out and counted, never 0.",
        f"Intervals: paired bootstrap over queries, percentile 95 %, {how['bootstrap_draws']} "
        f"draws; curve metrics computed anew in {how['curve_draws']} of them."
        + (
            " Numbers are means over the seeds, intervals from nested draws (seeds, then queries)."
            if isinstance(report["seed"], list)
            else ""
        ),
        "Best single and cheapest are chosen on the training split. Task oracle: the best LLM of "
        "the query's true task by training means. Zero router: the hull of the single LLMs on "
        "this split. Oracle: the cheapest of the best LLMs of each query; it profits from luck.",
        "AIQ: area below the non-decreasing convex hull of (mean cost, mean quality) over lambda, "
        "from the cheapest to the dearest single LLM's mean cost on this split, divided by that "
        "range; the hull starts at the cheapest single LLM and goes on flat to the right. "
        "`aiq_log` in report.json is the same over log cost.",
        "CostSave@x: 1 - cost of the cheapest setting of at least x of the best single LLM's "
        "quality / the best single LLM's cost. PerfGain: best setting's quality over the best "
        "single LLM's, minus 1. Headroom: share of oracle minus best single that is reached. "
        "Both are the best of all settings on this split, so a little optimistic.",
        "Delta IBC: quality gained for a dollar beyond the cheapest single LLM, over what the best "
        "single LLM gains for one, minus 1; above 0 lies above the line between the two.",
        "Decision ms: text to decision, one at a time, embedding included, on "
        f"{how['timed']:g} texts; flips: mean share of {how['rewritten']:g} texts whose choice "
        "changes with case, blanks, punctuation or typos. Fit s: without embedding.",
        "Lambda 1e9: cost alone decides. Dollars are those of 1,000 queries, in report.json, too.",
        f"A mean cost is stated where at most {percent(how['most_unknown_cost'])} of the calls "
        "have none.",
    ]
    return [f"- {line}" for line in lines]
