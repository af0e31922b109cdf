"""``waypost data run`` and ``waypost data responses``: call the LLMs, with a progress display.

A terminal shows one line per LLM; otherwise one log line is printed every ten seconds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from waypost.cli.arguments import AS_JSON, CONFIG, OVERRIDES
from waypost.cli.errors import FAILED, interruptible
from waypost.cli.output import LINE_EVERY_S, echo_json, echo_table, progress_bar

if TYPE_CHECKING:
    from waypost.pipelines.data.responses import LLMProgress, RunWatcher, Summary


@contextmanager
def run_display() -> Iterator[RunWatcher]:
    """Show the progress of a run on stderr."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _Lines()
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield lambda states, seconds: live.update(table(states, seconds))


class _Lines:
    def __init__(self) -> None:
        self._next = 0.0
        self._finished = False

    def __call__(self, states: Sequence[LLMProgress], seconds: float) -> None:
        finished = all(state.tally.done == state.total for state in states)
        if self._finished or (seconds < self._next and not finished):
            return
        self._next, self._finished = seconds + LINE_EVERY_S, finished
        done = sum(answers(state) for state in states)
        total = sum(state.total for state in states)
        usd = sum(state.tally.usd for state in states)
        failed = sum(state.tally.failed for state in states)
        parts = ", ".join(f"{s.llm} {answers(s)}/{s.total}" for s in states)
        click.echo(
            f"{done}/{total} answers, {done / max(seconds, 1e-9):.1f}/s, {usd:.4g} USD, "
            f"{failed} failed, {_time_left(states, seconds)} left: {parts}",
            err=True,
        )


def answers(state: LLMProgress) -> int:
    """Return the number of answered cells, without those that failed or were left out."""
    return state.tally.done - state.tally.failed - state.tally.left


def table(states: Sequence[LLMProgress], seconds: float) -> Any:
    """Return the progress as a rich table."""
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    drawn = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("LLM", "", "answers", "a second", "USD", "failed", "left"):
        drawn.add_column(name, justify="left" if name in {"LLM", ""} else "right")
    for state in states:
        tally = state.tally
        errors = ", ".join(f"{n} {kind}" for kind, n in tally.errors.most_common(2))
        drawn.add_row(
            state.llm,
            ProgressBar(total=state.total, completed=tally.done, width=24),
            f"{answers(state)}/{state.total}",
            f"{answers(state) / max(seconds, 1e-9):.1f}",
            f"{tally.usd:.4g}",
            errors or "0",
            _time_left([state], seconds),
        )
    return drawn


def _time_left(states: Sequence[LLMProgress], seconds: float) -> str:
    """Return the remaining time at the average rate so far, or "?" before the first answer."""
    longest = 0.0
    for state in states:
        asked = state.tally.done - state.tally.cached
        left = state.total - state.tally.done
        if left and not asked:
            return "?"
        longest = max(longest, left * seconds / asked if left else 0.0)
    minutes, rest = divmod(round(longest), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@click.command(epilog="Example: waypost data responses --config serve_configs/starter/data.yaml")
@CONFIG
@AS_JSON
@OVERRIDES
def responses(config_path: Path, as_json: bool, overrides: tuple[str, ...]) -> None:
    """Send every question to every LLM, score the answers and write the tables.

    Third phase of a data run, after `waypost data queries`. An interrupted run continues with the
    same command and pays for no answer twice. The exit code is 1 if an answer is missing.
    """
    from waypost.pipelines.data.responses import run

    with interruptible("continues the run"), run_display() as watcher:
        summary = run(config_path, overrides, watcher)
    _tell(summary, as_json)


@click.command(epilog="Example: waypost data run --config serve_configs/starter/data.yaml")
@CONFIG
@click.option(
    "--llmrouter",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write LLMRouter's files (JSONL, .pt) to DIR.",
)
@AS_JSON
@OVERRIDES
def run(
    config_path: Path, llmrouter: Path | None, as_json: bool, overrides: tuple[str, ...]
) -> None:
    """Make routing data: questions, embeddings of LLMs and questions, answers, scores, costs.

    Runs the three phases queries, llm-embeddings and responses of one YAML file. An interrupted
    run continues with the same command and pays for no answer twice.
    """
    from waypost.config import collecting
    from waypost.contracts.errors import ConfigError, Fault
    from waypost.pipelines.data import llm_embeddings, questions, responses
    from waypost.pipelines.data.config import load_data_config, locked, run_folder
    from waypost.pipelines.data.llmrouter.exporting import export_llmrouter

    config = load_data_config(config_path, overrides)
    found: list[Fault] = []  # of all phases, before the slow ones
    where = str(config_path)
    collecting(found, where, lambda: responses.check_llms(config, where))
    collecting(found, where, lambda: questions.find_all(config, config_path.parent, where))
    if found:
        raise ConfigError(found)
    with interruptible("continues the run"), locked(config_path, config):
        with progress_bar("questions") as progress:
            questions.run(
                config_path, overrides, lambda what, done, total: progress(done, total, what)
            )
        llm_embeddings.run(config_path, overrides)
        with run_display() as watcher:
            summary = responses.run(config_path, overrides, watcher)
        if llmrouter is not None:
            with run_folder(config_path, config) as folder:
                export_llmrouter(folder, llmrouter)
    _tell(summary, as_json)


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
            "stopped at the budget; the same command continues with a fresh budget", err=True
        )
    elif not summary.complete:
        click.echo("the same command retries calls without an answer", err=True)


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
