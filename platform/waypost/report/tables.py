"""The tables of report.md, built from the table of metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict

from waypost.metrics.measure import HEADLINE, Metric, Numbers
from waypost.metrics.table import BY_KEY, CALLS, MATCHED, METRICS, PAIRED, PREDICTIONS, ROUTERS, TWO
from waypost.report.numbers import UNKNOWN, fixed, percent, table, usd, with_interval


class Leaks(TypedDict):
    """The evaluated queries with a near-duplicate in training."""

    count: float
    query_ids: list[str]


class Report(TypedDict):
    """Content of report.json; null where a number cannot be computed."""

    data_digest: str
    train_digest: str | None
    split: str
    n_queries: float
    n_train: float
    seed: int | list[int]
    cost_basis: str
    cost_ref_usd_per_1k: float | None
    leaks: Leaks
    llms: dict[str, Numbers]
    tasks: dict[str, float]
    two_models: dict[str, str] | None
    top: str | None
    reference: dict[str, Numbers]
    routers: dict[str, Numbers]
    failed: dict[str, str]
    live: dict[str, Numbers]
    how: dict[str, float]
    command: NotRequired[str]


REFERENCES = {
    "random": "random",
    "best_single": "always the best single",  # the router best_single weighs cost
    "cheapest": "cheapest",
    "smallest": "smallest",
    "largest": "largest",
    "zero_router": "zero router",
    "task_oracle": "task oracle",
    "oracle": "oracle",
}
"""Key of a reference policy -> its name in tables, in the order of the table."""


def references(report: Report) -> dict[str, Numbers]:
    """Return the references of a report, in the order of the table."""
    return {key: report["reference"][key] for key in REFERENCES if key in report["reference"]}


def named(report: Report) -> list[tuple[str, Numbers]]:
    """Return the name in tables and the numbers of every row, references first."""
    found: list[tuple[str, Numbers]] = []
    for key, row in references(report).items():
        model = row.get("model_name")
        found.append((f"*{REFERENCES[key]}*" + (f" ({model})" if model else ""), row))
    return [*found, *report["routers"].items()]


_FORMS: dict[str, Callable[[Any], str]] = {
    "share": percent,
    "USD per 1,000 queries": usd,
    "USD per million tokens": usd,
    "ms": lambda value: fixed(value, 2),
    "s": lambda value: fixed(value, 2),
    "calls": lambda value: fixed(value, 2),
    "p": lambda value: UNKNOWN if value is None else f"{value:.2g}",
    "%": lambda value: UNKNOWN if value is None else f"{value:+.0f} %",
    "yes or no": lambda value: {True: "yes", False: "no"}.get(value, UNKNOWN),
    **dict.fromkeys(
        ("queries", "LLMs", "steps"),
        lambda value: UNKNOWN if value is None else f"{value:g}",
    ),
}
"""Unit -> function that formats a value; other units have three decimals."""


def written(metric: Metric, row: Numbers, *, interval: bool = True) -> str:
    """Format a metric's value of a row, with its interval if it has one."""
    if metric.interval is not None and interval:
        return with_interval(row, metric.key, *metric.interval, sign=metric.signed)
    text = _written(metric, row.get(metric.key))
    if metric.key == "delta_ibc" and row.get("dominates_cheapest"):
        return "dominates"
    if metric.key == "auroc" and text != UNKNOWN:
        known = [one["auroc"] for one in row["by_llm"].values() if one["auroc"] is not None]
        return f"{text} ({fixed(min(known))} to {fixed(max(known))})"
    return text


def _written(metric: Metric, value: Any) -> str:
    if metric.unit == "share" and metric.signed:
        return percent(value, sign=True)
    form = _FORMS.get(metric.unit)
    return fixed(value, sign=metric.signed) if form is None else form(value)


