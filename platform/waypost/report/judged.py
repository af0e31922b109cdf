"""Tables of report.md below the headline: matched numbers, predictions, paired tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.report.numbers import UNKNOWN, fixed, percent, table, usd, with_interval
from waypost.report.rows import Report


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
