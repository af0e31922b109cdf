"""report.md of a comparison on logged decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from waypost.report.numbers import UNKNOWN, fixed, percent, table

HEADS = (
    "policy",
    "rows",
    "quality",
    "vs as served",
    "USD per 1k",
    "utility",
    "effective rows",
    "trust",
)
ESTIMATED = ("policy", "direct", "IPS", "self-normalised", "doubly robust")

_THOUSAND = {"cost_usd": 1000.0}


def told(value: Mapping[str, Any] | None, reward: str = "", *, sign: bool = False) -> str:
    """Format a value with its interval; dollars are for 1,000 queries."""
    if value is None or value["value"] is None:
        return UNKNOWN
    factor, digits = _THOUSAND.get(reward, 1.0), 4 if reward == "cost_usd" else 3
    parts = [
        UNKNOWN if value[key] is None else fixed(factor * value[key], digits, sign=sign)
        for key in ("value", "low", "high")
    ]
    return parts[0] if UNKNOWN in parts[1:] else f"{parts[0]} [{parts[1]}, {parts[2]}]"


def policies(report: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the rows of the main table, in the order of `HEADS`; doubly robust estimates."""
    served = report["served"]
    rows: list[tuple[str, ...]] = [
        (
            "as served",
            f"{report['rows']:g}",
            told(served["quality"]),
            "",
            told(served["cost_usd"], "cost_usd"),
            told(served["utility"]),
            f"{report['rows']:g}",
            "no" if report["served_warnings"] else "yes",
        )
    ]
    for name, one in report["policies"].items():
        best = one["estimates"]["dr"]
        rows.append(
            (
                name,
                f"{one['rows']:g}",
                told(best["quality"]),
                told(one["difference"]["quality"], sign=True),
                told(best["cost_usd"], "cost_usd"),
                told(best["utility"]),
                f"{one['effective_rows']:.0f}",
                "no" if one["warnings"] else "yes",
            )
        )
    return rows


def render(report: Mapping[str, Any]) -> str:
    """Return report.md."""
    parts = [
        ["# Routers on logged decisions", "", *_facts(report)],
        ["## Policies", "", *table(HEADS, policies(report)), "", *_notes(report)],
        *([warned] if (warned := _warnings(report)) else []),
        *[_estimates(report, reward, title) for reward, title in _TITLES.items()],
        _weights(report),
        *[_experiment(name, arms) for name, arms in report["experiments"].items()],
        ["## How the numbers were computed", "", *_HOW],
    ]
    return "\n\n".join("\n".join(part) for part in parts) + "\n"


_TITLES = {"quality": "Quality", "cost_usd": "Dollars per 1,000 queries", "utility": "Utility"}


def _facts(report: Mapping[str, Any]) -> list[str]:
    lines = [
        f"- {report['rows_of_the_log']:g} decisions, {report['rows']:g} of them compared, of "
        f"{report['users']:g} users{left_out(report)}",
        f"- LLMs: {', '.join(report['llms'])}",
        f"- utility: quality - {report['lambda']:g} x dollars / {_usd(report['cost_ref_usd'])} "
        "(mean dollars of the dearest LLM in the log)",
        *(f"- {line}" for line in report["warnings"]),
    ]
    if report.get("command"):
        lines.append(f"- `{report['command']}`")
    return lines


def left_out(report: Mapping[str, Any]) -> str:
    """Return how many decisions were left out and why, empty where none was."""
    told = ", ".join(f"{count:g} {why}" for why, count in report["left_out"].items())
    return f"; left out: {told}" if told else ""


def _usd(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}"


def _notes(report: Mapping[str, Any]) -> list[str]:
    return [
        "As served: the mean of what was logged. The others: the router without exploration, "
        f"doubly robust, with 95 % intervals from {report['draws']:g} draws of users.",
    ]


def _warnings(report: Mapping[str, Any]) -> list[str]:
    told = {"as served": report["served_warnings"]}
    told |= {name: one["warnings"] for name, one in report["policies"].items()}
    lines = [f"- **{name}**: {line}." for name, found in told.items() for line in found]
    return ["## What cannot be trusted", "", *lines] if lines else []


def _estimates(report: Mapping[str, Any], reward: str, title: str) -> list[str]:
    rows = [
        (name, *(told(values[reward], reward) for values in one["estimates"].values()))
        for name, one in report["policies"].items()
    ]
    return [f"## {title}, by estimator", "", *table(ESTIMATED, rows)]


def _weights(report: Mapping[str, Any]) -> list[str]:
    heads = (
        "policy", "chooses what was logged", "mean weight", "effective rows", "largest weight",
        "without support",
    )  # fmt: skip
    rows = [
        (
            name,
            percent(one["agreement"]),
            fixed(one["mean_weight"]),
            f"{one['effective_rows']:.0f}",
            percent(one["largest_weight"]),
            percent(one["without_support"]),
        )
        for name, one in report["policies"].items()
    ]
    return ["## Weights", "", *table(heads, rows)]


def _experiment(name: str, arms: Mapping[str, Any]) -> list[str]:
    heads = ("arm", "share", "rows", "quality", "difference", "USD per 1k", "utility", "difference")
    rows = [
        (
            arm,
            percent(one["share"]),
            f"{one['rows']:g}",
            told(one["mean"]["quality"]),
            _difference(one, "quality"),
            told(one["mean"]["cost_usd"], "cost_usd"),
            told(one["mean"]["utility"]),
            _difference(one, "utility"),
        )
        for arm, one in arms.items()
    ]
    note = "Means of each arm's own requests; differences to the first arm, in the same draws."
    return [f"## Experiment {name}", "", *table(heads, rows), "", note]


def _difference(one: Mapping[str, Any], reward: str) -> str:
    return "" if one["difference"] is None else told(one["difference"][reward], sign=True)


_HOW = [
    "- Quality of a request: the mean score of the feedback about it (rating; preference 1, .5, 0; "
    "verdict 1 or 0). What an LLM earns includes what came of a failover after it was chosen.",
    "- Weight of a row: probability that the policy chooses the logged LLM, over the probability "
    "with which it was chosen. Mean 1 where the log covers what the policy chooses.",
    "- Direct: mean prediction of a ridge regression for what the policy chooses. IPS: mean of "
    "weight times reward. Self-normalised: over the sum of weights. Doubly robust: direct, "
    "corrected by the weighted errors of the prediction. No regression saw a row of the user whose "
    "rows it predicts.",
    "- Effective rows: (sum of weights)^2 over the sum of their squares.",
    "- Users: by user_id, else session_id, else the text. All rows of one are drawn together.",
]
