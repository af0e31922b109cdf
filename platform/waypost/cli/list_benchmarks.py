"""``waypost list-benchmarks``: the names that ``benchmarks`` of a data config accepts."""

from __future__ import annotations

from dataclasses import asdict

import click

from waypost.cli.output import echo_json, echo_table


@click.command("list-benchmarks", epilog="Example: waypost list-benchmarks --json")
@click.option("--check", is_flag=True, help="Also load the Python files of plug-ins.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(check: bool, as_json: bool) -> None:
    """List the available benchmarks.

    These are the built-in ones and the plug-ins (folders with benchmark.yaml or benchmark.py) in
    ./custom_routers, ~/.waypost/plugins and WAYPOST_PLUGINS. No data is loaded. Plug-in code runs
    only with --check.
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
