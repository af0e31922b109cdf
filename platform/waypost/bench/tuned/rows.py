"""One line of the comparison: a router tuned beside the same router with its defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Row = dict[str, Any]

SAME = "default kept"
"""No setting was found that the sweep could tell from the default."""

BETTER, HIGHER = "better", "higher, within the interval"
EQUAL = "equal"
LOWER, WORSE = "lower, within the interval", "worse"


def row_of(report: Mapping[str, Any]) -> Row:
    """Take from a sweep's report what the comparison says of its router.

    Args:
        report: What `run_sweep` returned, of data with a test split.

    Returns:
        JSON-able: ``quality`` and ``cost_usd_per_1k`` (default, tuned, best single LLM) on the
        test split at lambda 0, ``difference`` with ``low`` and ``high`` of its paired 95 %
        interval (all 0 where the default was kept: it is the same router), ``verdict``,
        ``trials``, ``seconds`` of the search, ``fit_seconds`` of all its fits, ``cross_validated``
        (default, taken), ``setting``, ``why`` it was taken, ``queries``.
    """
    taken, test = report["taken"], report["test"]
    same = taken["is_default"]
    row: Row = {
        "queries": test["queries"],
        "trials": report["trials"]["tried"],
        "failed": report["trials"]["failed"],
        "seconds": report["seconds"],
        "fit_seconds": report["fit_seconds"],
        "cross_validated": {"default": taken["default_score"], "taken": taken["score"]},
        "setting": taken["setting"],
        "why": taken["why"],
    }
    for key in ("quality", "cost_usd_per_1k"):
        found = test[key]
        row[key] = {
            "default": found["tuned"] if same else found.get("default"),
            "tuned": found["tuned"],
            "best_single": found["best single LLM"],
        }
    for key in ("difference", "low", "high"):
        row[key] = 0.0 if same else test.get(key)
    row["verdict"] = SAME if same else verdict(row["difference"], row["low"], row["high"])
    return row


def verdict(difference: float | None, low: float | None, high: float | None) -> str | None:
    """Say what a difference and its interval come to; None where one is unknown."""
    if difference is None or low is None or high is None:
        return None
    if low > 0:
        return BETTER
    if high < 0:
        return WORSE
    if difference == 0:
        return EQUAL
    return HIGHER if difference > 0 else LOWER


def counted(rows: Sequence[Row]) -> dict[str, int]:
    """Count rows: all, those not worse within the interval, higher, better, default kept."""
    known = [row["verdict"] for row in rows if row["verdict"] is not None]
    return {
        "rows": len(rows),
        "not_worse": sum(one != WORSE for one in known),
        "higher": sum(one in (BETTER, HIGHER) for one in known),
        "better": known.count(BETTER),
        "kept": known.count(SAME),
    }
