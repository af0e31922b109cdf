"""``waypost data import-llmrouter`` and ``export-llmrouter``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from waypost.cli.output import echo_json, echo_table, progress_bar


@click.command(
    "import-llmrouter",
    epilog="Example: waypost data import-llmrouter LLMRouter/data/example_data routing-data",
)
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
def import_llmrouter(source: Path, target: Path, as_json: bool) -> None:
    """Make a routing-data folder of LLMRouter's files.

    SOURCE is the folder that holds them (routing JSONL, LLM JSON; embeddings and router configs
    where there are any), or one of LLMRouter's configs, whose data_path names them. A router
    config becomes TARGET/train-ROUTER.yaml for waypost train --config.
    """
    from waypost.pipelines.llmrouter.importing import import_llmrouter as run

    found = run(source, target)
    if as_json:
        echo_json(found)
        return
    _show_splits(found, ("rows", "queries", "failed_calls", "repeated"))
    if found["embeddings"]:
        click.echo(
            f"{found['embeddings']} query embeddings kept for export; routers here are trained "
            "with an encoder of their own"
        )
    for config in found["configs"]:
        became = "no router here" if config["router"] is None else f"train-{config['router']}.yaml"
        click.echo(f"{config['file']}: {became}")
        if config["unmapped"]:
            click.echo(f"  without a counterpart: {', '.join(config['unmapped'])}")
    if found["unknown_fields"]:
        click.echo(f"fields left out: {', '.join(found['unknown_fields'])}")
    if found["ignored"]:
        click.echo(f"files not read: {', '.join(found['ignored'])}")
    click.echo(f"wrote {target}")


@click.command(
    "export-llmrouter",
    epilog="Example: waypost data export-llmrouter routing-data for-llmrouter --encoder static",
)
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.argument("target", type=click.Path(path_type=Path))
@click.option(
    "--encoder",
    help="Encoder of the query embeddings; without it those that SOURCE keeps are written.",
)
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def export_llmrouter(source: Path, target: Path, encoder: str | None, as_json: bool) -> None:
    """Write routing data as LLMRouter's files, with a config.yaml that names them."""
    from waypost.pipelines.llmrouter.exporting import export_llmrouter as run

    with progress_bar("embedding") as progress:
        found = run(source, target, encoder, progress)
    if as_json:
        echo_json(found)
        return
    _show_splits(found, ("rows", "queries", "left_out"))
    click.echo(
        "no query embeddings: most of LLMRouter's routers need them; give --encoder"
        if found["embeddings"] is None
        else f"query embeddings: {found['embeddings']}"
    )
    click.echo(f"wrote {target}")


def _show_splits(found: dict[str, Any], keys: tuple[str, ...]) -> None:
    rows = [(name, *(one[key] for key in keys)) for name, one in found["splits"].items()]
    echo_table(["split", *(key.replace("_", " ") for key in keys)], rows)
