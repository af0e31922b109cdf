"""Plots of a sweep: best so far, parallel coordinates, parameter importance, learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from waypost.report.drawing import GREY, LIGHT, figure, literal, save
from waypost.tune.config import Dimension, Range
from waypost.tune.journal import TrialRow
from waypost.tune.select import ranked
from waypost.tune.space import same

BLUE, ORANGE = "#0072B2", "#D55E00"
_SHOWN_CURVES = 3
_UNSET = -0.12
_SHOWN_BEST = 0.1
"""Share of the trials highlighted in the parallel coordinates."""


def draw_progress(
    rows: Sequence[TrialRow], label: str, sign: float, taken: int, path: Path
) -> None:
    """Draw every trial's score, and the best so far, over the sweep's time."""
    made = figure(8, 4.4)
    axis = made.subplots()
    done = sorted(
        (row for row in rows if row.score is not None and row.deal == 0), key=lambda row: row.at_s
    )
    unit, seconds = _unit(max((row.at_s for row in done), default=0.0))
    times = np.array([row.at_s / seconds for row in done])
    scores = np.array([row.score for row in done], float)
    kinds = {"done": (BLUE, "trial"), "stopped": (GREY, "stopped early")}
    for status, (color, name) in kinds.items():
        of = np.array([row.status == status for row in done], bool)
        if of.any():
            axis.plot(times[of], scores[of], "o", ms=4, alpha=0.6, color=color, label=name)
    whole = np.array([row.status == "done" for row in done], bool)
    if whole.any():
        best = sign * np.maximum.accumulate(sign * scores[whole])
        axis.step(times[whole], best, where="post", color="black", lw=1.4, label="best so far")
    default = next((row for row in done if row.number == 0), None)
    if default is not None and default.score is not None:
        axis.axhline(default.score, color=ORANGE, lw=1, ls="--", label="default")
    won = next((row for row in done if row.number == taken), None)
    if won is not None:
        axis.plot(
            won.at_s / seconds,
            won.score,
            "*",
            ms=14,
            mfc="none",
            mec=ORANGE,
            mew=1.5,
            label="taken",
        )
    axis.set_xlabel(f"{unit} of the sweep")
    axis.set_ylabel(label, wrap=True)
    axis.set_ylim(*limits(scores))
    axis.grid(alpha=0.25)
    made.legend(loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    save(made, path)


def _unit(most_s: float) -> tuple[str, float]:
    """Return the unit in which times up to this many seconds are written, and its seconds."""
    for unit, seconds in (("hours", 3600.0), ("minutes", 60.0)):
        if most_s >= 2 * seconds:
            return unit, seconds
    return "seconds", 1.0


def limits(scores: Any) -> tuple[float, float]:
    """Return axis limits that cut off far outliers."""
    if not len(scores):
        return 0.0, 1.0
    low, middle, high = np.percentile(scores, [0, 50, 100])
    spread = np.percentile(scores, 90) - np.percentile(scores, 10) or (high - low) or 0.01
    low, high = max(low, middle - 1.5 * spread), min(high, middle + 2.5 * spread)
    return low - 0.06 * (high - low or spread), high + 0.06 * (high - low or spread)


def draw_parallel(
    rows: Sequence[TrialRow],
    space: Mapping[str, Dimension],
    label: str,
    sign: float,
    taken: int,
    path: Path,
) -> None:
    """Draw parallel coordinates: a line for each trial, the best tenth highlighted."""
    done = [row for row in rows if row.status == "done" and row.score is not None and row.number]
    names = list(space)
    made = figure(max(6.5, 1.75 * (len(names) + 1)), 4.8)
    axis = made.subplots()
    scores = np.array([row.score for row in done], float)
    low, high = limits(scores)
    order = np.argsort(sign * scores, kind="stable")
    best = set(order[-max(1, round(_SHOWN_BEST * len(order))) :].tolist()) if len(order) else set()
    draw = np.random.default_rng(0)
    for place in order:
        row = done[place]
        heights = [_height(space[name], row.setting, name) for name in names]
        # Jitter, or lines through one value of a choice would overlap.
        heights = [h + draw.uniform(-0.012, 0.012) for h in heights]
        heights.append(float(np.clip((scores[place] - low) / (high - low or 1), 0, 1)))
        won, is_best = row.number == taken, place in best
        axis.plot(
            range(len(heights)),
            heights,
            color=ORANGE if won else BLUE if is_best else LIGHT,
            lw=2.4 if won else 1.2 if is_best else 0.8,
            alpha=1 if won or is_best else 0.8,
            zorder=4 if won else 3 if is_best else 2,
        )
    for x, name in enumerate(names):
        _axis(axis, x, space[name])
        if any(name not in row.setting for row in done):
            _tick(axis, x, _UNSET, "unset")
    axis.axvline(len(names), color="black", lw=0.8)
    for share in (0.0, 0.5, 1.0):
        axis.text(
            len(names) + 0.06, share, f"{low + share * (high - low):.4g}", fontsize=8, va="center"
        )
    heads = [literal(name) for name in names] + [literal(label if len(label) <= 20 else "score")]
    axis.set_xticks(range(len(heads)), heads, fontsize=9)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.set_yticks([])
    axis.set_ylim(_UNSET - 0.06, 1.06)
    axis.set_xlim(-0.15, len(names) + 0.45)
    for side in axis.spines.values():
        side.set_visible(False)
    _legend(made, len(best), taken)
    save(made, path)


def _height(dimension: Dimension, setting: Mapping[str, Any], name: str) -> float:
    if name not in setting:
        return _UNSET
    value = setting[name]
    if not isinstance(dimension, Range):
        place = next(i for i, one in enumerate(dimension.values) if same(one, value))
        return place / max(len(dimension.values) - 1, 1)
    low, high = (float(end) for end in dimension.extremes)
    if dimension.type == "loguniform":
        low, high, value = np.log(low), np.log(high), np.log(value)
    return float((value - low) / (high - low or 1))


def _axis(axis: Any, x: int, dimension: Dimension) -> None:
    axis.axvline(x, ymin=0.1, color="black", lw=0.8)
    if not isinstance(dimension, Range):
        count = max(len(dimension.values) - 1, 1)
        for place, value in enumerate(dimension.values):
            _tick(axis, x, place / count, "null" if value is None else literal(str(value)))
        return
    low, high = (float(end) for end in dimension.extremes)
    for share in (0.0, 0.5, 1.0):
        value = low + share * (high - low)
        if dimension.type == "loguniform":
            value = float(np.exp(np.log(low) + share * (np.log(high) - np.log(low))))
        _tick(axis, x, share, f"{value:.0f}" if abs(value) >= 100 else f"{value:.2g}")


def _tick(axis: Any, x: int, y: float, text: str) -> None:
    axis.plot([x - 0.02, x + 0.02], [y, y], color="black", lw=0.8, zorder=5)
    axis.text(
        x + 0.05, y, text, fontsize=8, va="center", zorder=6,
        bbox={"boxstyle": "square,pad=0.1", "fc": "white", "ec": "none", "alpha": 0.75},
    )  # fmt: skip


def _legend(made: Any, best: int, taken: int) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=BLUE, lw=1.2, label=f"best {best}" if best > 1 else "best"),
        Line2D([], [], color=LIGHT, lw=0.8, label="other trials"),
    ]
    if taken:
        handles.insert(0, Line2D([], [], color=ORANGE, lw=2.4, label=f"taken (trial {taken})"))
    made.legend(
        handles=handles, loc="outside lower center", ncols=len(handles), fontsize=8, frameon=False
    )


def draw_importance(shares: Mapping[str, float] | None, path: Path) -> bool:
    """Draw the share of each parameter, the largest first.

    Returns:
        Whether there is anything to draw; if not, an earlier file is deleted.
    """
    named = sorted((shares or {}).items(), key=lambda item: item[1])
    if not named:
        path.unlink(missing_ok=True)
        return False
    made = figure(6.5, 1.1 + 0.38 * max(len(named), 2))
    axis = made.subplots()
    axis.barh([literal(name) for name, _ in named], [share for _, share in named], color=BLUE)
    for place, (_, share) in enumerate(named):
        axis.text(share + 0.008, place, f"{100 * share:.0f} %", va="center", fontsize=8)
    axis.set_xlim(0, max(share for _, share in named) * 1.12)
    axis.set_xlabel("share of what a forest explains of the scores", fontsize=9)
    axis.tick_params(labelsize=9)
    axis.grid(alpha=0.25, axis="x")
    save(made, path)
    return True


def draw_curves(rows: Sequence[TrialRow], label: str, sign: float, taken: int, path: Path) -> bool:
    """Draw the held-out loss and the metric over the epochs, leaving out panels without values.

    Args:
        rows: Rows of the search.
        label: Label of the metric.
        sign: 1 if a high metric is good, -1 if a low one is.
        taken: Number of the chosen trial.
        path: The file; deleted if there is nothing to draw.

    Returns:
        Whether there is anything to draw.
    """
    panels = {
        "loss on held-out questions": [(row, row.losses) for row in rows if row.losses],
        label: [(row, row.epochs) for row in rows if row.epochs],
    }
    panels = {name: curves for name, curves in panels.items() if curves}
    if not panels:
        path.unlink(missing_ok=True)
        return False
    made = figure(4.6 * len(panels) + 0.4, 4.2)
    axes = np.atleast_1d(made.subplots(1, len(panels)))
    best = {row.number for row in ranked(rows, sign)[:_SHOWN_CURVES]}
    for axis, (name, curves) in zip(axes, panels.items(), strict=True):
        values = [value for _, curve in curves for value in curve if value is not None]
        for row, curve in curves:
            _draw(axis, row, curve, _look(row, best, taken))
        low_is_good = name != label or sign < 0
        low, high = limits(-np.array(values) if low_is_good else np.array(values))
        axis.set_ylim(*((-high, -low) if low_is_good else (low, high)))
        axis.set_xlabel("epoch")
        axis.set_ylabel(name, wrap=True)
        axis.grid(alpha=0.25)
    found = {
        text: handle
        for axis in axes
        for handle, text in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    made.legend(
        found.values(), found.keys(), loc="outside lower center", ncols=5, fontsize=8, frameon=False
    )
    save(made, path)
    return True


def _look(row: TrialRow, best: set[int], taken: int) -> dict[str, Any]:
    if row.number == taken:
        label = f"taken (trial {taken})" if taken else "default (taken)"
        return {"color": ORANGE, "lw": 2.2, "zorder": 5, "label": label}
    if row.number == 0:
        return {"color": ORANGE, "lw": 1.2, "ls": "--", "zorder": 4, "label": "default"}
    if row.number in best:
        return {"color": BLUE, "lw": 1.2, "zorder": 3, "label": f"best {_SHOWN_CURVES}"}
    if row.status == "stopped":
        return {"color": GREY, "lw": 0.8, "ls": ":", "zorder": 2, "label": "stopped early"}
    return {"color": LIGHT, "lw": 0.8, "zorder": 1, "label": "other trials"}


def _draw(axis: Any, row: TrialRow, curve: Sequence[float | None], look: dict[str, Any]) -> None:
    """Draw the epochs with a value, and mark the last one."""
    known = [(epoch, value) for epoch, value in enumerate(curve, 1) if value is not None]
    if known:
        epochs, values = zip(*known, strict=True)
        axis.plot(epochs, values, marker="o", ms=3, markevery=[len(known) - 1], **look)
