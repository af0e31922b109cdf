"""``waypost bench``: measure parts of the system on this machine."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from waypost.bench.line import command_of
from waypost.bench.tune.command import tune
from waypost.bench.tuned.command import tuned

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

    from waypost.bench import encoder as bench_encoder
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

    from waypost.bench.gateway import report, run
    from waypost.bench.gateway.processes import BenchError
    from waypost.bench.gateway.targets import chosen
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


@command.command(
    epilog="Example: waypost bench routers --quick; waypost bench routers --insert README.md:speed"
)
@click.option(
    "--data",
    "data_folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Routing-data folder, whose training split is fitted.  [default: made-up data]",
)
@click.option("--router", "routers", multiple=True, help="May be given many times.  [default: all]")
@click.option("--n", type=click.IntRange(min=20), help="Made-up questions.  [default: 5000]")
@click.option("--llms", type=click.IntRange(min=2), help="Made-up LLMs.  [default: 9]")
@click.option("--dim", type=click.IntRange(min=2), help="Of made-up vectors.  [default: 384]")
@click.option("--large/--no-large", default=True, help="Neighbours on 100,000 questions, too.")
@click.option("--quick", is_flag=True, help="Little of everything: shows that it works.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--insert",
    "insert_at",
    metavar="FILE:MARKER",
    help="Put the tables between <!-- MARKER begin --> and <!-- MARKER end --> of a file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON there.")
@click.pass_context
def routers(
    ctx: click.Context,
    data_folder: Path | None,
    routers: tuple[str, ...],
    n: int | None,
    llms: int | None,
    dim: int | None,
    large: bool,
    quick: bool,
    seed: int,
    insert_at: str | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Time fits and decisions of score routers, beside scikit-learn's neighbours and ridge.

    Vectors are given, so that no encoder is measured; routers that fine-tune a model are left
    out. Without options it takes some minutes.
    """
    from rich.console import Console

    from waypost.bench.routers import report, run
    from waypost.cli.output import echo_json, insert_target, to_json
    from waypost.report.compact import check_marker, insert

    target = None if insert_at is None else insert_target(insert_at)
    if target is not None:
        check_marker(*target)
    given = {
        "n": n,
        "llms": llms,
        "dimension": dim,
        "seed": seed,
        **({} if large else {"large_n": 0}),
    }
    options = replace(
        run.QUICK if quick else run.Options(),
        **{key: value for key, value in given.items() if value is not None},
    )
    result = run.run(routers, options, data_folder, lambda line: click.echo(line, err=True))
    if out is not None:
        out.write_text(to_json(result, indent=2) + "\n", encoding="utf-8")
    if target is not None:
        insert(*target, report.markdown(result, command_of(ctx)))
    if as_json:
        echo_json(result)
    else:
        report.render(result, Console(width=None if sys.stdout.isatty() else PIPE_WIDTH))
    if result["failed"]:
        ctx.exit(1)


@command.command(
    epilog="Example: waypost bench data --quick; waypost bench data --cells 1000,10000,100000"
)
@click.option("--calls", type=click.IntRange(min=10), help="Of each way.  [default: 12800]")
@click.option("--in-flight", type=click.IntRange(min=1), help="Calls at once.  [default: 64]")
@click.option(
    "--latency",
    "latency_s",
    type=click.FloatRange(min=0.001),
    help="Seconds that the endpoint takes for an answer.  [default: 0.1]",
)
@click.option(
    "--cells",
    metavar="N,N,...",
    default="",
    help="Measure memory at so many cells, too; 100,000 take some minutes.",
)
@click.option("--quick", is_flag=True, help="Few calls: shows that it works.")
@click.option(
    "--insert",
    "insert_at",
    metavar="FILE:MARKER",
    help="Put the tables between <!-- MARKER begin --> and <!-- MARKER end --> of a file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON there.")
@click.pass_context
def data(
    ctx: click.Context,
    calls: int | None,
    in_flight: int | None,
    latency_s: float | None,
    cells: str,
    quick: bool,
    insert_at: str | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Measure how fast `waypost data responses` asks a slow endpoint, beside simpler ways.

    The same endpoint on this machine is asked by the pipeline, by a pool of threads, and by calls
    one after another, as LLMRouter makes them. Rates are those that the endpoint saw.
    """
    from waypost.bench.data import report, run
    from waypost.cli.output import echo_json, insert_target, to_json
    from waypost.report.compact import check_marker, insert

    target = None if insert_at is None else insert_target(insert_at)
    if target is not None:
        check_marker(*target)
    given: dict[str, Any] = {"calls": calls, "in_flight": in_flight, "latency_s": latency_s}
    options = replace(
        run.QUICK if quick else run.Options(),
        cells=_numbers(cells),
        **{key: value for key, value in given.items() if value is not None},
    )
    result = run.run(options, lambda line: click.echo(line, err=True))
    if out is not None:
        out.write_text(to_json(result, indent=2) + "\n", encoding="utf-8")
    if target is not None:
        insert(*target, report.markdown(result, command_of(ctx)))
    if as_json:
        echo_json(result)
    else:
        report.render(result)


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise click.UsageError(f"--cells: expected whole numbers from 1 and commas, got {text!r}")
    return numbers


command.add_command(tune)
command.add_command(tuned)
