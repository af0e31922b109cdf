"""``waypost bench``: measure parts of the system on this machine."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("bench")
def command() -> None:
    """Measure parts of the system on this machine."""


@command.command(epilog="Example: waypost bench encoder --data DIR --encoder static --encoder onnx")
@click.option(
    "--data",
    "data_folder",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Routing-data folder; only its training split is read.",
)
@click.option(
    "--encoder",
    "encoders",
    multiple=True,
    help="Kind or id; may be given many times.  [default: every kind]",
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=100,
    show_default=True,
    help="Of the first split.",
)
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Splits, with the seeds that follow.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def encoder(
    data_folder: Path, encoders: tuple[str, ...], seed: int, repeats: int, as_json: bool
) -> None:
    """Time query encoders, compare their vectors, and what routing on them earns.

    Milliseconds a query alone and in batches, cosine between encoders, and the quality of
    nearest neighbours on validation splits of the training data.
    """
    from rich.console import Console

    from waypost.cli import bench_encoder
    from waypost.cli.output import echo_json

    result = bench_encoder.run(
        data_folder,
        seed,
        encoders or bench_encoder.DEFAULT_ENCODERS,
        repeats=repeats,
        progress=lambda line: click.echo(line, err=True),
    )
    if as_json:
        echo_json(result)
    else:
        bench_encoder.render(result, Console())
