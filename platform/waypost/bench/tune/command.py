"""``waypost bench tune``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from waypost.bench.line import command_of

if TYPE_CHECKING:
    from waypost.bench.tune.case import Case


@click.command(epilog="Example: waypost bench tune --quick; waypost bench tune --costly none")
@click.option("--cheap", metavar="ROUTER", help="Of the cheap trials, or none.  [knnrouter]")
@click.option("--cheap-trials", type=click.IntRange(min=2), help="[default: 200]")
@click.option("--costly", metavar="ROUTER", help="Of the costly trials, or none.  [mlprouter]")
@click.option("--costly-trials", type=click.IntRange(min=2), help="[default: 16]")
@click.option("--workers", type=click.IntRange(min=1), help="Of Ray.  [default: 2]")
@click.option("--quick", is_flag=True, help="Little of everything: shows that it works.")
@click.option(
    "--insert",
    "insert_at",
    metavar="FILE:MARKER",
    help="Put the tables between <!-- MARKER begin --> and <!-- MARKER end --> of a file.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write JSON there.")
@click.pass_context
def tune(
    ctx: click.Context,
    cheap: str | None,
    cheap_trials: int | None,
    costly: str | None,
    costly_trials: int | None,
    workers: int | None,
    quick: bool,
    insert_at: str | None,
    as_json: bool,
    out: Path | None,
) -> None:
    """Time sweeps on Ray beside a plain loop over the same fits.

    Many cheap trials show what a sweep adds to each; trials whose fits take over a second show
    what more workers earn. Each way runs in a process of its own, with a Ray of its own.
    """
    from waypost.bench.tune import report, run
    from waypost.cli.output import echo_json, insert_target, to_json
    from waypost.report.compact import check_marker, insert

    target = None if insert_at is None else insert_target(insert_at)
    if target is not None:
        check_marker(*target)
    options = run.QUICK if quick else run.Options()
    options = replace(
        options,
        cheap=_case(options.cheap, cheap, cheap_trials),
        costly=_case(options.costly, costly, costly_trials),
        workers=workers or options.workers,
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


def _case(known: Case | None, router: str | None, trials: int | None) -> Case | None:
    if known is None or router == "none":
        return None
    return replace(known, router=router or known.router, trials=trials or known.trials)
