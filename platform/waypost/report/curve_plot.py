"""curve.png: plot of cost and quality of every router, single LLM and reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

from waypost.report.drawing import GREY, figure, literal, look, save
from waypost.report.tables import Report

_DECADE = 10.0
_NAMED = 12
"""Number of best single LLMs labelled by name; the others have a number from the legend."""

_OFFSETS = ((9, 0), (8, 7), (8, -7), (-9, 0), (-8, 7), (-8, -7), (0, 13), (0, -13))


def draw_curve(report: Report, path: Path) -> None:
    """Draw the cost-quality plane, or quality at lambda 0 only if costs are unknown."""
    if any(row["cost_usd_per_1k"] is not None for row in report["llms"].values()):
        _plane(report, path)
    else:
        _bars(report, path)


def _plane(report: Report, path: Path) -> None:
    made = figure(11, 6.2)
    axis = made.subplots()
    singles = {
        name: (row["cost_usd_per_1k"], row["quality"])
        for name, row in report["llms"].items()
        if row["cost_usd_per_1k"] is not None and row["quality"] is not None
    }
    costs = [cost for cost, _ in singles.values()]
    dear = max(costs)
    hull = [(c, q) for q, c in report["reference"]["zero_router"].get("hull") or []]
    if hull:
        hull.append((dear, hull[-1][1]))
        axis.plot(*zip(*hull, strict=True), color=GREY, lw=1.2, label="zero router (hull)")
    for name, key, style in (("oracle", "oracle", "-"), ("task oracle", "task_oracle", ":")):
        points = _points(report["reference"][key].get("curve") or [])
        if points:
            axis.plot(*zip(*points, strict=True), color="black", lw=1, ls=style, label=name)
    random = report["reference"]["random"]
    if random["cost_usd_per_1k"] is not None:
        axis.plot(random["cost_usd_per_1k"], random["quality"], "x", color="black", label="random")
    for place, (name, row) in enumerate(report["routers"].items()):
        points = _points(row["curve"])
        if not points:
            continue
        axis.plot(*zip(*points, strict=True), lw=1.4, label=literal(name), **look(place))
        first = (row["cost_usd_per_1k"], row["quality"])
        if None not in first:
            axis.plot(*first, "o", ms=4, color=look(place)["color"], zorder=6)
    axis.plot(
        *zip(*singles.values(), strict=True), "D", ms=6, mfc="white", mec="black", zorder=5, ls=""
    )
    if min(costs) > 0 and dear / min(costs) > _DECADE:
        axis.set_xscale("log")
        _log_ticks(axis)
    axis.set_xlabel(f"USD per 1,000 queries ({report['cost_basis']})", fontsize=9)
    axis.set_ylabel("mean score")
    axis.grid(alpha=0.25)
    axis.margins(x=0.09, y=0.07)
    labels = _labels(singles)
    for name, text in labels.items():
        if text.isdecimal():
            axis.plot([], [], ls="", marker=f"${text}$", mew=0, color="black", label=_short(name))
    columns = 1 + len(axis.get_legend_handles_labels()[0]) // 38
    made.legend(
        *axis.get_legend_handles_labels(),
        loc="outside right upper",
        fontsize=8,
        ncols=columns,
        frameon=False,
        title="dot: lambda 0; diamond: single LLM",
        title_fontsize=8,
    )
    _label(made, axis, singles, labels)
    save(made, path)


def _log_ticks(axis: Any) -> None:
    """Set ticks at 1, 2 and 5 times powers of ten, or at powers only over many decades."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axis.get_xlim()
    wide = high / low > 1e3
    axis.xaxis.set_major_locator(LogLocator(subs=(1,) if wide else (1, 2, 5), numticks=20))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda usd, _: f"{usd:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _points(curve: Sequence[Sequence[float | None]]) -> list[tuple[float, float]]:
    return [(c, q) for _, q, c in curve if q is not None and c is not None]


def _short(name: str) -> str:
    return literal(name.rpartition("/")[2])


