"""``waypost data``: make routing data."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("data")
def command() -> None:
    """Make routing data: who answers what, how well, for how much."""


@command.command(epilog="Example: waypost data responses --config serve_configs/starter/data.yaml")
@click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(path_type=Path),
    help="YAML of the run.",
)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
def responses(config_path: Path, overrides: tuple[str, ...]) -> None:
    """Ask every LLM every question, score the answers, write a routing-data folder.

    May be ended at any moment; the same command continues where it was.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from waypost.pipelines.responses import run

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, object] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)  # type: ignore[arg-type]

        folder = run(config_path, overrides, progress)
    click.echo(f"wrote {folder}")
