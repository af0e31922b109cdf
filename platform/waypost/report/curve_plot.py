"""curve.png: cost and quality of every router, single LLM and reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np

from waypost.report.drawing import GREY, figure, literal, look, save

_DECADE = 10.0
_NAMED = 12
"""Single LLMs whose names are written, the best ones; of more the plot would be black."""

_OFFSETS = ((6, 5), (6, -11), (-6, 5), (-6, -11), (0, 9), (0, -15), (14, 0), (-14, 0))


def draw_curve(report: Mapping[str, Any], path: Path) -> None:
    """Draw the cost-quality plane; without costs, quality at lambda 0 alone."""
    if any(row["cost_usd_per_1k"] is not None for row in report["llms"].values()):
        _plane(report, path)
    else:
        _bars(report, path)


def _plane(report: Mapping[str, Any], path: Path) -> None:
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
    axis.set_xlabel(f"USD per 1,000 queries ({report['cost_basis']})", fontsize=9)
    axis.set_ylabel("mean score")
    axis.grid(alpha=0.25)
    axis.margins(x=0.09, y=0.07)
    columns = 1 if len(report["routers"]) <= 20 else 2
    made.legend(
        *axis.get_legend_handles_labels(),
        loc="outside right upper",
        fontsize=8,
        ncols=columns,
        frameon=False,
        title="dot: lambda 0; diamond: single LLM",
        title_fontsize=8,
    )
    _label(made, axis, singles)
    save(made, path)


def _points(curve: Sequence[Sequence[float | None]]) -> list[tuple[float, float]]:
    return [(c, q) for _, q, c in curve if q is not None and c is not None]


def _label(made: Any, axis: Any, singles: Mapping[str, tuple[float, float]]) -> None:
    """Write each single LLM's name where it covers least: names, diamonds, lines, the frame."""
    from matplotlib.patheffects import withStroke

    made.canvas.draw()
    renderer = made.canvas.get_renderer()
    spots = axis.transData.transform(list(singles.values()))
    taken = [(*(spot - 7), *(spot + 7)) for spot in spots]
    lines = _beads(axis)
    inside = axis.get_window_extent(renderer)
    by_quality = sorted(singles.items(), key=lambda item: -item[1][1])
    for name, spot in by_quality[:_NAMED]:
        tried: list[tuple[float, int, Any, tuple[float, float, float, float]]] = []
        for ring, (dx, dy) in product((1, 2, 3), _OFFSETS):
            text = axis.annotate(
                literal(name.rpartition("/")[2]),
                spot,
                (dx * ring, dy * ring),
                textcoords="offset points",
                fontsize=7.5,
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                color="#222222",
                path_effects=[withStroke(linewidth=2, foreground="white")],
                zorder=7,
            )
            box = text.get_window_extent(renderer)
            edges = (box.x0, box.y0, box.x1, box.y1)
            out = max(inside.x0 - box.x0, 0, box.x1 - inside.x1)
            out += max(inside.y0 - box.y0, 0, box.y1 - inside.y1)
            covered = (
                (lines[:, 0] > box.x0 - 2)
                & (lines[:, 0] < box.x1 + 2)
                & (lines[:, 1] > box.y0 - 2)
                & (lines[:, 1] < box.y1 + 2)
            ).sum()
            overlap = sum(_overlap(edges, other) for other in taken)
            tried.append((overlap + 50 * out + 12 * covered + 30 * ring, len(tried), text, edges))
        _, kept, _, edges = min(tried, key=lambda one: one[:2])
        taken.append(edges)
        for place, (_, _, text, _) in enumerate(tried):
            if place != kept:
                text.remove()
        if kept >= len(_OFFSETS):  # not beside its diamond: a thin line leads there
            leader = {"arrowstyle": "-", "lw": 0.5, "color": GREY}
            axis.annotate("", spot, tried[kept][2].xyann, "data", "offset points", leader)


def _beads(axis: Any) -> Any:
    """Return points along every line drawn, in pixels, about five apart: (n, 2)."""
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


def _bars(report: Mapping[str, Any], path: Path) -> None:
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
    axis.set_xlabel("mean score at lambda 0, 95 % interval (the data holds no cost)")
    axis.grid(alpha=0.25, axis="x")
    save(made, path)
