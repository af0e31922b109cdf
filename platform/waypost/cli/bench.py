"""``waypost bench``: measure parts of the system on this machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import click

PIPE_WIDTH = 200


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


@command.command(
    epilog="Example: waypost bench gateway --quick --target inline --target litellm --out out.json"
)
@click.option("--quick", is_flag=True, help="One short round of everything.")
@click.option(
    "--target",
    "targets",
    multiple=True,
    help="inline or deployments, each also with /plain, /throughput or /haproxy; litellm; "
    "decision. May be given many times.  [default: all]",
)
@click.option(
    "--artifact",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="The trained router of the graph.  [default: serve_configs/starter/artifact]",
)
@click.option("--tokens", type=click.IntRange(min=1), default=64, show_default=True)
@click.option(
    "--passes",
    type=click.IntRange(min=1),
    help="How often every target is started and measured.  [default: 2; 1 with --quick]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON there.")
def gateway(
    quick: bool,
    targets: tuple[str, ...],
    artifact: Path | None,
    tokens: int,
    passes: int | None,
    seed: int,
    as_json: bool,
    out: Path | None,
) -> None:
    """Measure what the gateway adds to a request, beside LiteLLM's proxy.

    Each target stands between one client and one local upstream that answers at once. Added
    latency is that of a request through the target less that of a request straight to the
    upstream, taken in turn by the same worker. LiteLLM is installed into an environment of its
    own, in Waypost's cache. With everything it takes a quarter of an hour.
    """
    from rich.console import Console

    from waypost.cli.bench_gateway import report, run
    from waypost.cli.bench_gateway.processes import BenchError
    from waypost.cli.bench_gateway.targets import chosen
    from waypost.cli.output import echo_json, to_json

    options = replace(run.QUICK if quick else run.Options(), seed=seed, tokens=tokens)
    if passes is not None:
        options = replace(options, passes=passes)
    result = run.run(chosen(targets), options, artifact, lambda line: click.echo(line, err=True))
    if out is not None:
        out.write_text(to_json(result, indent=2) + "\n", encoding="utf-8")
    if as_json:
        echo_json(result)
    else:
        report.render(result, Console(width=None if sys.stdout.isatty() else PIPE_WIDTH))
    if result["failed"]:
        raise BenchError(f"not measured to the end: {', '.join(result['failed'])}")
