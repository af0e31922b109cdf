"""The folder of a report, which is written atomically."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from waypost.contracts.atomic import replacing_folder
from waypost.contracts.errors import ConfigError, Fault
from waypost.report.curve_plot import draw_curve
from waypost.report.drawing import draw_reliability, draw_usage
from waypost.report.markdown import render
from waypost.report.numbers import plain
from waypost.report.tables import Report

REPORT = "report.json"

CALLS = "calls"
"""Folder of the live calls of evaluations, inside the report's folder."""

Draw = Callable[[Report, Path], None]

PLOTS: dict[str, Draw] = {
    "curve.png": draw_curve,
    "usage.png": draw_usage,
    "reliability.png": draw_reliability,
}


def check_place(folder: Path) -> None:
    """Check that the folder is missing, empty, or has an earlier report or `CALLS` only.

    Raises:
        ConfigError: The path exists and is not a report.
    """
    if not folder.exists():
        return
    known = folder.is_dir() and {one.name for one in folder.iterdir()} <= {CALLS}
    if not known and not (folder / REPORT).is_file():
        raise ConfigError(
            [Fault(str(folder), "exists and is not a report; give the name of a new folder")]
        )


@contextmanager
def report_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder, which replaces ``folder`` at the end of the block without error.

    `CALLS` of ``folder`` is kept.

    Raises:
        ConfigError: ``folder`` exists and is not a report, or the folder cannot be created.
    """
    check_place(folder)
    with replacing_folder(folder.absolute()) as partial:
        yield partial
        if (folder / CALLS).is_dir():
            shutil.copytree(folder / CALLS, partial / CALLS, copy_function=_link)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def write_json(folder: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    """Write report.json and return its content; numbers that cannot be computed are null."""
    data: dict[str, Any] = plain(dict(report))
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(data, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / REPORT).write_text(text + "\n", encoding="utf-8")
    return data


def write_report(folder: Path, report: Report) -> Report:
    """Write report.json, report.md and the plots; return the content of report.json.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    data = cast(Report, write_json(folder, report))
    (folder / "report.md").write_text(render(data), encoding="utf-8")
    for name, draw in PLOTS.items():
        draw(data, folder / name)
    return data
