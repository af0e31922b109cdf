"""``waypost data describe``: a summary of routing data."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from waypost.cli.output import echo_json, echo_table, table_width
from waypost.report.numbers import fixed, percent, usd

Report = dict[str, Any]

_NO_TASK = "(no task)"
_GAP = 2


@click.command("describe", epilog="Example: waypost data describe serve_configs/starter/data")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
def describe(folder: Path, as_json: bool) -> None:
    """Summarise a routing-data folder: questions, scores, gaps, costs, ties, leaks."""
    from waypost.pipelines.data.describe import describe as run

    report = run(folder)
    if as_json:
        echo_json(report)
        return
    click.echo(_summary(report))
    for title, show in (
        ("Questions", _questions),
        ("LLMs", _llms),
        ("Gaps", _gaps),
        ("Calls", _calls),
        ("Mean score by task", _scores),
        ("What routing could win, in hindsight", _headroom),
        ("Ties", _ties),
        ("Embeddings", _embeddings),
    ):
        click.echo(f"\n{click.style(title, bold=True)}")
        show(report)


def _summary(report: Report) -> str:
    questions = sum(split["questions"] for split in report["splits"].values())
    calls = report["calls"]
    versions = ", ".join(calls["scorer_versions"]) or "none"
    return (
        f"{report['folder']}\n{questions:,} questions, {len(report['llms'])} LLMs, "
        f"{calls['rows']:,} rows; {calls['with_response']:,} with the answer's text, "
        f"{calls['with_verdicts']:,} with verdicts; scorer version {versions}"
    )


def _questions(report: Report) -> None:
    splits = report["splits"]
    rows: list[tuple[object, ...]] = [
        (task or _NO_TASK, *(_count(counts[name]) for name in splits))
        for task, counts in report["tasks"].items()
    ]
    rows.append(("all", *(_count(split["questions"]) for split in splits.values())))
    rows.append(
        ("near-duplicates inside", *(_count(one["near_duplicates"]) for one in splits.values()))
    )
    echo_table(["task", *splits], rows, right=list(splits))
    for leak in report["leaks"]:
        click.echo(
            f"{leak['of']} questions with a near-duplicate in {leak['in']}: {leak['questions']:,}"
        )
    if unasked := {split: count for split, count in report["unasked"].items() if count}:
        counts = ", ".join(f"{split} {count:,}" for split, count in unasked.items())
        click.echo(f"questions without a row of any LLM: {counts}")


def _llms(report: Report) -> None:
    numbers = ["size", "$/M in", "$/M out", "context", "score", "measured"]
    rows = [
        (
            *llm,
            one["size"] or "n/a",
            _price(one["input_price"]),
            _price(one["output_price"]),
            _count(one["context_length"]),
            fixed(one["mean"]),
            _count(one["measured"]),
        )
        for llm, one in _numbered(report)
    ]
    echo_table(["#", "llm", *numbers], rows, right=["#", *numbers])


def _gaps(report: Report) -> None:
    calls, numbers = report["calls"], ["missing", "failed", "unscored"]
    if not (calls["missing"] or calls["failed"] or calls["unscored"]):
        click.echo("none: every LLM has a score for every question")
        return
    rows = [
        (
            *llm,
            _count(one["missing"]),
            _count(sum(one["failed"].values())),
            _count(one["unscored"]),
            ", ".join(f"{kind} {count:,}" for kind, count in one["failed"].items()),
        )
        for llm, one in _numbered(report)
    ]
    echo_table(["#", "llm", *numbers, "errors"], rows, right=["#", *numbers])


def _calls(report: Report) -> None:
    numbers = ["tokens in", "out", "$ in all", "$/1,000", "$ unknown", "p50 s", "p95 s"]
    rows = [
        (
            *llm,
            fixed(one["input_tokens"], 1),
            fixed(one["output_tokens"], 1),
            usd(one["cost_usd"]),
            usd(_times(1000, one["cost_usd_per_call"])),
            _count(one["unknown_costs"]),
            fixed(one["latency_s"]["p50"], 2),
            fixed(one["latency_s"]["p95"], 2),
        )
        for llm, one in _numbered(report)
    ]
    echo_table(["#", "llm", *numbers], rows, right=["#", *numbers])
    costs = report["costs"]
    if costs["usd"] is None:
        click.echo("no cost known: no dollars recorded, and no prices with token counts")
    else:
        click.echo(f"${usd(costs['usd'])} in all, from {costs['basis']}")


def _scores(report: Report) -> None:
    llms = list(report["llms"])
    sizes = {task: sum(counts.values()) for task, counts in report["tasks"].items()}
    body = [
        ((task or _NO_TASK, _count(sizes[task])), [_score(cells[llm], sizes[task]) for llm in llms])
        for task, cells in report["scores"].items()
    ]
    heads, at_once = _columns(llms, [name for name, _ in body], [row for _, row in body])
    for start in range(0, len(llms), at_once):
        part = slice(start, start + at_once)
        numbers = ["n", *heads[part]]
        rows = [(*name, *row[part]) for name, row in body]
        echo_table(["task", *numbers], rows, right=numbers)
    if any("(" in cell for _, row in body for cell in row):
        click.echo("in brackets: how many of the n questions have a score")


def _columns(
    llms: list[str], names: list[tuple[str, str]], body: list[list[str]]
) -> tuple[list[str], int]:
    """Return the headers of the LLM columns, and how many of them fit into one table.

    The headers are LLM names if all columns fit into one table, else numbers.
    """
    taken = sum(max(map(len, column)) + _GAP for column in zip(("task", "n"), *names, strict=True))
    room = table_width() - taken
    widest = max(len(cell) for row in body for cell in row)
    if sum(max(len(llm), widest) + _GAP for llm in llms) <= room:
        return llms, len(llms)
    heads = [str(number) for number in range(1, len(llms) + 1)]
    tables = math.ceil(len(llms) / max(room // (widest + _GAP), 1))
    return heads, math.ceil(len(llms) / tables)


def _headroom(report: Report) -> None:
    rows = [
        (
            split,
            _count(found["questions"]),
            found["best"],
            fixed(found["best_mean"]),
            fixed(found["oracle_mean"]),
            fixed(found["headroom"]),
        )
        for split, found in _by_split(report, "headroom")
        if found is not None
    ]
    numbers = ["score", "oracle", "headroom"]
    heads = ["split", "questions", "best single LLM", *numbers]
    echo_table(heads, rows, right=["questions", *numbers])


def _ties(report: Report) -> None:
    columns = ["questions", "several are best", "all score the same", "none scores"]
    rows = [
        (
            split,
            _count(one["questions"]),
            *(percent(one[key]) for key in ("several_best", "all_equal", "none_scores")),
        )
        for split, one in _by_split(report, "ties")
    ]
    echo_table(["split", *columns], rows, right=columns)


def _embeddings(report: Report) -> None:
    rows = [
        (of, one["encoder"], one["dimension"], f"{one['embedded']:,} of {one['texts']:,}")
        for of, found in report["embeddings"].items()
        for one in found
    ]
    if rows:
        echo_table(["of", "encoder", "dimension", "there"], rows, right=["dimension", "there"])
    else:
        click.echo("none kept")


def _by_split(report: Report, key: str) -> list[tuple[str, Any]]:
    """Return the entries of a report by split, without ``all`` if there is one split only."""
    only = len(report["splits"]) == 1
    return [(split, one) for split, one in report[key].items() if not (only and split == "all")]


def _numbered(report: Report) -> list[tuple[tuple[int, str], Report]]:
    """Return the LLMs with the numbers that head the score columns if names do not fit."""
    return [((i, name), one) for i, (name, one) in enumerate(report["llms"].items(), start=1)]


def _score(cell: Report, questions: int) -> str:
    measured = cell["measured"]
    return fixed(cell["mean"]) + ("" if measured == questions else f" ({measured:,})")


def _count(value: int | None) -> str:
    return "n/a" if value is None else f"{value:,}"


def _price(value: float | None) -> str:
    return "n/a" if value is None else f"{value:g}"


def _times(factor: float, value: float | None) -> float | None:
    return None if value is None else factor * value
