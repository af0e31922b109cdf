"""The result of a run as tables: for people, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from waypost.report.numbers import UNKNOWN, fixed, percent, table

Result = Mapping[str, Any]
Table = tuple[str, Sequence[str], list[list[str]]]

HEADS = (
    "way", "s", "of loop's", "trials/s", "start-up s", "without it: of loop's", "trials/s",
    "speed-up", "of linear", "CPU s", "of start-up", "CPU ms/trial over loop", "idle ms/trial",
)  # fmt: skip


def render(result: Result) -> None:
    """Print a result of `run.run` on stdout."""
    import click

    from waypost.cli.output import echo_table

    for title, heads, rows in _tables(result):
        click.echo(f"{title}\n")
        echo_table(heads, rows, right=heads[1:])
        click.echo("")
    click.echo(_facts(result))


def markdown(result: Result, command: str) -> str:
    """Return the tables, facts and command as Markdown."""
    lines = []
    for title, heads, rows in _tables(result):
        lines += [f"{title}:", "", *table(heads, rows), ""]
    return "\n".join([*lines, _facts(result), "", f"    {command}"])


def _facts(result: Result) -> str:
    machine = result["machine"]
    before, after = machine["load"]
    return (
        f"{machine['cores']} cores, load {before:.1f} before and {after:.1f} after; Python "
        f"{machine['python']}; one thread of linear algebra in each process. The loop makes the "
        "same fits on the same folds in one process, and every way finds the same scores. Time "
        "runs from data at hand to the last row, with Ray's start and end; without start-up it "
        "runs from when the workers began to fit, their mean. Idle is a worker's time beside its "
        "fits."
    )


def _tables(result: Result) -> Iterator[Table]:
    for name, one in result["cases"].items():
        case, ways = one["case"], one["ways"]
        each = next(iter(ways.values()))["trial_ms"]
        title = (
            f"{case['trials']} {name} trials of {case['router']}, {case['folds']} fits each, "
            f"{case['n']} made-up questions x {case['llms']} LLMs; a trial takes {each:.0f} ms"
        )
        yield title, HEADS, [[w, *_way(f, one["compared"].get(w))] for w, f in ways.items()]
    told = {True: "reached", False: "not reached", None: "not measured"}
    yield (
        "Aims",
        ("aim", "value", ""),
        [[aim["aim"], fixed(aim["value"], 2), told[aim["reached"]]] for aim in result["aims"]],
    )


def _way(one: Mapping[str, float], over: Mapping[str, float] | None) -> list[str]:
    def beside(key: str, places: int = 2) -> str:
        return UNKNOWN if over is None else fixed(over[key], places)

    return [
        fixed(one["seconds"], 1),
        beside("ratio"),
        fixed(one["per_s"], 2),
        fixed(one["start_s"], 1),
        beside("fitting_ratio"),
        fixed(one["fitting_per_s"], 2),
        beside("speed_up"),
        UNKNOWN if over is None else percent(over["of_linear"]),
        fixed(one["cpu_s"], 1),
        beside("start_cpu_s", 1),
        beside("overhead_ms", 1),
        fixed(one["idle_ms"], 1),
    ]
