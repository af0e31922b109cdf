"""Options that the commands of a data run share."""

from __future__ import annotations

from pathlib import Path

import click

CONFIG = click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(path_type=Path),
    help="YAML of the run.",
)
OVERRIDES = click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON.")