def _labels(singles: Mapping[str, tuple[float, float]]) -> dict[str, str]:
    """Return the label of each LLM, the best one first: its name, or a number."""
    ordered = sorted(singles, key=lambda name: -singles[name][1])
    numbered = {name: str(place) for place, name in enumerate(ordered[_NAMED:], 1)}
    return {name: _short(name) for name in ordered[:_NAMED]} | numbered


def _label(
    made: Any,
    axis: Any,
    singles: Mapping[str, tuple[float, float]],
    labels: Mapping[str, str],
) -> None:
    """Place each single LLM's label with least overlap: labels, diamonds, lines, the frame."""
    from matplotlib.patheffects import withStroke

    made.canvas.draw()
    renderer = made.canvas.get_renderer()
    spots = axis.transData.transform(list(singles.values()))
    taken = [(*(spot - 7), *(spot + 7)) for spot in spots]
    lines = _beads(axis)
    inside = axis.get_window_extent(renderer)
    for name, label in labels.items():
        spot = singles[name]
        text = axis.annotate(
            label,
            spot,
            (0, 0),
            textcoords="offset points",
            fontsize=7.5,
            va="center",
            color="#222222",
            path_effects=[withStroke(linewidth=2, foreground="white")],
            zorder=7,
        )
        size = text.get_window_extent(renderer)
        x, y = axis.transData.transform(spot)
        tried: list[tuple[Any, ...]] = []
        for ring, (dx, dy) in product((1, 2, 3), _OFFSETS):
            shift = ring * np.array([dx, dy]) * made.dpi / 72
            left = x + shift[0] - size.width * (0.5 if dx == 0 else float(dx < 0))
            low = y + shift[1] - size.height / 2
            edges = (left, low, left + size.width, low + size.height)
            out = max(inside.x0 - edges[0], 0, edges[2] - inside.x1)
            out += max(inside.y0 - edges[1], 0, edges[3] - inside.y1)
            covered = ((lines > np.array(edges[:2]) - 2) & (lines < np.array(edges[2:]) + 2)).all(
                axis=1
            )
            overlap = sum(_overlap(edges, other) for other in taken)
            cost = overlap + 50 * out + 12 * int(covered.sum()) + 30 * ring
            tried.append((cost, len(tried), ring, dx, dy, edges))
        _, _, ring, dx, dy, edges = min(tried)  # of equal costs the first offset
        taken.append(edges)
        text.xyann = (ring * dx, ring * dy)
        text.set_ha("left" if dx > 0 else "right" if dx < 0 else "center")
        if ring > 1:  # far from its diamond: a thin line connects them
            leader = {"arrowstyle": "-", "lw": 0.5, "color": GREY}
            axis.annotate("", spot, text.xyann, "data", "offset points", leader)


def _beads(axis: Any) -> Any:
    """Return points along all drawn lines, (n, 2) in pixels, at distances of about five."""
    parts = [np.empty((0, 2))]
    for line in axis.lines:
        spots = axis.transData.transform(np.column_stack(line.get_data()))
        for a, b in pairwise(spots):
            count = int(np.hypot(*(b - a)) // 5) + 1
            parts.append(a + (b - a) * np.linspace(0, 1, count, endpoint=False)[:, None])
    return np.concatenate(parts)


def _overlap(a: Sequence[float], b: Sequence[float]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return max(0.0, width) * max(0.0, height)


def _bars(report: Report, path: Path) -> None:
    rows = {**report["routers"]}
    for key in ("oracle", "task_oracle", "best_single", "random"):
        rows[key.replace("_", " ")] = report["reference"][key]
    made = figure(8, 1.2 + 0.32 * len(rows))
    axis = made.subplots()
    for place, row in enumerate(rows.values()):
        if row["quality"] is None:
            continue
        low, high = row.get("quality_low"), row.get("quality_high")
        if low is not None and high is not None:
            axis.plot([low, high], [place, place], color=GREY, lw=2)
        axis.plot(
            row["quality"],
            place,
            "o",
            color="#0072B2" if place < len(report["routers"]) else "black",
        )
    axis.set_yticks(np.arange(len(rows)), [literal(name) for name in rows], fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel("mean score at lambda 0, 95 % interval (the data has no costs)")
    axis.grid(alpha=0.25, axis="x")
    save(made, path)
