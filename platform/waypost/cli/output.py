"""Output of commands: tables and JSON on stdout, progress and logs on stderr."""

from __future__ import annotations

import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import click

if TYPE_CHECKING:
    from waypost.metrics.operating_points import Point

_PIPE_WIDTH = 200
LINE_EVERY_S = 10.0
"""Seconds between two lines of progress where stderr is not a terminal."""
_FIRST_LINE_S = 2.0


class _EchoHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        click.echo(self.format(record), err=True)


def start_logging(debug: bool) -> None:
    """Log Waypost's messages and all warnings to stderr; with ``debug`` log everything."""
    handler = _EchoHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.DEBUG if debug else logging.WARNING, handlers=[handler])
    for package in ("waypost", "waypost_routers", "waypost_rl"):
        logging.getLogger(package).setLevel(logging.DEBUG if debug else logging.INFO)


def tell(line: str) -> None:
    """Print a line of progress on stderr."""
    click.echo(line, err=True)


def introduce(name: str, base: str, served: Sequence[str], *, example: bool = True) -> None:
    """Print what a gateway serves.

    Args:
        name: The application.
        base: Its URL, without a slash at the end.
        served: Its LLMs.
        example: Whether to print a command to try.
    """
    if not served:
        tell(f"{name}: no LLM serves")
        return
    click.echo(f"\n{name}: {base}/v1 serves {', '.join(('auto', *served))}")
    if example:
        body = '{"model": "auto", "messages": [{"role": "user", "content": "What is 12 * 7?"}]}'
        click.echo(f"try: curl -i {base}/v1/chat/completions -d '{body}'")


@contextmanager
def warnings_only(logger: str, *, unless: bool) -> Iterator[None]:
    """Log only warnings and errors of a package during the block, unless ``unless``."""
    log = logging.getLogger(logger)
    before = log.level
    if not unless:
        log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(before)


def to_json(data: Any, *, indent: int | None = None) -> str:
    """Return strict JSON; infinite and NaN numbers become strings."""
    return json.dumps(_finite(data), indent=indent, ensure_ascii=False, allow_nan=False)


def _finite(data: Any) -> Any:
    if isinstance(data, float) and not math.isfinite(data):
        return str(data)
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    return [_finite(value) for value in data] if isinstance(data, list | tuple) else data


def echo_json(data: Any) -> None:
    """Print data as indented JSON on stdout."""
    click.echo(to_json(data, indent=2))


def write_lines(path: Path, rows: Iterable[Any]) -> None:
    """Write data as JSON lines; a regular file is replaced atomically.

    Raises:
        ConfigError: the file cannot be written.
    """
    from waypost.contracts.atomic import replacing
    from waypost.contracts.errors import ConfigError, Fault

    is_special = path.exists() and not path.is_file()  # a pipe, /dev/stdout
    try:
        with (
            nullcontext(path) if is_special else replacing(path) as place,
            place.open("w", encoding="utf-8") as file,
        ):
            file.writelines(to_json(row) + "\n" for row in rows)
    except OSError as error:
        raise ConfigError([Fault(str(path), f"cannot be written: {error.strerror}")]) from None


def insert_target(text: str) -> tuple[Path, str]:
    """Split FILE:MARKER, the location of a generated table.

    Raises:
        click.UsageError: the text has another form.
    """
    path, _, marker = text.rpartition(":")
    if not path or not marker:
        raise click.UsageError("--insert: expected FILE:MARKER")
    return Path(path), marker


def table_width() -> int:
    """Return the width of tables in characters: the terminal's, or 200 in a pipe."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_WIDTH


def echo_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], right: Collection[str] = ()
) -> None:
    """Print a table on stdout; in a pipe without colour and 200 characters wide.

    Args:
        columns: Headers.
        rows: Rows with one value per column.
        right: Headers of the right-aligned columns.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column in right else "left"
        table.add_column(column, overflow="fold", justify=justify)
    for row in rows:
        table.add_row(*(Text(str(value)) for value in row))
    console = Console(file=sys.stdout, width=table_width())
    console.print(table)


POINT_COLUMNS = ("quality", "USD per 1,000 questions", "share of strong")
"""Columns of an operating point, after its lambda."""


def point_cells(point: Point) -> tuple[str, str, str, str]:
    """Return lambda and cells of an operating point, for `POINT_COLUMNS`."""
    usd = "unknown" if point.cost_usd is None else f"{1e3 * point.cost_usd:.3g}"
    return f"{point.lam:g}", f"{point.quality:.4f}", usd, f"{point.strong_share:.0%}"


class Advance(Protocol):
    """Callback that receives the progress of the work."""

    def __call__(self, done: int, total: int, what: str = ...) -> None: ...  # noqa: D102


class _Lines:
    """Progress as lines; work of less than `_FIRST_LINE_S` prints none."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._next = time.monotonic() + _FIRST_LINE_S

    def __call__(self, done: int, total: int, what: str = "") -> None:
        now = time.monotonic()
        if now >= self._next and done < total:
            self._next = now + LINE_EVERY_S
            click.echo(f"{what or self._description}: {done} of {total}", err=True)


@contextmanager
def progress_bar(description: str) -> Iterator[Advance]:
    """Show progress on stderr: a bar on a terminal, else a line every ten seconds.

    Yields a function of (done, total), with an optional new description.
    """
    bars = _bars(transient=True)
    if not bars.console.is_terminal:
        yield _Lines(description)
        return
    task = bars.add_task(description, total=None)

    def advance(done: int, total: int, what: str = description) -> None:
        bars.start()
        bars.update(task, completed=done, total=total, description=what)

    try:
        yield advance
    finally:
        if bars.live.is_started:
            bars.stop()


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show one progress bar per name on stderr; yield a function of (name, done, total)."""
    with _bars() as bars:
        tasks: dict[str, Any] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield progress


def _bars(**options: Any) -> Any:
    from rich import progress
    from rich.console import Console

    return progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        console=Console(stderr=True),
        **options,
    )
