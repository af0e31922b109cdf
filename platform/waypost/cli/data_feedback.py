"""``waypost data``: routing data from feedback and from votes, and the right to be forgotten."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import click

from waypost.cli.arguments import AS_JSON
from waypost.cli.output import echo_json, echo_table

F = TypeVar("F", bound=Callable[..., Any])


def of_split(function: F) -> F:
    """Add the options of commands that make routing data and split it."""
    for option in (
        AS_JSON,
        click.option(
            "--llms",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="llms.json with prices, sizes and descriptions of the LLMs.",
        ),
        click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
        click.option(
            "--test", type=float, default=0.2, show_default=True, help="Test fraction; 0: no test."
        ),
    ):
        function = option(function)
    return function


def _show(found: dict[str, Any], target: Path, as_json: bool) -> None:
    if as_json:
        echo_json(found)
        return
    rows = [(name, *counts.values()) for name, counts in found["splits"].items()]
    echo_table(["split", "questions", "rows", "events"], rows)
    told = [f"{len(found['llms'])} LLMs", f"{found['groups']} groups of near-duplicates"]
    kinds = [key for key in ("replaced", "without_text", "left_out") if found.get(key)]
    told += [f"{found[key]} events {key.replace('_', ' ')}" for key in kinds]
    click.echo("; ".join(told))
    click.echo(f"wrote {target}")


@click.command("from-feedback", epilog="Example: waypost data from-feedback feedback routing-data")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--decisions",
    metavar="FOLDER",
    help="Folder or URI of the decision log; by default that in SOURCE, if there is one.",
)
@of_split
def from_feedback(
    source: Path,
    target: Path,
    decisions: str | None,
    test: float,
    seed: int,
    llms: Path | None,
    as_json: bool,
) -> None:
    """Make routing data of the feedback in SOURCE, a feedback_dir or a folder with one.

    Needs texts: log_queries: true in the Serve file. Near-duplicates stay in one split. The events
    are kept beside the scores, with the propensity of each decision. A decision log adds tokens,
    dollars, seconds and predictions of requests that nobody rated.
    """
    from waypost.pipelines.data.from_feedback import from_feedback as run
    from waypost.storage import place

    log = None if decisions is None else place(decisions)
    made = run(source, target, decisions=log, test=test, seed=seed, llms=llms)
    _show(made, target, as_json)
    if not as_json:
        for problem in made["missing"]:
            click.echo(problem)


@click.command("import-votes", epilog="Example: waypost data import-votes 2024-01-01-conv.json new")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
)
@click.argument("target", type=click.Path(path_type=Path))
@of_split
def import_votes(
    files: tuple[Path, ...],
    target: Path,
    test: float,
    seed: int,
    llms: Path | None,
    as_json: bool,
) -> None:
    """Make routing data of the vote lines in FastChat's conversation logs FILES."""
    from waypost.pipelines.data.votes import import_votes as run

    _show(run(files, target, test=test, seed=seed, llms=llms), target, as_json)


@click.command("export-votes", epilog="Example: waypost data export-votes routing-data votes.jsonl")
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@AS_JSON
def export_votes(source: Path, target: Path, as_json: bool) -> None:
    """Write the preferences in routing data as vote lines of FastChat."""
    from waypost.pipelines.data.votes import export_votes as run

    found = run(source, target)
    if as_json:
        echo_json(found)
        return
    click.echo(f"{found['votes']} votes; {found['left_out']} events of other kinds left out")
    click.echo(f"wrote {target}")


@click.command("forget", epilog="Example: waypost data forget --user ann feedback")
@click.option("--user", required=True, metavar="ID", help="The user's id.")
@click.argument("folder")
@AS_JSON
def forget(user: str, folder: str, as_json: bool) -> None:
    """Delete texts and events of a user from FOLDER: feedback_dir, decision_log, parquet files.

    What lies in folders below FOLDER is deleted, too.

    FOLDER may be a URI. Repeat the command after an interruption.
    """
    from waypost.feedback import forget_user
    from waypost.storage import mirrored

    with mirrored(folder, float("inf")) as local:
        found = asdict(forget_user(local, user))
    if as_json:
        echo_json(found)
        return
    click.echo(
        f"deleted {found['events']} events, {found['requests']} requests, {found['turns']} turns, "
        f"and {found['rows']} rows of {found['files']} parquet files"
    )
