"""``waypost data import``: routing data from the results of other projects."""

from __future__ import annotations

from pathlib import Path

import click

from waypost.cli.data_feedback import of_split
from waypost.cli.output import echo_json, echo_table


@click.command("import", epilog="Example: waypost data import routerbench_0shot.csv routing-data")
@click.argument("sources", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@of_split
def import_results(
    sources: tuple[Path, ...],
    target: Path,
    test: float,
    seed: int,
    llms: Path | None,
    as_json: bool,
) -> None:
    """Make routing data of other projects' results.

    SOURCES are files or folders of RouterBench (a table with LLM|total_cost), RouteLLM (response
    CSVs) or RouterArena (cached_results); their columns tell which. For LLMRouter's files, see
    import-llmrouter; for FastChat's votes, import-votes.
    """
    from waypost.pipelines.data.results import import_results as run

    found = run(sources, target, test=test, seed=seed, llms=llms)
    if as_json:
        echo_json(found)
        return
    rows = [(name, *counts.values()) for name, counts in found["splits"].items()]
    echo_table(["split", "questions", "rows"], rows)
    told = [f"{len(found['llms'])} LLMs"]
    told += [f"{count} files of {name}" for name, count in found["formats"].items()]
    told += [f"{found[key]} rows {key}" for key in ("unscored", "repeated") if found[key]]
    click.echo("; ".join(told))
    click.echo(f"wrote {target}")
