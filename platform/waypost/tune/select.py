"""Choose the setting of a sweep, with a correction for picking the best of many noisy scores.

The best few trials are measured again on other assignments of questions to folds. The default
stays unless

1. the best of them gains more than one standard error of the paired difference, and
2. choosing the best gains as well: in bootstrap draws of the blocks, the setting that is best
   on the blocks drawn is compared with the default on those not drawn (bootstrap bias corrected
   cross-validation; Tsamardinos, Greasidou and Borboudakis, 2018). This needs no further fit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from waypost.contracts.errors import SchemaError
from waypost.contracts.types import Floats
from waypost.report.numbers import table
from waypost.tune.journal import TrialRow
from waypost.tune.space import SearchSpace, same

DRAWS = 2000

Report = dict[str, Any]


@dataclass(frozen=True)
class Choice:
    """The chosen setting.

    Gains are improvements over the default, positive in the direction of the metric; None if the
    default failed.

    Attributes:
        row: Row of the search.
        score: The metric, mean over all its deals.
        default_score: The default's score over the same deals.
        best: Row with the best score of the search.
        gain: Gain of the best finalist over the default, mean over all deals.
        gain_se: Its standard error, paired over blocks of questions.
        chosen_gain: Gain of choosing the best of the search, on questions outside the choice; see
            the module.
        why: Reason of the choice.
        finalists: For each finalist: number, score over all deals, standard error, gain, gain_se.
        rival: Best finalist other than the default; None without one.
        deals: Number of deals that the scores are averaged over.
    """

    row: TrialRow
    score: float
    default_score: float | None
    best: TrialRow
    gain: float | None
    gain_se: float | None
    chosen_gain: float | None
    why: str
    finalists: list[dict[str, Any]]
    rival: TrialRow | None
    deals: int

    @property
    def keeps_default(self) -> bool:
        """Whether the default was taken."""
        return self.row.number == 0


def ranked(rows: Iterable[TrialRow], sign: float) -> list[TrialRow]:
    """Return the finished trials, the best first; ties by number."""
    done = [row for row in rows if row.status == "done" and row.score is not None]
    return sorted(done, key=lambda row: (-sign * (row.score or 0.0), row.number))


def finalists(rows: Sequence[TrialRow], sign: float, count: int) -> list[TrialRow]:
    """Return the default, unless it failed, and the best few trials of a search."""
    best = ranked(rows, sign)
    default = [row for row in best if row.number == 0]
    return default + [row for row in best if row.number][:count] if count else default


def choose(rows: Sequence[TrialRow], again: Sequence[TrialRow], sign: float, seed: int) -> Choice:
    """Choose the setting of a sweep.

    Args:
        rows: Rows of the search.
        again: Rows of the finalists on further deals; may be empty.
        sign: 1 if a high metric is good, -1 if a low one is.
        seed: Seed of the bootstrap draws.

    Raises:
        SchemaError: Every trial failed; the message has the first reason.
    """
    best = ranked(rows, sign)
    if not best:
        why = next((row.error for row in rows if row.error), "nothing was measured")
        raise SchemaError(f"none of {len(rows)} trials could be measured; the first: {why}")
    deals = _by_setting([*best, *again], {row.key for row in again})
    default = next((row for row in best if row.number == 0), None)
    known = {row.key: row for row in best}
    in_final = [row for row in best if row.key in deals] or best[:1]
    if not again:
        in_final = [best[0], *([default] if default and default is not best[0] else [])]
        deals = _by_setting(in_final, set())
    scores = {row.key: _score(deals[row.key]) for row in in_final}
    first = max(in_final, key=lambda row: (sign * scores[row.key], -row.number))
    table = []
    for row in in_final:
        gain, error = (None, None) if default is None else _gain(deals, row, default, sign)
        table.append(
            {
                "trial": row.number,
                "score": scores[row.key],
                "score_se": _error(_blocks(deals[row.key])),
                "gain": gain,
                "gain_se": error,
            }
        )
    others = [row for row in in_final if row is not default]
    rival = max(others, key=lambda row: (sign * scores[row.key], -row.number), default=None)
    count = len(deals[first.key])
    if default is None:
        why = "the default could not be measured; the best finalist was taken"
        return Choice(
            first, scores[first.key], None, best[0], None, None, None, why, table, rival, count
        )
    gain, error = _gain(deals, first, default, sign)
    chosen_gain = corrected_gain(best, default, sign, seed)
    taken, why = _decide(first, default, gain, error, chosen_gain)
    return Choice(
        row=known[taken.key],
        score=scores[taken.key],
        default_score=scores[default.key],
        best=best[0],
        gain=gain,
        gain_se=error,
        chosen_gain=chosen_gain,
        why=why,
        finalists=table,
        rival=rival,
        deals=count,
    )


def _decide(
    first: TrialRow, default: TrialRow, gain: float, error: float, chosen_gain: float
) -> tuple[TrialRow, str]:
    if first is default:
        return default, "no trial is better than the default"
    said = f"trial {first.number} gains {gain:.4g} over the default, standard error {error:.2g}"
    if gain <= error:
        return default, f"the default stays: {said}, which is within one standard error"
    if chosen_gain <= 0:
        return default, (
            f"the default stays: {said}, but choosing the best of the trials earns "
            f"{chosen_gain:.2g} on questions that it was not chosen on"
        )
    return first, (
        f"{said}; choosing the best of the trials earns {chosen_gain:.4g} on questions that it was "
        "not chosen on"
    )


def corrected_gain(rows: Sequence[TrialRow], default: TrialRow, sign: float, seed: int) -> float:
    """Return the mean gain over the default of the best row of each draw, on blocks not drawn."""
    table = sign * np.stack([_blocks([row]) for row in rows])
    place = next(i for i, row in enumerate(rows) if row is default)
    count = table.shape[1]
    draw = np.random.default_rng(seed)
    gains = []
    for _ in range(DRAWS):
        weights = np.bincount(draw.integers(count, size=count), minlength=count)
        outside = weights == 0
        if outside.any():
            best = int(np.argmax(table @ weights))
            gains.append(float((table[best, outside] - table[place, outside]).mean()))
    return float(np.mean(gains)) if gains else 0.0


def _by_setting(rows: Iterable[TrialRow], wanted: set[str]) -> dict[str, list[TrialRow]]:
    found: dict[str, list[TrialRow]] = {}
    for row in rows:
        if row.status == "done" and (not wanted or row.key in wanted):
            found.setdefault(row.key, []).append(row)
    # Scores are compared over the same deals only.
    most = max((len(group) for group in found.values()), default=0)
    return {key: group for key, group in found.items() if len(group) == most}


def _score(deals: Sequence[TrialRow]) -> float:
    return float(np.mean([row.score for row in deals]))


def _gain(
    deals: dict[str, list[TrialRow]], row: TrialRow, default: TrialRow, sign: float
) -> tuple[float, float]:
    """Return a setting's gain over the default and its standard error."""
    if default.key not in deals:
        return np.nan, np.nan
    difference = sign * (_blocks(deals[row.key]) - _blocks(deals[default.key]))
    gain = sign * (_score(deals[row.key]) - _score(deals[default.key]))
    return gain, _error(difference)


