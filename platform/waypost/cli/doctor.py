"""``waypost doctor``: check this machine, and what a Serve file needs of it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from waypost.cli.errors import FAILED
from waypost.cli.output import echo_json, echo_table


@click.command("doctor", epilog="Example: waypost doctor serve.yaml")
@click.argument("config", required=False, type=click.Path(path_type=Path))
@click.option("--no-try", is_flag=True, help="Do not call the endpoints.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, config: Path | None, no_try: bool, as_json: bool) -> None:
    """Check this machine, and what a Serve file needs.

    CONFIG is the Serve file; without it the machine alone is checked. Looks at Python, packages,
    memory, port, keys (whether they are there; none is shown), prices, weights and environments,
    and asks each endpoint one short question. The exit code is 1 where something is wrong, and 0
    with notes alone.
    """
    from waypost.start.doctor import WRONG, examine

    checks = list(examine(config, calls=not no_try))
    if as_json:
        echo_json([asdict(check) for check in checks])
    else:
        rows = [(one.state, one.what, one.found, one.todo) for one in checks]
        echo_table(("", "what", "found", "to do"), rows)
    if any(check.state == WRONG for check in checks):
        ctx.exit(FAILED)
