"""``waypost list-routers``: the names that ``--router`` accepts."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from typing import Any

import click

from waypost.cli.output import echo_json, echo_table
from waypost.registry import RouterEntry, RouterFacts, check_router, list_routers


@click.command("list-routers", epilog="Example: waypost list-routers --json")
@click.option("--check", is_flag=True, help="Load each router; show errors and properties.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(check: bool, as_json: bool) -> None:
    """List the available routers.

    These are the built-in ones, those of installed packages (entry points waypost.routers), and
    the plug-ins in ./custom_routers, ~/.waypost/plugins and WAYPOST_PLUGINS. Routers are loaded
    only with --check.

    \b
    Families, by the calls of one request:
      single-round  one call of the chosen LLM
      multi-round   several calls; later calls can depend on earlier answers
      personal      one call, chosen by the user's id
      agentic       a plan of sub-questions, each routed separately
    """  # noqa: D301 # click reads the escaped character: the next paragraph is not wrapped
    rows = [_row(entry, check) for entry in list_routers()]
    if as_json:
        echo_json(rows)
        return
    columns = ["name", "family", "source", "what it does"]
    cells = [
        [*map(row.get, ("name", "family", "source")), _broken(row["error"]) or row["summary"]]
        for row in rows
    ]
    if check:
        columns[3:3] = ["kind", "learns", "a new LLM needs"]
        cells = [[*cell[:3], *_facts(row), cell[3]] for cell, row in zip(cells, rows, strict=True)]
    echo_table(columns, cells)


def _broken(error: str | None) -> str:
    return f"BROKEN: {error}" if error else ""


def _row(entry: RouterEntry, check: bool) -> dict[str, Any]:
    from waypost.contracts.errors import WaypostError

    facts: dict[str, Any] = dict.fromkeys(field.name for field in fields(RouterFacts))
    facts["family"] = entry.family
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
