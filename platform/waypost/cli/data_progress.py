"""How far a data run is: one line an LLM on a terminal, a line in a log every ten seconds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from waypost.pipelines.responses import State, Watcher

_LOG_EVERY_S = 10.0


@contextmanager
def run_display() -> Iterator[Watcher]:
    """Show the states that a run tells."""
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

    def __call__(self, states: Sequence[State], seconds: float) -> None:
        finished = all(state.tally.done == state.total for state in states)
        if self._finished or (seconds < self._next and not finished):
            return
        self._next, self._finished = seconds + _LOG_EVERY_S, finished
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


def answers(state: State) -> int:
    """Count what was answered: neither what failed nor what the budget left."""
    return state.tally.done - state.tally.failed - state.tally.left


def table(states: Sequence[State], seconds: float) -> Any:
    """Return the states as a table to be drawn."""
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


def _time_left(states: Sequence[State], seconds: float) -> str:
    """Say how long what is left takes at the rate so far."""
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
