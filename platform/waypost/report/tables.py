"""Who stands in a report's tables, and what the references are called there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.report.numbers import UNKNOWN, fixed, percent, table, usd, with_interval

Report = Mapping[str, Any]

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


def name_of(key: str, row: Mapping[str, Any]) -> str:
    """Return what a reference is called in a table, with the LLM where it is one."""
    model = row.get("model_name")
    return f"*{REFERENCES[key]}*" + (f" ({model})" if model else "")


def references(report: Report) -> dict[str, Mapping[str, Any]]:
    """Return the references there are, in the order of the table."""
    return {key: report["reference"][key] for key in REFERENCES if key in report["reference"]}


def named(report: Report) -> list[tuple[str, Mapping[str, Any]]]:
    """Return every row, references first, by the name it has in a table."""
    named = [(name_of(key, row), row) for key, row in references(report).items()]
    return [*named, *report["routers"].items()]


_COLUMNS = (
    "router", "quality", "USD per 1k", "vs best single", "CostSave@100 %", "CostSave@95 %",
    "PerfGain", "AIQ", "AIQ vs zero", "Gap@Oracle", "headroom", "decision ms p50 / p99",
    "usage entropy", "collapse", "flips", "fit s",
)  # fmt: skip


def routers(report: Report) -> list[str]:
    """The minimal report: one row a router, references first."""
    rows = [_row(name_of(key, row), row) for key, row in references(report).items()]
    rows += [_row(name, row) for name, row in report["routers"].items()]
    note = (
        "Quality and cost at lambda 0; 95 % intervals in brackets. References in italics; "
        "n/a: cannot be computed, or not reached."
    )
    return [*table(_COLUMNS, rows), "", note, *_foreign(report)]


def _foreign(report: Report) -> list[str]:
    trained = report["train_digest"]
    others = [n for n, row in report["routers"].items() if row["trained_on"] != trained]
    if trained is None or not others:  # over seeds there is no one training split
        return []
    return [
        "",
        f"Not trained on this folder's training split: {', '.join(others)}. What they saw of these "
        "queries is not known here.",
    ]


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


def by_seed(report: Report) -> list[str]:
    """Each seed's headline, and its spread; nothing for a single split."""
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
    """Who was not measured, and why."""
    rows = [[name, why] for name, why in report["failed"].items()]
    return ["## Not measured", "", *table(("router", "why"), rows)]


def unseen(report: Report) -> list[str]:
    """What stands in training, too, and the headline without it."""
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
        for name, row in named(report)
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


def tasks(report: Report) -> list[str]:
    """Mean score by task."""
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
    """The single LLMs."""
    rows = [
        [name, fixed(row["quality"]), usd(row["cost_usd_per_1k"]), usd(row["list_price"])]
        for name, row in report["llms"].items()
    ]
    return table(("LLM", "quality", "USD per 1k", "list price, USD per 1M tokens"), rows)


def prices(report: Report) -> list[list[str]]:
    """Quality at the list price of each LLM; nothing where no prices are known."""
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


def matched(report: Report) -> list[str]:
    """What each curve reaches at the best single LLM's cost and quality."""
    spent = report["reference"]["best_single"]["cost_usd_per_1k"]
    if spent is None:
        return ["No costs are known."]
    shares = next((list(row["quality_at_cost"]) for row in report["routers"].values()), [])
    heads = ["router", *(f"best quality within {share} % of its cost" for share in shares)]
    heads += ["CostSave@99 %", "CostSave@90 %", "hypervolume", "arena score"]
    rows = [
        [
            name,
            *(fixed(row["quality_at_cost"][share]) for share in shares),
            percent(row["cost_save_99"]),
            percent(row["cost_save_90"]),
            fixed(row["hypervolume"]),
            fixed(row["arena_score"]),
        ]
        for name, row in report["routers"].items()
    ]
    return [*table(heads, rows), "", f"The best single LLM costs {usd(spent)} USD per 1k."]


def predictions(report: Report) -> list[str]:
    """How good predicted scores, confidence and dollars are; one row a router that predicts."""
    heads = (
        "router", "Brier", "log loss", "ECE", "AUROC (worst to best LLM)", "Kendall tau", "NDCG",
        "by confidence: quality over coverage", "over random order",
        "by predicted gain: quality over coverage", "over random order",
        "cost error", "cost too low",
    )  # fmt: skip
    rows = [
        [
            name,
            fixed(row["brier"]),
            fixed(row["log_loss"]),
            fixed(row["ece"]),
            _auroc(row),
            with_interval(row, "kendall_tau", "kendall_tau_low", "kendall_tau_high", sign=True),
            fixed(row["ndcg"]),
            *_fallback(row, "selective"),
            *_fallback(row, "margin"),
            percent(row["cost_error"]),
            percent(row["cost_too_low"]),
        ]
        for name, row in report["routers"].items()
        if row["brier"] is not None
    ]
    return table(heads, rows) if rows else ["No router predicts scores."]


def _fallback(row: Mapping[str, Any], order: str) -> tuple[str, str]:
    gain = f"{order}_gain"
    over = with_interval(row, gain, f"{gain}_low", f"{gain}_high", sign=True)
    return fixed(row[f"{order}_area"]), over


def _auroc(row: Mapping[str, Any]) -> str:
    known = [one["auroc"] for one in row["by_llm"].values() if one["auroc"] is not None]
    if row["auroc"] is None or not known:
        return UNKNOWN
    return f"{fixed(row['auroc'])} ({fixed(min(known))} to {fixed(max(known))})"


def two_models(report: Report) -> list[list[str]]:
    """RouteLLM's numbers; nothing where no router has them."""
    names = report["two_models"]
    judged = {name: row for name, row in report["routers"].items() if row["apgr"] is not None}
    if names is None or not judged:
        return []
    calls = [key for key in next(iter(judged.values())) if key.startswith("cpt_")]
    heads = ("router", "APGR", *(f"CPT({key.removeprefix('cpt_')} %)" for key in calls))
    rows = [
        [
            name,
            with_interval(row, "apgr", "apgr_low", "apgr_high"),
            *(percent(row[k]) for k in calls),
        ]
        for name, row in judged.items()
    ]
    note = (
        f"Two LLMs alone: {names['weak']}, or {names['strong']} for the queries that it is "
        "predicted to gain most on."
    )
    return [["## With two LLMs", "", note, "", *table(heads, rows)]]


def episodes(report: Report) -> list[list[str]]:
    """What routers of several calls did at each lambda; nothing where there are none."""
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


def paired(report: Report) -> list[str]:
    """Paired tests, hard questions, and what else a policy must not do."""
    heads = [
        "router",
        f"vs {report['top'] or 'the best'}",
        "wins / ties / losses",
        "McNemar p (Holm)",
    ]
    groups = next((list(row["solver_recall"]) for row in report["routers"].values()), [])
    heads += ["picks a best LLM", *(f"solver picked, {g} solve it" for g in groups)]
    heads += ["not worse by 2 points", "beats single LLMs", "delta IBC", "cost rises"]
    heads += ["not measured"]
    rows = []
    for name, row in report["routers"].items():
        holm = row["mcnemar_p_holm"]
        recall = [row["solver_recall"][g]["recall"] for g in groups]
        rows.append(
            [
                name,
                with_interval(row, "delta_top", "delta_top_low", "delta_top_high", sign=True),
                f"{row['wins']:g} / {row['ties']:g} / {row['losses']:g}",
                UNKNOWN if holm is None else f"{holm:.2g}",
                percent(row["picks_best"]),
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
