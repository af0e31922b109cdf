"""``waypost bench``: measure parts of the system on this machine."""

from __future__ import annotations

import click

from waypost.cli.lazy import LazyGroup

COMMANDS = {
    "encoder": ("waypost.cli.bench_encoder", "Time and compare query encoders."),
}


@click.group(
    "bench",
    cls=LazyGroup,
    commands_by_name=COMMANDS,
    epilog="Example: waypost bench encoder --help",
)
def command() -> None:
    """Measure parts of the system on this machine."""
