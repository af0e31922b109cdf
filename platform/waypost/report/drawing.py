"""What the plots share: the library, colours, and a page of small panels."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from waypost.contracts.errors import MissingExtraError

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
    """See that plots can be drawn, before work begins.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    figure(1, 1)


def look(place: int) -> dict[str, Any]:
    """Return colour and line style number ``place``; the first 32 differ."""
    n = len(_COLORS)
    return {"color": _COLORS[place % n], "linestyle": _STYLES[place // n % len(_STYLES)]}


def literal(name: str) -> str:
    """Return a name as plots write it: nothing in it is mathematics; at most 34 characters."""
    short = name if len(name) <= 34 else f"{name[:32]}..."
    return short.replace("$", r"\$").replace("\n", " ")


def panels(names: Sequence[str], x_label: str, y_label: str) -> tuple[Any, list[Any]]:
    """Return a figure with one small panel a name, titled with it, and the panels."""
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
        if place + columns >= len(names):  # nothing below it, perhaps a gap
            axis.tick_params(labelbottom=True)
            axis.set_xlabel(x_label, fontsize=8)
    return made, list(axes[: len(names)])


def save(made: Any, path: Path) -> None:
    """Write a figure as PNG; a character that the font lacks is drawn as a box."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        made.savefig(path, dpi=130, metadata={"Software": None})
