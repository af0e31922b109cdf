"""``waypost data``: make routing data."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from waypost.cli.data_describe import describe
from waypost.cli.data_llm_embeddings import llm_embeddings
from waypost.cli.data_llmrouter import export_llmrouter, import_llmrouter
from waypost.cli.data_options import CONFIG, OVERRIDES
from waypost.cli.data_queries import queries
from waypost.cli.data_run import responses, run
from waypost.cli.output import echo_json, echo_table


@click.group("data")
def command() -> None:
    """Make routing data: who answers what, how well, for how much."""


@command.command(epilog="Example: waypost data verdicts --config serve_configs/starter/data.yaml")
@CONFIG
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="Who is asked; may be given again. Without it: all but the dearest.",
)
@click.option("--samples", type=int, default=4, show_default=True, help="Verdicts on each answer.")
@OVERRIDES
def verdicts(
    config_path: Path, models: tuple[str, ...], samples: int, overrides: tuple[str, ...]
) -> None:
    """Ask LLMs whether their own recorded answers are correct, for the router automix.

    Adds columns to the routing data that `waypost data responses` wrote. May be ended at any
    moment; the same command continues where it was.
    """
    from waypost.pipelines.verdicts import run

    with _bars() as progress:
        folder = run(config_path, overrides, models, samples, progress)
    click.echo(f"wrote {folder}")


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show one bar an LLM; yields what is told (name, done, total)."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def progress(name: str, done: int, total: int) -> None:
            if name not in tasks:
                tasks[name] = bars.add_task(name, total=total)
            bars.update(tasks[name], completed=done)

        yield progress


@command.command(epilog="Example: waypost data split DIR NEW --pool --test 0.2 --seed 1")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--test", type=float, default=0.2, show_default=True, help="Share of the test split.")
@click.option(
    "--validation",
    type=float,
    default=0.0,
    show_default=True,
    help="Share of the validation split; 0 is none.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--pool",
    is_flag=True,
    help="Split train and test together, without test questions that stand in train.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the counts as JSON.")
def split(
    source: Path,
    target: Path,
    test: float,
    validation: float,
    seed: int,
    pool: bool,
    as_json: bool,
) -> None:
    """Split routing data anew, by task; near-duplicates stay on one side.

    Writes the folder TARGET with every column of SOURCE. Without --pool the training split
    alone is split, and SOURCE's test split is left behind.
    """
    from waypost.pipelines.split import split_folder

    found = split_folder(source, target, test=test, validation=validation, seed=seed, pooled=pool)
    if as_json:
        echo_json(found)
        return
    names = list(found["splits"])
    rows = [(task or "(none)", *counts.values()) for task, counts in found["tasks"].items()]
    rows += [
        (f"all {key}", *(found["splits"][name][key] for name in names))
        for key in ("queries", "groups")
    ]
    echo_table(["task", *names], rows)
    if found["leaked"] is not None:
        click.echo(
            f"test questions of {source} with a near-duplicate in its train: {found['leaked']}; "
            f"left out as the same question: {found['left_out']}"
        )
    click.echo(f"test questions with a near-duplicate in train now: {found['leaks']}")
    click.echo(f"wrote {target}")


command.add_command(run)
command.add_command(queries)
command.add_command(responses)
command.add_command(import_llmrouter)
command.add_command(export_llmrouter)
command.add_command(llm_embeddings)
command.add_command(describe)
