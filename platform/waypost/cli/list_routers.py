"""``waypost list-routers``: what ``--router`` may name."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

import click

from waypost.cli.output import echo_json, echo_table
from waypost.registry import RouterEntry, RouterFacts, check_router, list_routers


@click.command("list-routers", epilog="Example: waypost list-routers --json")
@click.option("--check", is_flag=True, help="Load each router: can it be used, and what is it?")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(check: bool, as_json: bool) -> None:
    """List the routers there are.

    Built-in ones, those of installed packages (entry points waypost.routers), and those in the
    folders ./custom_routers, ~/.waypost/plugins and WAYPOST_PLUGINS. Nothing is loaded unless
    --check is given.
    """
    rows = [_row(entry, check) for entry in list_routers()]
    if as_json:
        echo_json(rows)
        return
    columns = ["name", "source", "what it does"]
    cells = [
        [row["name"], row["source"], f"BROKEN: {row['error']}" if row["error"] else row["summary"]]
        for row in rows
    ]
    if check:
        columns[2:2] = ["kind", "learns", "a new LLM needs"]
        cells = [[*cell[:2], *_facts(row), cell[2]] for cell, row in zip(cells, rows, strict=True)]
    echo_table(columns, cells)


def _row(entry: RouterEntry, check: bool) -> dict[str, Any]:
    from waypost.contracts.errors import WaypostError

    facts: dict[str, Any] = dict.fromkeys(field.name for field in fields(RouterFacts))
    if check and entry.error is None:
        try:
            facts = asdict(check_router(entry))
        except WaypostError as error:
            entry = replace(entry, error=str(error))
    return {**asdict(entry), **facts}


def _facts(row: dict[str, Any]) -> list[str]:
    if row["kind"] is None:
        return ["", "", ""]
    learns = "yes" if row["trainable"] else "no"
    return [row["kind"], learns, row["new_model_support"] if row["trainable"] else "nothing"]
