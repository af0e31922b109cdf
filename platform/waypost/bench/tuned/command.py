"""``waypost bench tuned``."""

from __future__ import annotations

from pathlib import Path

import click

from waypost.bench.line import command_of

_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


@click.command(
    epilog="Example: waypost bench tuned --pooled DIR --data DIR --router knnrouter "
    "budget.trials=20"
)
@click.option(
    "--pooled",
    multiple=True,
    type=_FOLDER,
    help="Routing-data folder whose training and test questions are pooled and split anew, as "
    "evaluate --resplit does. May be given many times.",
)
@click.option(
    "--data",
    "own",
    multiple=True,
    type=_FOLDER,
    help="Routing-data folder whose own test split is taken. May be given many times.",
)
@click.option(
    "--router",
    "routers",
    multiple=True,
    help="May be given many times.  [default: knnrouter, mlprouter, mfrouter, graphrouter, auto]",
)
@click.option(
    "--configs",
    type=_FOLDER,
    default=Path("tune_configs"),
    show_default=True,
    help="Folder with ROUTER.yaml, the sweep of each.",
)
@click.option("--encoder", default="onnx", show_default=True, help="Query encoder.")
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of the splits of --pooled.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("runs/tuned"),
    show_default=True,
    help="Folder of the sweeps and the result; what it holds already is not measured again.",
)
@click.option("--fresh", is_flag=True, help="Delete earlier results there and begin anew.")
@click.option(
    "--insert",
    "insert_at",
    metavar="FILE:MARKER",
    help="Put the tables between <!-- MARKER begin --> and <!-- MARKER end --> of a file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.pass_context
def tuned(
    ctx: click.Context,
    pooled: tuple[Path, ...],
    own: tuple[Path, ...],
    routers: tuple[str, ...],
    configs: Path,
    encoder: str,
    seed: int,
    out: Path,
    fresh: bool,
    insert_at: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Compare tuned routers with their defaults on questions that no sweep has seen.

    Each router is tuned on the training split by its file of tune_configs, then both are asked
    the test questions. KEY=VALUE changes a key of every file. The same command again goes on
    where the last one ended.
    """
    from waypost.bench.tuned import report, run
    from waypost.bench.tuned.data import Source
    from waypost.cli.output import echo_json, insert_target, progress_bar
    from waypost.report.compact import check_marker, insert
    from waypost.tune.journal import Row
    from waypost.tune.sweep import Watcher

    if not pooled and not own:
        raise click.UsageError("name routing data: --pooled DIR, --data DIR, or both")
    target = None if insert_at is None else insert_target(insert_at)
    if target is not None:
        check_marker(*target)
    options = run.Options(
        sources=(*(Source(one, seed) for one in pooled), *(Source(one) for one in own)),
        routers=routers or run.ROUTERS,
        configs=configs,
        encoder=encoder,
        overrides=overrides,
        fresh=fresh,
    )

    def tell(line: str) -> None:
        click.echo(line, err=True)

    with progress_bar("embedding") as bar:

        def tried(row: Row, total: int) -> None:
            if row.deal == 0:
                bar(row.number + 1, total, "trials")

        result = run.run(options, out, tell, Watcher(embedded=bar, row=tried, step=tell))
    if target is not None:
        insert(*target, report.markdown(result, command_of(ctx)))
    if as_json:
        echo_json(result)
    else:
        report.render(result)
    if any(one["failed"] for one in result["data"].values()):
        ctx.exit(1)
