"""``waypost data run`` and its third phase, ``waypost data responses``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from waypost.cli.data_options import AS_JSON, CONFIG, OVERRIDES
from waypost.cli.data_progress import run_display
from waypost.cli.errors import FAILED
from waypost.cli.output import echo_json, echo_table, progress_bar

if TYPE_CHECKING:
    from waypost.pipelines.responses import Summary


@click.command(epilog="Example: waypost data responses --config serve_configs/starter/data.yaml")
@CONFIG
@AS_JSON
@OVERRIDES
def responses(config_path: Path, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Ask every LLM every question, score the answers, write the tables.

    The third phase: the questions are there already (`waypost data queries`). May be ended at any
    moment; the same command continues where it was and pays for no answer twice. The exit code
    is 1 where a cell has no answer in the end.
    """
    from waypost.pipelines.responses import run

    with _may_be_ended(), run_display() as watcher:
        summary = run(config_path, overrides, watcher)
    _tell(summary, as_json)


@click.command(epilog="Example: waypost data run --config serve_configs/starter/data.yaml")
@CONFIG
@click.option(
    "--llmrouter",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write LLMRouter's files (JSONL, .pt) there, too.",
)
@AS_JSON
@OVERRIDES
def run(
    config_path: Path, llmrouter: Path | None, as_json: bool, overrides: tuple[str, ...]
) -> None:
    """Make routing data: questions, embeddings of LLMs and questions, answers, scores, costs.

    All three phases (queries, llm-embeddings, responses) of one YAML. May be ended at any moment;
    the same command continues where it was and pays for no answer twice.
    """
    from waypost.pipelines import data_run, responses

    with _may_be_ended(), data_run.whole_run(config_path, overrides):
        with progress_bar("questions") as progress:
            data_run.prepare(
                config_path, overrides, lambda what, done, total: progress(done, total, what)
            )
        with run_display() as watcher:
            summary = responses.run(config_path, overrides, watcher)
        if llmrouter is not None:
            data_run.export(config_path, overrides, llmrouter)
    _tell(summary, as_json)


@contextmanager
def _may_be_ended() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        click.echo("ended; the same command goes on where it was", err=True)
        raise


def _tell(summary: Summary, as_json: bool) -> None:
    if as_json:
        echo_json(_plain(summary))
    else:
        _print(summary)
    if not summary.complete:
        raise click.exceptions.Exit(FAILED)


def _print(summary: Summary) -> None:
    rows = [
        (
            name,
            tally.done - tally.cached - tally.failed - tally.left,
            tally.failed,
            f"{tally.usd:.4g}",
            summary.unanswered[name],
        )
        for name, tally in summary.llms.items()
    ]
    echo_table(["LLM", "answered now", "failed", "USD", "without an answer"], rows)
    for name, tally in summary.llms.items():
        for kind, count in tally.errors.most_common():
            unscored = kind == "not scored"
            what = f"{count} answers not scored" if unscored else f"{count} calls failed: {kind}"
            click.echo(f"{name}: {what}: {summary.reasons[name].get(kind, kind)}", err=True)
    click.echo(f"wrote {summary.folder}")
    if any(tally.left for tally in summary.llms.values()):
        click.echo(
            "stopped at the budget; the same command goes on, with as much again to spend", err=True
        )
    elif not summary.complete:
        click.echo("the same command tries again what has no answer", err=True)


def _plain(summary: Summary) -> dict[str, Any]:
    return {
        "folder": str(summary.folder),
        "cells": summary.cells,
        "complete": summary.complete,
        "seconds": round(summary.seconds, 1),
        "llms": {
            name: {
                "answered": tally.done - tally.cached - tally.failed - tally.left,
                "cached": tally.cached,
                "failed": tally.failed,
                "errors": dict(tally.errors),
                "reasons": dict(summary.reasons[name]),
                "left_by_budget": tally.left,
                "usd": tally.usd,
                "unanswered": summary.unanswered[name],
            }
            for name, tally in summary.llms.items()
        },
    }
