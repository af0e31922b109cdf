"""``waypost encoder``: prepare query encoders."""

from __future__ import annotations

import click


@click.group("encoder")
def command() -> None:
    """Prepare query encoders."""


@command.command(
    epilog="Example: waypost encoder distill --model sentence-transformers/all-MiniLM-L6-v2"
)
@click.option(
    "--model",
    default="sentence-transformers/all-MiniLM-L6-v2",
    show_default=True,
    help="Sentence encoder: hub name or folder.",
)
@click.option(
    "--dimension",
    type=click.IntRange(2, 8192),
    default=256,
    show_default=True,
    help="Dimension of the vectors.",
)
@click.option("--force", is_flag=True, help="Distil again even if the result exists.")
def distill(model: str, dimension: int, force: bool) -> None:
    """Distil a sentence encoder into a static one (256 numbers per token; about 0.1 ms a query).

    The first use of a static encoder distils it automatically; this command does so in advance.
    """
    from waypost.encoders.distill import distill as run

    def progress(text: str) -> None:
        click.echo(text, err=True)

    click.echo(run(model, dimension, force=force, progress=progress))