def of_metrics(
    metrics: Iterable[Metric], rows: Sequence[tuple[str, Numbers]], titles: Mapping[str, str] | None
) -> list[str]:
    """Return a table with a row for each name and a column for each metric.

    A metric whose value is a mapping has a column for each key. A metric that is computed on
    request has a column only if it was computed.
    """
    heads, columns = ["router"], [[name for name, _ in rows]]
    for metric in metrics:
        title = (titles or {}).get(metric.key, metric.title)
        values = [row.get(metric.key) for _, row in rows]
        if metric.on_request and values.count(None) == len(values):
            continue
        parts = next((list(value) for value in values if isinstance(value, Mapping)), None)
        if parts is None:
            heads.append(title)
            columns.append([written(metric, row) for _, row in rows])
            continue
        for part in parts:
            heads.append(title.format(part))
            inner = [value[part] for value in values if value is not None]
            numbers = [one["recall"] if isinstance(one, Mapping) else one for one in inner]
            columns.append([_written(metric, number) for number in numbers])
    return table(heads, list(zip(*columns, strict=True)))


def _section(
    heading: str, rows: Iterable[tuple[str, Numbers]], titles: Mapping[str, str] | None = None
) -> list[str]:
    return of_metrics([row for row in METRICS if row.table == heading], list(rows), titles)


def routers(report: Report) -> list[str]:
    """Return the main table: one row for each router, references first."""
    note = (
        "Quality and cost at lambda 0; 95 % intervals in brackets. References in italics; "
        "n/a: cannot be computed, or not reached."
    )
    trained = report["train_digest"]
    others = [n for n, row in report["routers"].items() if row["trained_on"] != trained]
    lines = [*_section(ROUTERS, named(report)), "", note]
    if trained is not None and others:  # a report over seeds has no single training split
        lines += [
            "",
            f"Not trained on this folder's training split: {', '.join(others)}. They may have been "
            "trained on these queries.",
        ]
    return lines


def by_seed(report: Report) -> list[str]:
    """Return each seed's headline and standard deviation; empty for a single split."""
    seeds = report["seed"]
    if not isinstance(seeds, list):
        return []
    heads = ("router", "vs best single, sd", *(f"seed {seed}" for seed in seeds), "AIQ, sd")
    rows = []
    for name, row in report["routers"].items():
        own, sd = row["seeds"], row["sd"]
        pairs = zip(own["quality"], own["delta_best_single"], strict=True)
        rows.append(
            [
                name,
                f"{fixed(row['delta_best_single'], sign=True)}, {fixed(sd['delta_best_single'])}",
                *(f"{fixed(quality)} ({fixed(delta, sign=True)})" for quality, delta in pairs),
                f"{fixed(row['aiq'])}, {fixed(sd['aiq'])}",
            ]
        )
    note = "Quality at lambda 0 of each seed, in brackets the difference to the best single LLM."
    return ["## By seed", "", *table(heads, rows), "", note]


def failed(report: Report) -> list[str]:
    """Return the routers that were not measured, with the reason."""
    rows = [[name, why] for name, why in report["failed"].items()]
    return ["## Not measured", "", *table(("router", "why"), rows)]


def unseen(report: Report) -> list[str]:
    """Return the queries that are also in training, and the headline without them."""
    count, ids = report["leaks"]["count"], report["leaks"]["query_ids"]
    lines = ["## Questions that are also in training", ""]
    if not count:
        return [*lines, "None: no query has a near-duplicate in the training split."]
    shown = ", ".join(map(str, ids[:30])) + (f" and {len(ids) - 30} more" if len(ids) > 30 else "")
    rows = [(name, row["unseen"]) for name, row in named(report) if "unseen" in row]
    titles = {"quality": f"quality on the {report['n_queries'] - count:g} others"}
    return [
        *lines,
        f"{count:g} of {report['n_queries']:g} queries have a near-duplicate in the training "
        f"split: query_id {shown}. Without them:",
        "",
        *of_metrics([BY_KEY[key] for key in HEADLINE], rows, titles),
    ]


def tasks(report: Report) -> list[str]:
    """Return the mean score of each row by task."""
    tasks = list(report["tasks"])
    heads = ("router", "mean of tasks", *(f"{t} ({report['tasks'][t]:g})" for t in tasks))
    rows = [
        [
            name,
            fixed(_mean(list(row["tasks"].values()))),
            *(fixed(row["tasks"].get(t)) for t in tasks),
        ]
        for name, row in named(report)
        if "tasks" in row
    ]
    return table(heads, rows)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def llms(report: Report) -> list[str]:
    """Return the table of the single LLMs."""
    rows = [
        [name, fixed(row["quality"]), usd(row["cost_usd_per_1k"]), usd(row["list_price"])]
        for name, row in report["llms"].items()
    ]
    return table(("LLM", "quality", "USD per 1k", "list price, USD per 1M tokens"), rows)


