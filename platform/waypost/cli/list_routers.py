"""``waypost list-routers``: what ``--router`` may name."""

from __future__ import annotations

from dataclasses import asdict, replace

import click

from waypost.cli.output import echo_json, echo_table
from waypost.registry import RouterEntry, list_routers, router_class


@click.command("list-routers", epilog="Example: waypost list-routers --json")
@click.option("--check", is_flag=True, help="Load each router, to see whether it can be used.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(check: bool, as_json: bool) -> None:
    """List the routers there are.

    Built-in ones, those of installed packages (entry points waypost.routers), and those in the
    folders ./custom_routers, ~/.waypost/plugins and WAYPOST_PLUGINS. Nothing is loaded unless
    --check is given.
    """
    entries = list_routers()
    if check:
        entries = [_checked(entry) for entry in entries]
    if as_json:
        echo_json([asdict(entry) for entry in entries])
        return
    rows = [
        (entry.name, entry.source, f"BROKEN: {entry.error}" if entry.error else entry.summary)
        for entry in entries
    ]
    echo_table(("name", "source", "what it does"), rows)


def _checked(entry: RouterEntry) -> RouterEntry:
    from waypost.contracts.errors import MissingExtraError, RegistryError

    if entry.error is not None:
        return entry
    try:
        router_class(entry.name)
    except (MissingExtraError, RegistryError) as error:
        return replace(entry, error=str(error))
    return entry
