"""Format numbers: an unknown number is null in JSON and n/a in tables."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

UNKNOWN = "n/a"


def plain(data: Any) -> Any:
    """Return JSON-able data in which every non-finite number is None."""
    if isinstance(data, dict):
        return {str(key): plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [plain(value) for value in data]
    if isinstance(data, float) and not math.isfinite(data):
        return None
    return data


def fixed(value: float | None, places: int = 3, *, sign: bool = False) -> str:
    """Format a number with a fixed number of decimals."""
    return UNKNOWN if value is None else f"{value:{'+' if sign else ''}.{places}f}"


def percent(value: float | None, *, sign: bool = False) -> str:
    """Format a share as a percentage."""
    return UNKNOWN if value is None else f"{100 * value:{'+' if sign else ''}.1f} %"


def usd(value: float | None) -> str:
    """Format dollars with three significant digits."""
    if value is None:
        return UNKNOWN
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1000 else f"{value:.2e}"


def with_interval(row: Any, key: str, low: str, high: str, *, sign: bool = False) -> str:
    """Format a number, followed by its interval in brackets if it has one."""
    text = fixed(row.get(key), sign=sign)
    if row.get(low) is None or row.get(high) is None:
        return text
    return f"{text} [{fixed(row[low], sign=sign)}, {fixed(row[high], sign=sign)}]"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table; the first column is left-aligned, the others right."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    cells = [[_cell(text) for text in row] for row in (heads, *rows)]
    return ["| " + " | ".join(row) + " |" for row in (cells[0], rule, *cells[1:])]


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
