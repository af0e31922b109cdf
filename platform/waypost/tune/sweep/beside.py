"""What was taken and what was not: the default and the best other trial, side by side."""

from __future__ import annotations

from typing import Any

from waypost.report.numbers import table
from waypost.tune.sweep.journal import Row
from waypost.tune.sweep.settings import SearchSpace, same
from waypost.tune.sweep.winner import Choice

Report = dict[str, Any]


def compared(space: SearchSpace, choice: Choice) -> Report:
    """Return the default and the best finalist beside it, with all their parameters.

    ``default`` is None where it could not be measured, ``best_other`` where there is no other.
    """
    rival, is_known = choice.rival, choice.default_score is not None
    return {
        "default": _side(space, choice, 0, {}) if is_known else None,
        "best_other": None if rival is None else _side(space, choice, rival.number, given(rival)),
    }


def given(row: Row) -> dict[str, Any]:
    """Return what the router of a row was given, beside what is fixed."""
    return row.trained or row.setting


def _side(space: SearchSpace, choice: Choice, number: int, setting: dict[str, Any]) -> Report:
    known = next((one for one in choice.finalists if one["trial"] == number), {})
    return {
        "trial": number,
        "parameters": space.full(setting),
        "score": known.get("score"),
        "score_se": known.get("score_se"),
        "gain": known.get("gain"),
        "gain_se": known.get("gain_se"),
    }


def render_taken(report: Report) -> list[str]:
    """Return the lines of report.md that say what was taken and why, of what report.json holds."""
    taken, sides = report["taken"], report["compared"]
    sides_of = {"default": sides["default"]}
    if other := sides["best_other"]:
        sides_of[f"trial {other['trial']}"] = other
    shown = {head: side for head, side in sides_of.items() if side is not None}
    heads = [
        f"{head} (taken)" if side["trial"] == taken["trial"] else head
        for head, side in shown.items()
    ]
    why = taken["why"][0].upper() + taken["why"][1:]
    deals = f"{taken['deals']} deal" + ("s" if taken["deals"] > 1 else "")
    return [
        f"{report['trials']['tried']} trials were tried. {why}.",
        "",
        *table(("parameter", *heads), _parameters([s["parameters"] for s in shown.values()])),
        "",
        *table(("", *heads), _scores(report, list(shown.values()))),
        "",
        f"Cross-validated, mean of {deals} of the questions to folds; standard "
        "errors over blocks of questions, that of the gain paired. Values that differ from the "
        "default's are bold.",
    ]


def _parameters(sides: list[dict[str, Any]]) -> list[list[str]]:
    rows = []
    for name in sides[0]:
        values = [side.get(name) for side in sides]
        cells = [value(one) if same(one, values[0]) else f"**{value(one)}**" for one in values]
        rows.append([f"`{name}`", *cells])
    return rows


def _scores(report: Report, sides: list[Report]) -> list[list[str]]:
    scores = [_with_error(side["score"], side["score_se"]) for side in sides]
    gains = [
        "" if side["trial"] == 0 else _with_error(side["gain"], side["gain_se"]) for side in sides
    ]
    return [[report["metric"]["label"], *scores], ["gain over the default", *gains]]


def _with_error(value: float | None, error: float | None) -> str:
    return number(value) if error is None else f"{number(value)} (SE {number(error)})"


def number(value: float | None) -> str:
    """Write a number with four decimals, or three digits where it is small."""
    if value is None:
        return "n/a"
    return f"{value:.4f}" if abs(value) >= 1e-2 or value == 0 else f"{value:.3g}"


def value(one: Any) -> str:
    """Write a parameter."""
    if isinstance(one, float):
        return f"{one:.4g}"
    return "null" if one is None else str(one)
