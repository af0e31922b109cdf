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
    r"""List the routers there are.

    Built-in ones, those of installed packages (entry points waypost.routers), and those in the
    folders ./custom_routers, ~/.waypost/plugins and WAYPOST_PLUGINS. Nothing is loaded unless
    --check is given.

    \b
    Families, by what a request is:
      single-round  one call of the LLM that is chosen
      multi-round   several calls, each decided from the answers before it
      personal      one call, chosen by who asks
      agentic       a plan of sub-questions that are routed apart
    """
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