def _error(blocks: Floats) -> float:
    """Return the standard error of a metric or difference from its pseudo-values."""
    return float(blocks.std(ddof=1) / np.sqrt(len(blocks))) if len(blocks) > 1 else 0.0


def _blocks(rows: Sequence[TrialRow]) -> Floats:
    """Return the pseudo-values of a setting, mean over its deals; unknown ones become the score."""
    table: list[list[float]] = [
        [float(row.score or 0.0) if block is None else block for block in row.blocks]
        for row in rows
    ]
    return np.asarray(np.mean(np.array(table), axis=0))


def compared(space: SearchSpace, choice: Choice) -> Report:
    """Return the default and the best other finalist, with all their parameters.

    ``default`` is None if it failed, ``best_other`` if there is no other finalist.
    """
    rival, is_known = choice.rival, choice.default_score is not None
    return {
        "default": _side(space, choice, 0, {}) if is_known else None,
        "best_other": None if rival is None else _side(space, choice, rival.number, given(rival)),
    }


def given(row: TrialRow) -> dict[str, Any]:
    """Return the parameters of the router of a row, without the fixed ones."""
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
    """Return the lines of report.md on the choice and its reason, from report.json."""
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
    """Format a number with four decimals, or with three digits if it is small."""
    if value is None:
        return "n/a"
    return f"{value:.4f}" if abs(value) >= 1e-2 or value == 0 else f"{value:.3g}"


def value(one: Any) -> str:
    """Format a parameter value."""
    if isinstance(one, float):
        return f"{one:.4g}"
    return "null" if one is None else str(one)
