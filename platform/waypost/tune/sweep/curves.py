"""Learning curves of the trials of a sweep, for routers that train by epochs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from waypost.report.drawing import GREY, LIGHT, figure, save
from waypost.tune.sweep.journal import Row
from waypost.tune.sweep.plots import BLUE, ORANGE, limits
from waypost.tune.sweep.winner import ranked

_SHOWN_BEST = 3


def draw_curves(rows: Sequence[Row], label: str, sign: float, taken: int, path: Path) -> bool:
    """Draw the held-out loss and the metric over the epochs; a panel without values is left out.

    Args:
        rows: Of the search.
        label: Of the metric.
        sign: 1 where a high metric is good, -1 where a low one is.
        taken: Number of the trial that was taken.
        path: The file; an earlier one goes where there is nothing to draw.

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
    best = {row.number for row in ranked(rows, sign)[:_SHOWN_BEST]}
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


def _look(row: Row, best: set[int], taken: int) -> dict[str, Any]:
    if row.number == taken:
        label = f"taken (trial {taken})" if taken else "default (taken)"
        return {"color": ORANGE, "lw": 2.2, "zorder": 5, "label": label}
    if row.number == 0:
        return {"color": ORANGE, "lw": 1.2, "ls": "--", "zorder": 4, "label": "default"}
    if row.number in best:
        return {"color": BLUE, "lw": 1.2, "zorder": 3, "label": f"best {_SHOWN_BEST}"}
    if row.status == "stopped":
        return {"color": GREY, "lw": 0.8, "ls": ":", "zorder": 2, "label": "stopped early"}
    return {"color": LIGHT, "lw": 0.8, "zorder": 1, "label": "other trials"}


def _draw(axis: Any, row: Row, curve: Sequence[float | None], look: dict[str, Any]) -> None:
    """Draw the epochs that have a value, and mark the last one."""
    known = [(epoch, value) for epoch, value in enumerate(curve, 1) if value is not None]
    if known:
        epochs, values = zip(*known, strict=True)
        axis.plot(epochs, values, marker="o", ms=3, markevery=[len(known) - 1], **look)
