"""What the plots share: the library, colours, and a page of small panels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waypost.contracts.errors import MissingExtraError

_COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#6A3D9A", "#8C564B",
)  # fmt: skip
_STYLES = ("-", "--", "-.", ":")
GREY = "#777777"


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
    """See that plots can be drawn, before work begins.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure(1, 1)


def look(place: int) -> dict[str, Any]:
    """Return colour and line style number ``place``; the first 32 differ."""
    n = len(_COLORS)
    return {"color": _COLORS[place % n], "linestyle": _STYLES[place // n % len(_STYLES)]}


def panels(names: Sequence[str], width: float = 3.1, height: float = 2.6) -> tuple[Any, list[Any]]:
    """Return a figure with one small panel a name, titled with it."""
    columns = min(4, max(1, len(names)))
    rows = max(1, math.ceil(len(names) / columns))
    made = figure(width * columns, height * rows + 0.8)
    axes = made.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for axis, name in zip(axes, names, strict=False):
        axis.set_title(name if len(name) <= 34 else f"{name[:32]}...", fontsize=9)
        axis.tick_params(labelsize=8)
    for axis in axes[len(names) :]:
        axis.set_visible(False)
    # Where the last row is short, the panels above its gaps need labels of their own.
    for axis in axes[max(0, len(names) - columns) : len(names)]:
        axis.tick_params(labelbottom=True)
    return made, list(axes[: len(names)])


def save(made: Any, path: Path) -> None:
    """Write a figure as PNG."""
    made.savefig(path, dpi=130, metadata={"Software": None})
