"""``waypost list-benchmarks``: what a data config may name under ``benchmarks``."""

from __future__ import annotations

from dataclasses import asdict

import click

from waypost.cli.output import echo_json, echo_table


@click.command("list-benchmarks", epilog="Example: waypost list-benchmarks --json")
@click.option("--check", is_flag=True, help="Load the Python files of plug-ins, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(check: bool, as_json: bool) -> None:
    """List the benchmarks there are.

    Built-in ones, and those in the folders ./custom_routers, ~/.waypost/plugins and
    WAYPOST_PLUGINS: a folder with benchmark.yaml or benchmark.py. No data is loaded, and no code
    of a plug-in unless --check is given.
    """
    from waypost.benchmarks.catalog import list_benchmarks, load_entry

    entries = list_benchmarks()
    if check:
        entries = [load_entry(entry) for entry in entries]
    if as_json:
        echo_json([asdict(entry) for entry in entries])
        return
    rows = [
        [
            entry.name,
            entry.kind,
            entry.source or "",
            entry.metric or "",
            "" if entry.columns is None else str(len(entry.columns)),
            f"BROKEN: {entry.error}" if entry.error else entry.summary,
        ]
        for entry in entries
    ]
    echo_table(["name", "kind", "source", "metric", "columns", "what it asks"], rows)
