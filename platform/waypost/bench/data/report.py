"""The result of a run as tables: for people, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from waypost.report.numbers import fixed, percent, table

Result = Mapping[str, Any]
Table = tuple[str, Sequence[str], list[list[str]]]


def render(result: Result) -> None:
    """Print a result of `run.run` on stdout."""
    import click

    from waypost.cli.output import echo_table

    click.echo(_facts(result))
    for title, heads, rows in _tables(result):
        click.echo(f"\n{title}\n")
        echo_table(heads, rows, right=heads[1:])


def markdown(result: Result, command: str) -> str:
    """Return the tables, facts and command as Markdown."""
    lines = []
    for title, heads, rows in _tables(result):
        lines += [f"{title}:", "", *table(heads, rows), ""]
    return "\n".join([*lines, _facts(result), "", f"    {command}"])


def _facts(result: Result) -> str:
    machine, options = result["machine"], result["options"]
    before, after = machine["load"]
    return (
        f"{machine['cores']} cores for callers and endpoint, load {before:.1f} before and "
        f"{after:.1f} after; Python {machine['python']}. Rates are those at the endpoint, from "
        "its first call to its last answer (steady: over the middle 80 % of the answers); CPU "
        "seconds are those of the caller with all its processes, per 1,000 calls while it asks, "
        "and from start to end with all start-up. One after another is how LLMRouter asks "
        f"(rebuilt: the loop of its route_batch without its libraries). {options['in_flight']} "
        f"calls at once and {1000 * options['latency_s']:g} ms make "
        f"{options['in_flight'] / options['latency_s']:g} calls/s at best."
    )


def _tables(result: Result) -> Iterator[Table]:
    options = result["options"]
    yield (
        f"An endpoint that answers after {1000 * options['latency_s']:g} ms, "
        f"{options['in_flight']} calls in flight",
        ("way", "calls", "calls/s", "of ideal", "steady", "of ideal", "ours over it",
         "at once: mean", "most", "CPU s/1k", "CPU s in all", "s in all"),
        [[n, *_way(one, result["ratios"].get(n, 1.0))] for n, one in result["ways"].items()],
    )  # fmt: skip
    if result["memory"]:
        yield (
            "Most memory of their own (anonymous pages: no files, no object store), MB, at "
            f"{1000 * options['cells_latency_s']:g} ms",
            ("cells", "askers", "driver", "object store", "all processes", "calls/s", "s in all"),
            [_memory(row) for row in result["memory"]],
        )
    told = {True: "reached", False: "not reached", None: "not measured"}
    yield (
        "Aims",
        ("aim", "value", ""),
        [[aim["aim"], fixed(aim["value"], 2), told[aim["reached"]]] for aim in result["aims"]],
    )


def _way(one: Mapping[str, Any], ratio: float) -> list[str]:
    return [
        f"{one['calls']:,}",
        fixed(one["per_s"], 1),
        percent(one["of_ideal"]),
        fixed(one["steady_per_s"], 1),
        percent(one["steady_of_ideal"]),
        fixed(ratio, 2),
        fixed(one["mean_at_once"], 1),
        str(one["most_at_once"]),
        fixed(one["cpu_s_per_1k"], 2),
        fixed(one["cpu_s"], 1),
        fixed(one["wall_s"], 1),
    ]


def _memory(row: Mapping[str, Any]) -> list[str]:
    sizes = [
        f"{row[key]:,.0f}"
        for key in ("askers_mb", "driver_mb", "store_mb", "tree_mb", "per_s", "wall_s")
    ]
    return [f"{row['cells']:,}", *sizes]
