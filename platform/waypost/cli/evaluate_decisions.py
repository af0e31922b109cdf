"""``waypost evaluate --decisions``: compare routers on logged decisions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from waypost.cli.arguments import command_line
from waypost.cli.output import echo_json, echo_table
from waypost.storage.uri import Place

TAKEN = frozenset(
    {"routers", "decisions", "feedback", "out", "seed", "lambdas", "allow_plugin_code", "as_json"}
)
"""Parameters of the command that apply here."""


def evaluate_log(ctx: click.Context, decisions: Place, feedback: Place | None, out: Place) -> None:
    """Compare routers on a decision log; write and print the report.

    Raises:
        click.UsageError: an option does not apply to logged decisions.
    """
    from waypost.config import parse
    from waypost.pipelines.evaluation.compare_logged import DecisionsConfig, evaluate_decisions

    given = ctx.params
    for option in ctx.command.params:
        name = option.name or ""
        if name not in TAKEN and given[name] not in (None, False, ()):
            raise click.UsageError(f"{option.opts[0]} does not apply to --decisions")
    lambdas = given["lambdas"] or ()
    if len(lambdas) > 1:
        raise click.UsageError("--lambdas: expected one number with --decisions")
    settings = {
        "artifacts": given["routers"],
        "lambda": lambdas[0] if lambdas else None,
        "seed": given["seed"],
        "allow_plugin_code": given["allow_plugin_code"],
    }
    config = parse(DecisionsConfig, {k: v for k, v in settings.items() if v is not None}, "options")
    report = evaluate_decisions(config, decisions, feedback, out, command_line(ctx))
    if given["as_json"]:
        echo_json(report)
        return
    _show(report, out)


def _show(report: Mapping[str, Any], out: Place) -> None:
    from waypost.report.off_policy import HEADS, left_out, policies

    echo_table(HEADS, policies(report), right=HEADS[1:])
    click.echo(
        f"{report['rows']:g} of {report['rows_of_the_log']:g} decisions, of {report['users']:g} "
        f"users{left_out(report)}; doubly robust estimates"
    )
    for line in report["served_warnings"]:
        click.echo(f"warning: as served: {line}", err=True)
    for name, one in report["policies"].items():
        for line in one["warnings"]:
            click.echo(f"warning: {name}: {line}", err=True)
    for line in report["warnings"]:
        click.echo(f"warning: {line}", err=True)
    click.echo(f"report: {out / 'report.md'}")
