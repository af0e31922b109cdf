"""The short table of an evaluation, and its insertion into a Markdown file."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from waypost.contracts.atomic import replacing
from waypost.contracts.errors import ConfigError, Fault
from waypost.metrics.table import BY_KEY
from waypost.report.numbers import fixed, table
from waypost.report.tables import Report, named, written

COLUMNS = (
    "quality", "delta_best_single", "cost_usd_per_1k", "cost_save", "aiq", "decision_ms_p50",
    "fit_s",
)  # fmt: skip
"""Metrics of the short table."""

_SHARES = (10, 25, 50, 75, 100)
_CURVES = 6


def compact(report: Report) -> str:
    """Return the short table as Markdown, followed by seed, data digest and command."""
    metrics = [BY_KEY[key] for key in COLUMNS]
    rows = [[name, *(written(one, row) for one in metrics)] for name, row in named(report)]
    seeds = report["seed"] if isinstance(report["seed"], list) else [report["seed"]]
    facts = (
        f"{report['n_queries']:g} queries{' a seed' if len(seeds) > 1 else ''}, seed "
        f"{', '.join(map(str, seeds))}, data digest `{report['data_digest'][:12]}`; cost: "
        f"{report['cost_basis']}."
    )
    failed = [f"- Not measured: `{name}`: {why}" for name, why in report["failed"].items()]
    lines = [
        *table(("router", *(one.title for one in metrics)), rows),
        "",
        *_curves(report),
        *failed,
        *([""] if failed else []),
        facts,
    ]
    if report.get("command"):
        lines += ["", f"    {report['command']}"]
    return "\n".join(lines)


def _curves(report: Report) -> list[str]:
    """Return a table of the curves: best quality within a share of the best single LLM's cost."""
    spent = report["reference"]["best_single"]["cost_usd_per_1k"]
    judged = [(name, row) for name, row in report["routers"].items() if row["aiq"] is not None]
    if not spent or not judged:
        return []
    best = sorted(judged, key=lambda item: -item[1]["aiq"])[:_CURVES]
    heads = ("best quality within", *(f"{share} % of its cost" for share in _SHARES))
    rows = [
        [name, *(_within(row["curve"], spent * s / 100) for s in _SHARES)] for name, row in best
    ]
    return [
        f"The {len(best)} curves with the largest area; cost as a share of the best single LLM's:",
        "",
        *table(heads, rows),
        "",
    ]


def _within(curve: Sequence[Sequence[float | None]], most: float) -> str:
    inside = [q for _, q, cost in curve if q is not None and cost is not None and cost <= most]
    return fixed(max(inside)) if inside else "n/a"


def check_marker(path: Path, marker: str) -> None:
    """Check that a file has the begin and end markers.

    Raises:
        ConfigError: The file cannot be read, or one of the two markers is missing or repeated.
    """
    _split(path, marker)


def insert(path: Path, marker: str, text: str) -> None:
    """Replace the text between ``<!-- MARKER begin -->`` and ``<!-- MARKER end -->``.

    Adds date, commit and machine below the text.

    Raises:
        ConfigError: See `check_marker`.
    """
    before, after = _split(path, marker)
    text = f"{text}\n\n{measured(machine())}"
    with replacing(path) as partial:
        partial.write_text(f"{before}\n{text}\n{after}", encoding="utf-8")
        partial.chmod(path.stat().st_mode)


def machine() -> dict[str, Any]:
    """Return date, commit and machine of a measurement, JSON-able."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, check=True, text=True
        )
        source = f"commit {done.stdout.strip()}"
    except (OSError, subprocess.CalledProcessError):  # an installed package
        source = f"version {version('waypost')}"
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "source": source,
        "cores": len(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "python": platform.python_version(),
    }


def measured(facts: Mapping[str, Any]) -> str:
    """Return the facts of `machine` as a sentence."""
    return (
        f"Measured {facts['date']}, {facts['source']}, on {facts['cores']} cores "
        f"({facts['architecture']}), Python {facts['python']}."
    )


def _split(path: Path, marker: str) -> tuple[str, str]:
    begin, end = f"<!-- {marker} begin -->", f"<!-- {marker} end -->"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError([Fault(str(path), f"cannot be read: {error}")]) from None
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(end) < text.index(begin):
        raise ConfigError(
            [Fault(str(path), f"expected {begin} and after it {end}, each exactly once")]
        )
    head, _, rest = text.partition(begin)
    return head + begin, end + rest.partition(end)[2]
