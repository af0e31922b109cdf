"""``waypost data queries``."""

from __future__ import annotations

from pathlib import Path

import click

from waypost.cli.data_options import AS_JSON, CONFIG, OVERRIDES
from waypost.cli.output import echo_json, echo_table, progress_bar


@click.command(
    "queries", epilog="Example: waypost data queries --config data.yaml benchmarks.gsm8k.n=100"
)
@CONFIG
@OVERRIDES
@AS_JSON
def queries(config_path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Gather the questions of benchmarks and split them, near-duplicates on one side.

    The first phase of a data run. Writes queries_train, queries_validation and queries_test as
    JSONL and parquet into the routing-data folder; calls no LLM.
    """
    from waypost.pipelines.queries import run

    with progress_bar("loading") as bar:
        found = run(
            config_path, overrides, lambda name, done, total: bar(done, total, name or "splitting")
        )
    if as_json:
        echo_json(found)
        return
    splits = list(found["splits"])
    rows = [(task, *(counts[one] for one in splits)) for task, counts in found["tasks"].items()]
    rows.append(("all", *found["splits"].values()))
    echo_table(["task", *splits], rows)
    click.echo(
        f"{found['questions']} questions in {found['groups']} groups of near-duplicates; "
        f"{found['doubled']} that stand twice left out"
    )
    click.echo(f"wrote {found['folder']}")
