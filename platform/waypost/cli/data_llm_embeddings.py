"""``waypost data llm-embeddings``."""

from __future__ import annotations

from pathlib import Path

import click

from waypost.cli.data_options import AS_JSON, CONFIG, OVERRIDES
from waypost.cli.output import echo_json, echo_table


@click.command(
    "llm-embeddings", epilog="Example: waypost data llm-embeddings --config data.yaml encoder=onnx"
)
@CONFIG
@OVERRIDES
@AS_JSON
def llm_embeddings(config_path: Path, overrides: tuple[str, ...], as_json: bool) -> None:
    """Embed what is known of each LLM: its description, size, prices and context length.

    The second phase of a data run. Writes llms.json and the embeddings (JSON, safetensors) into
    the routing-data folder.
    """
    from waypost.pipelines.llm_embeddings import run

    found = run(config_path, overrides)
    if as_json:
        echo_json(found)
        return
    echo_table(["llm", "embedded text"], list(found["llms"].items()))
    click.echo(f"encoder {found['encoder']}, {found['dimension']} numbers each")
    click.echo(f"wrote {found['folder']}")