def prices(report: Report) -> list[list[str]]:
    """Return the quality at the list price of each LLM; empty without known prices."""
    routers = report["routers"]
    first = next(filter(None, (row["quality_at_price"] for row in routers.values())), None)
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
            *([] if row["quality_at_price"] else [UNKNOWN] * len(prices)),
            usd(row["list_price"]),
        ]
        for name, row in routers.items()
    ]
    heads = ("router", *(f"at {usd(p)}" for p in prices), "price at lambda 0")
    note = (
        "Best quality of a setting whose LLMs cost at most this on average (list price, USD per "
        "million tokens, three prompt tokens for one generated); in brackets for a mix of two "
        "settings."
    )
    return [["## Quality at a price", "", *table(heads, [best, *rows]), "", note]]


def _near(alone: Mapping[float, float], price: float) -> float | None:
    return next((q for p, q in alone.items() if abs(p - price) <= 1e-9 * price), None)


def matched(report: Report) -> list[str]:
    """Return the numbers of each curve at the best single LLM's cost and quality."""
    spent = report["reference"]["best_single"]["cost_usd_per_1k"]
    if spent is None:
        return ["No costs are known."]
    lines = _section(MATCHED, report["routers"].items())
    return [*lines, "", f"The best single LLM costs {usd(spent)} USD per 1k."]


def predictions(report: Report) -> list[str]:
    """Return the metrics of predicted scores, confidence and dollars, for routers that predict."""
    rows = [item for item in report["routers"].items() if item[1]["brier"] is not None]
    return _section(PREDICTIONS, rows) if rows else ["No router predicts scores."]


def two_models(report: Report) -> list[list[str]]:
    """Return RouteLLM's metrics; empty if no router has them."""
    names = report["two_models"]
    rows = [item for item in report["routers"].items() if item[1]["apgr"] is not None]
    if names is None or not rows:
        return []
    note = (
        f"Two LLMs alone: {names['weak']}, or {names['strong']} for the queries that it is "
        f"predicted to gain most on. Weak by {names['by']}."
    )
    return [[f"## {TWO}", "", note, "", *_section(TWO, rows)]]


def paired(report: Report) -> list[str]:
    """Return paired tests, results on hard questions, and checks of the policy."""
    titles = {"delta_top": f"vs {report['top'] or 'the best'}"}
    return _section(PAIRED, report["routers"].items(), titles)


def calls(report: Report) -> list[list[str]]:
    """Return calls and seconds of each router; empty if all make one call of unknown time."""
    rows = report["routers"]
    known = (row["calls"] != 1 or row["answer_s"] is not None for row in rows.values())
    return [[f"## {CALLS}", "", *_section(CALLS, rows.items())]] if any(known) else []


LIVE = {
    "calls": "different calls",
    "cost_usd": "USD",
    "failed": "failed",
    "left": "left out by the budget",
    "unanswered": "questions without an answer",
    "not_scored": "answers not scored",
}
"""Key of a count of live calls -> its column."""


def live(report: Report) -> list[list[str]]:
    """Return the calls that were made live; empty if there are none."""
    if not report["live"]:
        return []
    rows = [
        [name, *(usd(one[key]) if key == "cost_usd" else f"{one[key]:g}" for key in LIVE)]
        for name, one in report["live"].items()
    ]
    note = (
        "Calls that the data does not have, made live by this evaluation or an earlier one in the "
        "same folder. A failed call costs 0 dollars."
    )
    return [["## Calls recorded live", "", *table(("router", *LIVE.values()), rows), "", note]]


def episodes(report: Report) -> list[list[str]]:
    """Return the calls of routers of several calls at each lambda; empty without such routers."""
    rows = [
        [
            f"{name}, lambda {one['lambda']:.3g}",
            fixed(one["calls"], 2),
            *(percent(one[key]) for key in ("escalated", "kept_wrong", "left_right")),
        ]
        for name, row in report["routers"].items()
        for one in row["episodes"]
    ]
    if not rows:
        return []
    heads = ("router", "calls a query", "escalated", "wrong of those kept", "right of those left")
    return [["## Routers of several calls", "", *table(heads, rows)]]
