"""Shared parts of the plots: figures, colours, small panels, and two plots made of panels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from waypost.contracts.errors import MissingExtraError
from waypost.metrics.comparison import COST_ALONE
from waypost.report.tables import Report

_COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6A3D9A", "#8C564B",
)  # fmt: skip
_STYLES = ("-", "--", "-.", ":")
GREY = "#777777"
LIGHT = "#DDDDDD"


def figure(width: float, height: float) -> Any:
    """Return an empty figure that needs no display.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "train") from None
    made = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(made)
    return made


def require_matplotlib() -> None:
    """Check that plots can be drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure(1, 1)


def look(place: int) -> dict[str, Any]:
    """Return colour and line style number ``place``; the first 32 differ."""
    n = len(_COLORS)
    return {"color": _COLORS[place % n], "linestyle": _STYLES[place // n % len(_STYLES)]}


def literal(name: str) -> str:
    """Return a name for plots: without mathematical notation, at most 34 characters."""
    short = name if len(name) <= 34 else f"{name[:32]}..."
    return short.replace("$", r"\$").replace("\n", " ")


def panels(names: Sequence[str], x_label: str, y_label: str) -> tuple[Any, list[Any]]:
    """Return a figure and its small panels, one for each name, with the name as title."""
    columns = min(4, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    made = figure(max(3.2 * columns, 6), 2.6 * rows + 0.8)
    axes = made.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for place, axis in enumerate(axes):
        if place >= len(names):
            axis.set_visible(False)
            continue
        axis.set_title(literal(names[place]), fontsize=9)
        axis.tick_params(labelsize=8)
        if place % columns == 0:
            axis.set_ylabel(y_label, fontsize=8)
        if place + columns >= len(names):  # no panel below it
            axis.tick_params(labelbottom=True)
            axis.set_xlabel(x_label, fontsize=8)
    return made, list(axes[: len(names)])


def save(made: Any, path: Path) -> None:
    """Write a figure as PNG or SVG; a character that the font lacks is drawn as a box."""
    # what names the library or the time would change with every run
    metadata = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        made.savefig(path, dpi=130, metadata=metadata)


_LLM_COLORS = (
    "#4E79A7", "#F28E2B", "#59A14F", "#E15759", "#B07AA1", "#76B7B2", "#EDC948", "#9C755F",
    "#FF9DA7", "#BAB0AC", "#1F4E79", "#7F3C8D", "#3E7D44", "#8C2D04", "#636363", "#D4A6C8",
)  # fmt: skip


def draw_usage(report: Report, path: Path) -> None:
    """Draw the share of queries of each LLM at each lambda; rarely used LLMs share one area."""
    routers = {name: row for name, row in report["routers"].items() if row["usage_curve"]}
    made, axes = panels(list(routers) or ["no router was measured"], "lambda", "share of queries")
    llms = list(report["llms"])
    # null where no answer is an LLM's own
    known = (np.array(row["usage_curve"], dtype=float).T for row in routers.values())
    curves = [np.nan_to_num(shares) for shares in known]
    used = sum((shares.mean(axis=1) for shares in curves), np.zeros(len(llms)))
    shown = sorted(np.argsort(-used, kind="stable")[: len(_LLM_COLORS)])
    others = np.setdiff1d(np.arange(len(llms)), shown)
    colors = [*_LLM_COLORS[: len(shown)], *([LIGHT] if len(others) else [])]
    labels = [literal(llms[j].rpartition("/")[2]) for j in shown]
    labels += [f"{len(others)} others"] if len(others) else []
    for axis, row, shares in zip(axes, routers.values(), curves, strict=False):
        lambdas = [point[0] for point in row["curve"]]
        # evenly spaced: all lambdas but the first and last are on a log scale
        place = np.arange(len(lambdas))
        if len(lambdas) == 1:  # a single point has no area
            place, shares = np.arange(2), np.repeat(shares, 2, axis=1)
        stack = [*shares[shown], *([shares[others].sum(axis=0)] if len(others) else [])]
        axis.stackplot(place, stack, colors=colors, lw=0)
        marks = np.unique(np.linspace(0, len(lambdas) - 1, 5).astype(int))
        axis.set_xticks(place[marks], [_short(lambdas[i]) for i in marks])
        axis.set_xlim(0, max(len(lambdas) - 1, 1))
        axis.set_ylim(0, 1)
    _legend(made, labels, colors)
    save(made, path)


def _short(lam: float) -> str:
    """Return a lambda as text; `COST_ALONE` is written as words."""
    if lam >= COST_ALONE:
        return "cost\nalone"
    return f"{lam:.2g}" if lam < 1000 else f"{lam:.0e}".replace("e+0", "e")


def _legend(made: Any, labels: Sequence[str], colors: Sequence[str]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(color=c, label=n) for c, n in zip(colors, labels, strict=True)]
    columns = max(1, min(5, len(labels), len(made.axes) * 2))
    made.legend(
        handles=handles, loc="outside lower center", ncols=columns, fontsize=8, frameon=False
    )


def _cells(cells: Sequence[float]) -> str:
    low, high = min(cells), max(cells)
    number = f"{low:,.0f}" if low == high else f"{low:,.0f} to {high:,.0f}"
    return f"{len(cells)} bins of {number} cells"


def draw_reliability(report: Report, path: Path) -> None:
    """Draw measured against predicted scores in bins, with the diagonal of perfect calibration.

    A dot's area is proportional to the number of cells of its bin; the panel shows the numbers.
    """
    routers = {name: row for name, row in report["routers"].items() if row["reliability"]}
    names = list(routers) or ["no router predicts scores"]
    made, axes = panels(names, "predicted score", "measured score")
    for axis, row in zip(axes, routers.values(), strict=False):
        predicted, measured, cells = np.array(row["reliability"], float).T
        axis.plot([0, 1], [0, 1], color=GREY, lw=0.8)
        axis.plot(predicted, measured, "-", lw=1, color="#0072B2")
        axis.scatter(predicted, measured, s=30 * cells / cells.max(), color="#0072B2", zorder=3)
        axis.text(
            0.04,
            0.96,
            f"ECE {row['ece']:.3f}\nBrier {row['brier']:.3f}\n{_cells(cells)}",
            transform=axis.transAxes,
            fontsize=8,
            va="top",
            bbox={"boxstyle": "square,pad=0.15", "fc": "white", "ec": "none", "alpha": 0.8},
        )
        axis.set_xlim(0, 1)
        axis.set_ylim(0, 1)
        axis.grid(alpha=0.25)
    save(made, path)
