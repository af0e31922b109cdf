"""The result of a run as tables: for people, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from waypost.report.numbers import UNKNOWN, table

Result = Mapping[str, Any]
Rows = list[list[str]]


def render(result: Result, console: Any) -> None:
    """Print a result of `run.run`.

    Args:
        result: What it returned.
        console: A ``rich.console.Console``.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console.print(_facts(result), markup=False)
    for title, heads, rows in _tables(result):
        shown = Table(box=box.MARKDOWN)
        shown.add_column(heads[0], no_wrap=True)
        for head in heads[1:]:
            shown.add_column(head, justify="right", no_wrap=True)
        for row in rows:
            shown.add_row(*map(Text, row))
        console.print(f"\n{title}\n", markup=False)
        console.print(shown)
    for name, why in result["failed"].items():
        console.print(f"{name} was not measured: {why}", style="red", markup=False)


def markdown(result: Result, command: str) -> str:
    """Return the tables, facts and command as Markdown."""
    lines = []
    for title, heads, rows in _tables(result):
        lines += [f"{title}:", "", *table(heads, rows), ""]
    return "\n".join([*lines, _facts(result), "", f"    {command}"])


def _facts(result: Result) -> str:
    machine, options = result["machine"], result["options"]
    return (
        f"{machine['cores']} cores, load {machine['load']:.1f} at the end; Python "
        f"{machine['python']}, numpy {machine['numpy']}; batches of {options['batch']} queries "
        f"(best of {options['repeats']}), {options['alone']} queries alone; vectors given."
    )


def _tables(result: Result) -> Iterator[tuple[str, Sequence[str], Rows]]:
    data = result["data"]
    what = "made-up questions" if data["made_up"] else "questions"
    timings = {**result["routers"], **result["references"]}
    yield (
        f"{data['queries']} {what} x {data['llms']} LLMs, {data['dimension']} wide; "
        f"{data['k']} neighbours",
        ("router", "fit s", "decisions/s", "one: p50 ms", "p99 ms", "MB"),
        [[name, *_timing(one)] for name, one in timings.items()],
    )
    if result["large"]:
        options = result["options"]
        yield (
            f"knnrouter, {options['large_n']} made-up questions x {options['large_llms']} LLMs "
            f"(of its memory the index has {result['index_mb']:.0f} MB)",
            ("search", "fit s", "one: p50 ms", "p99 ms", "recall", "same choice", "MB"),
            [[name, *_large(one)] for name, one in result["large"].items()],
        )
    told = {True: "reached", False: "not reached", None: "not measured"}
    yield (
        "Aims",
        ("aim", "value", ""),
        [[aim["aim"], _short(aim["value"]), told[aim["reached"]]] for aim in result["aims"]],
    )


def _timing(one: Mapping[str, Any]) -> list[str]:
    return [_short(one[key]) for key in ("fit_s", "per_s", "p50_ms", "p99_ms", "memory_mb")]


def _large(one: Mapping[str, Any]) -> list[str]:
    times = [_short(one[key]) for key in ("fit_s", "p50_ms", "p99_ms")]
    recall = f"{one['recall']:.4f} at {one['k']}"
    return [*times, recall, f"{one['same_choice']:.3f}", _short(one["memory_mb"])]


def _short(value: float | None) -> str:
    if value is None:
        return UNKNOWN
    if value >= 1000:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
