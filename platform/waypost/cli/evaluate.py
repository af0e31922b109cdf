"""``waypost evaluate``: compare routers on measured outcomes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from waypost.cli.arguments import Folder, command_line
from waypost.cli.errors import interruptible
from waypost.cli.output import echo_json, echo_table, insert_target, progress_bar
from waypost.storage.uri import Place

if TYPE_CHECKING:
    from waypost.report.tables import Report


class _List(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on only
    """Click type of comma-separated values; the config model validates their range."""

    name = "list"

    def __init__(self, kind: type[int] | type[float] | type[str]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        try:
            return tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: expected comma-separated numbers", param, ctx)


@click.command(
    "evaluate",
    epilog="Example: waypost evaluate artifacts/knn best_single knnrouter:k=40 --data DIR --out R",
)
@click.argument("routers", nargs=-1, metavar="ARTIFACT|NAME...")
@click.option(
    "--data",
    "data_folder",
    type=Folder(exists=True),
    help="Routing-data folder, or its URI.",
)
@click.option(
    "--decisions",
    type=Folder(exists=True),
    help="Instead of --data: decision_log of a server, or its URI.",
)
@click.option(
    "--feedback",
    type=Folder(exists=True),
    help="With --decisions: feedback_dir of the server.  [default: compare dollars alone]",
)
@click.option(
    "--out",
    required=True,
    type=Folder(),
    help="Folder or URI of the report; an existing report is replaced.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="YAML with these options and routers as keys; command-line arguments override it.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    help="Split to evaluate on.  [default: test]",
)
@click.option(
    "--encoder",
    help="Query encoder of routers given by NAME.  [default: static]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of fits and draws.  [default: 0]")
@click.option(
    "--resplit",
    type=_List(int),
    metavar="SEEDS",
    help="Pool train and unseen test queries and split them again for each seed: 0,1,2,3,4.",
)
@click.option(
    "--lambdas",
    type=_List(float),
    metavar="NUMBERS",
    help="Cost weights.  [default: 0, a log scale up to the cheapest LLM, and cost alone]",
)
@click.option(
    "--metrics",
    type=_List(str),
    metavar="KEYS",
    help="Slow metrics to compute in addition, comma-separated.",
)
@click.option("--weak", metavar="LLM", help="Weak LLM of RouteLLM's metrics.  [default: cheapest]")
@click.option("--strong", metavar="LLM", help="Their strong LLM.  [default: best single]")
@click.option(
    "--pool",
    metavar="FILE",
    help="Serve file, or file of a data run, whose LLMs are called live for routers in steps.",
)
@click.option("--allow-plugin-code", is_flag=True, help="Run plug-in code from artifacts.")
@click.option(
    "--insert",
    "insert_at",
    metavar="FILE:MARKER",
    help="Write the short table into FILE between <!-- MARKER begin --> and <!-- MARKER end -->.",
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json.")
@click.pass_context
def command(
    ctx: click.Context,
    routers: tuple[str, ...],
    data_folder: Place | None,
    decisions: Place | None,
    feedback: Place | None,
    out: Place,
    config_path: Path | None,
    split: str | None,
    encoder: str | None,
    seed: int | None,
    resplit: tuple[int, ...] | None,
    lambdas: tuple[float, ...] | None,
    metrics: tuple[str, ...] | None,
    weak: str | None,
    strong: str | None,
    pool: str | None,
    allow_plugin_code: bool,
    insert_at: str | None,
    as_json: bool,
) -> None:
    """Compare routers on measured outcomes and write a report.

    No LLM is called without --pool. With --pool, the calls of routers in steps that the data does
    not have are made live. They are kept in OUT/calls, and no call is made twice.

    ARTIFACT is a folder written by waypost train, or its URI. NAME is the registry name of a
    router to fit on the training split; NAME:key=value,key=value sets its parameters.

    With --decisions, the routers that acted and the shadow routers of a decision log are compared
    on what was logged, with each ARTIFACT that decides its texts again (docs/decisions.md).
    """
    if (data_folder is None) == (decisions is None):
        raise click.UsageError("expected one of --data and --decisions")
    if decisions is not None:
        from waypost.cli.evaluate_decisions import evaluate_log

        evaluate_log(ctx, decisions, feedback, out)
        return
    if feedback is not None:
        raise click.UsageError("--feedback goes with --decisions")
    assert data_folder is not None
    from waypost.config import parse, read_yaml
    from waypost.contracts.records import watching
    from waypost.pipelines.evaluation.run import EvaluateConfig
    from waypost.pipelines.evaluation.write import evaluate_to
    from waypost.report.compact import check_marker, compact, insert

    target = None if insert_at is None else insert_target(insert_at)
    if target is not None:
        check_marker(*target)
    given = {
        "routers": routers or None,
        "split": split,
        "encoder": encoder,
        "seed": seed,
        "resplit": resplit,
        "lambdas": lambdas,
        "metrics": metrics,
        "weak": weak,
        "strong": strong,
        "pool": pool,
        "allow_plugin_code": allow_plugin_code or None,
    }
    settings = {} if config_path is None else read_yaml(config_path)
    settings |= {key: value for key, value in given.items() if value is not None}
    if "routers" not in settings:
        raise click.UsageError("name routers: as arguments, or routers: in the --config file")
    config = parse(EvaluateConfig, settings, str(config_path or "options"))
    bars = progress_bar("embedding"), progress_bar("routers"), progress_bar("live calls")
    going_on = "starts again" if config.pool is None else "starts again and reuses its live calls"
    with (
        interruptible(going_on),
        bars[0] as progress,
        bars[1] as told,
        bars[2] as asked,
        watching(lambda what, done, total: progress(done, total, what)),
    ):
        report = evaluate_to(config, data_folder, out, command_line(ctx), progress, told, asked)
    if target is not None:
        insert(*target, compact(report))
    if as_json:
        echo_json(report)
    else:
        _show(report, out)
    for name, calls in report["live"].items():
        _warn(name, calls, report["n_queries"])
    for name, why in report["failed"].items():
        click.echo(f"error: {name}: {why}", err=True)
    if report["failed"]:
        ctx.exit(1)


def _warn(name: str, calls: Mapping[str, Any], n_queries: float) -> None:
    """Print how many live calls of a router have no answer."""
    without = f"{calls['unanswered']:g} of {n_queries:g} questions have no answer"
    again = "; the same command makes the calls again"
    if calls["left"]:
        problem = f"the budget ran out before {calls['left']:g} calls: {without}"
        click.echo(f"{name}: {problem}{again}, with a fresh budget", err=True)
    if calls["failed"]:
        click.echo(f"{name}: {calls['failed']:g} live calls failed: {without}{again}", err=True)
    if calls["not_scored"]:
        click.echo(f"{name}: {calls['not_scored']:g} answers could not be scored", err=True)


def _show(report: Report, out: Place) -> None:
    from waypost.metrics.table import BY_KEY
    from waypost.report.tables import REFERENCES, references, written

    keys = ["quality", "delta_best_single", "cost_usd_per_1k", "aiq", "decision_ms_p50"]
    keys += ["calls", "answer_s"] if report["live"] else []
    metrics = [BY_KEY[key] for key in keys]
    named = {f"({REFERENCES[key]})": row for key, row in references(report).items()}
    rows = [
        (name, *(written(one, row, interval=one.signed) for one in metrics))
        for name, row in (*named.items(), *report["routers"].items())
    ]
    echo_table(("router", *(one.title for one in metrics)), rows)
    seen = report["leaks"]["count"]
    click.echo(
        f"{report['n_queries']:g} queries, {seen:g} of them seen in training; cost: "
        f"{report['cost_basis']}"
    )
    click.echo(f"report: {out / 'report.md'}")
