"""``waypost evaluate``: which router earns its place on this data."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from waypost.cli.arguments import Folder
from waypost.cli.output import echo_json, echo_table, insert_target, progress_bar
from waypost.storage.uri import Place, is_uri, place


class _Numbers(click.ParamType):  # type: ignore[type-arg] # generic from click 8.4 on only
    """Numbers with commas between them; what they may be is said by the config."""

    name = "numbers"

    def __init__(self, kind: type[int] | type[float]) -> None:
        self.kind = kind

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        try:
            return tuple(self.kind(part) for part in str(value).split(","))
        except ValueError:
            self.fail(f"{value!r}: expected numbers with commas between them", param, ctx)


@click.command(
    "evaluate",
    epilog="Example: waypost evaluate artifacts/knn best_single knnrouter:k=40 --data DIR --out R",
)
@click.argument("routers", nargs=-1, metavar="ARTIFACT|NAME...")
@click.option(
    "--data",
    "data_folder",
    required=True,
    type=Folder(exists=True),
    help="Routing-data folder, or its URI.",
)
@click.option(
    "--out",
    required=True,
    type=Folder(),
    help="Folder or URI of the report; an earlier report there is replaced.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="YAML with routers, split, encoder, seed, resplit, lambdas; arguments win over it.",
)
@click.option(
    "--split",
    type=click.Choice(["test", "validation"]),
    help="Rows to decide.  [default: test]",
)
@click.option(
    "--encoder",
    help="Query encoder of routers that are fitted here.  [default: static]",
)
@click.option("--seed", type=click.IntRange(min=0), help="Of fits and draws.  [default: 0]")
@click.option(
    "--resplit",
    type=_Numbers(int),
    metavar="SEEDS",
    help="Pool train with the unseen test queries and split anew for each seed: 0,1,2,3,4.",
)
@click.option(
    "--lambdas",
    type=_Numbers(float),
    metavar="NUMBERS",
    help="Cost weights.  [default: 0, a log scale that reaches the cheapest LLM, cost alone]",
)
@click.option("--allow-plugin-code", is_flag=True, help="Run plug-in code packed in artifacts.")
@click.option(
    "--insert",
    "insert_at",
    metavar="FILE:MARKER",
    help="Put the short table between <!-- MARKER begin --> and <!-- MARKER end --> of a file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json.")
@click.pass_context
def command(
    ctx: click.Context,
    routers: tuple[str, ...],
    data_folder: Place,
    out: Place,
    config_path: Path | None,
    split: str | None,
    encoder: str | None,
    seed: int | None,
    resplit: tuple[int, ...] | None,
    lambdas: tuple[float, ...] | None,
    allow_plugin_code: bool,
    insert_at: str | None,
    as_json: bool,
) -> None:
    """Compare routers on measured outcomes and write a report. No LLM is called.

    ARTIFACT is a folder written by waypost train, or its URI. NAME is a registry name, fitted here
    on the training split; NAME:key=value,key=value sets its parameters.
    """
    from waypost.config import parse, read_yaml
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
        "allow_plugin_code": allow_plugin_code or None,
    }
    settings = {} if config_path is None else read_yaml(config_path)
    settings |= {key: value for key, value in given.items() if value is not None}
    if "routers" not in settings:
        raise click.UsageError("name routers: as arguments, or routers: in the --config file")
    config = parse(EvaluateConfig, settings, str(config_path or "options"))
    with progress_bar("embedding") as progress, progress_bar("routers") as told:
        report = evaluate_to(config, data_folder, out, _command(ctx), progress, told)
    if target is not None:
        insert(*target, compact(report))
    if as_json:
        echo_json(report)
    else:
        _show(report, out)
    for name, why in report["failed"].items():
        click.echo(f"error: {name}: {why}", err=True)
    if report["failed"]:
        ctx.exit(1)


def _command(ctx: click.Context) -> str:
    """Return the command line again, without options that are not the comparison's."""
    # a URI may hold credentials, which a report must not
    routers = [str(place(one)) if is_uri(one) else one for one in ctx.params["routers"]]
    words = ["waypost", "evaluate", *routers]
    for option in ctx.command.params:
        value = ctx.params[option.name or ""]
        if not isinstance(option, click.Option) or option.name in {"insert_at", "as_json"}:
            continue
        if value is None or value is False:
            continue
        words.append(option.opts[0])
        if isinstance(value, tuple):
            words.append(",".join(f"{number:g}" for number in value))
        elif not isinstance(value, bool):
            words.append(str(value))
    return shlex.join(words)


def _show(report: dict[str, Any], out: Place) -> None:
    from waypost.report.numbers import fixed, usd, with_interval
    from waypost.report.tables import REFERENCES, references

    def cells(name: str, row: Any) -> tuple[str, ...]:
        return (
            name,
            fixed(row["quality"]),
            with_interval(row, "delta_best_single", "delta_low", "delta_high", sign=True),
            usd(row["cost_usd_per_1k"]),
            fixed(row.get("aiq")),
            fixed(row.get("decision_ms_p50"), 2),
        )

    columns = ("router", "quality", "vs best single", "USD per 1k", "AIQ", "ms")
    rows = [cells(f"({REFERENCES[key]})", row) for key, row in references(report).items()]
    rows += [cells(name, row) for name, row in report["routers"].items()]
    echo_table(columns, rows)
    seen = report["leaks"]["count"]
    click.echo(
        f"{report['n_queries']:g} queries, {seen:g} of them seen in training; cost: "
        f"{report['cost_basis']}"
    )
    click.echo(f"report: {out / 'report.md'}")
