"""The comparison as tables: for people, and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from waypost.report.numbers import UNKNOWN, fixed, table, usd

Result = Mapping[str, Any]

HEADS = (
    "router", "trials", "default", "tuned", "tuned less default", "verdict", "USD per 1k: default",
    "tuned", "search s",
)  # fmt: skip


def render(result: Result) -> None:
    """Print a result of `run.run` on stdout."""
    import click

    from waypost.cli.output import echo_table

    for title, rows in _tables(result):
        click.echo(f"{title}\n")
        echo_table(HEADS, rows, right=HEADS[1:])
        click.echo("")
    click.echo(_facts(result))
    for name, one in result["data"].items():
        for router, why in one["failed"].items():
            click.echo(f"{name}: {router} was not compared: {why}", err=True)


def markdown(result: Result, command: str) -> str:
    """Return the tables, facts and command as Markdown."""
    lines = []
    for title, rows in _tables(result):
        lines += [f"{title}:", "", *table(HEADS, rows), ""]
    return "\n".join([*lines, _facts(result), "", f"    {command}"])


def _tables(result: Result) -> Iterator[tuple[str, Sequence[Sequence[str]]]]:
    for name, one in result["data"].items():
        title = f"{name}: {one['train']} training and {one['test']} test questions x {one['llms']}"
        rows = [_row(router, row) for router, row in one["rows"].items()]
        rows += [[router, *[UNKNOWN] * (len(HEADS) - 1)] for router in one["failed"]]
        yield f"{title} LLMs", rows


def _row(router: str, row: Mapping[str, Any]) -> list[str]:
    quality, cost = row["quality"], row["cost_usd_per_1k"]
    difference = fixed(row["difference"], 4, sign=True)
    if row["difference"] == 0 and row["low"] == row["high"] == 0:
        difference = "0"
    elif row["low"] is not None and row["high"] is not None:
        low, high = (fixed(row[key], 4, sign=True) for key in ("low", "high"))
        difference += f" [{low}, {high}]"
    return [
        router,
        str(row["trials"]),
        fixed(quality["default"], 4),
        fixed(quality["tuned"], 4),
        difference,
        row["verdict"] or UNKNOWN,
        usd(cost["default"]),
        usd(cost["tuned"]),
        fixed(row["seconds"], 0),
    ]


def _facts(result: Result) -> str:
    counts, machine, options = result["counts"], result["machine"], result["options"]
    before, after = machine["load"]
    seeds = [str(seed) for seed in options["seeds"].values() if seed is not None]
    split = f", questions pooled and split anew with seed {seeds[0]}" if seeds else ""
    return (
        f"Of {counts['rows']} routers tuned, {counts['not_worse']} are not worse on test within "
        f"the interval; {counts['higher']} are higher, {counts['better']} of them beyond the "
        f"interval, and {counts['kept']} kept the default. Quality of the choices at lambda 0 on "
        "the test split, which no sweep has seen; differences with paired 95 % bootstrap "
        "intervals. Settings are chosen by cross-validation in the training split, and the "
        "default stays unless another is better beyond the noise: then both are one router. "
        f"Encoder {options['encoder']}{split}; {machine['cores']} cores, load {before:.1f} before "
        f"and {after:.1f} after."
    )
