"""``waypost calibrate``: choose a lambda by what it costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from waypost.cli.arguments import Folder
from waypost.cli.output import POINT_COLUMNS, echo_json, echo_table, point_cells, progress_bar
from waypost.storage.uri import Place

if TYPE_CHECKING:
    from waypost.metrics.operating_points import Curve, Point

_NON_NEGATIVE = click.FloatRange(min=0)


@click.command(
    "calibrate",
    epilog="Example: waypost calibrate --artifact artifacts/knn --strong-share .5",
)
@click.option(
    "--artifact",
    required=True,
    type=Folder(exists=True),
    help="Folder written by waypost train, or its URI.",
)
@click.option(
    "--strong-share",
    type=click.FloatRange(0, 1),
    help="Share of the questions for the strong LLM, from 0 to 1.",
)
@click.option(
    "--usd-per-1k", type=_NON_NEGATIVE, help="Most dollars of 1,000 questions, on average."
)
@click.option(
    "--quality-loss",
    type=_NON_NEGATIVE,
    help="Most points of mean score lost against the strong LLM alone, such as .01.",
)
@click.option(
    "--data",
    "data_folder",
    type=Folder(exists=True),
    help="Routing data to measure on, or its URI.  [default: the curve that training kept]",
)
@click.option(
    "--split",
    type=click.Choice(["train", "validation", "test"]),
    help="Split of --data.  [default: validation, else test, else train]",
)
@click.option("--allow-plugin-code", is_flag=True, help="Run plug-in code from the artifact.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    artifact: Place,
    strong_share: float | None,
    usd_per_1k: float | None,
    quality_loss: float | None,
    data_folder: Place | None,
    split: str | None,
    allow_plugin_code: bool,
    as_json: bool,
) -> None:
    """Choose a lambda by what it costs.

    It is chosen by the share of the strong LLM, by dollars, or by lost quality. The strong LLM is
    the one with the best training mean. Without --data the outcomes are those of the
    cross-validation or validation split of the training.
    """
    from waypost.pipelines.calibrate import kept_curve, measured_curve

    wanted = {
        "--strong-share": strong_share,
        "--usd-per-1k": usd_per_1k,
        "--quality-loss": quality_loss,
    }
    if sum(value is not None for value in wanted.values()) != 1:
        raise click.UsageError(f"give one of {', '.join(wanted)}")
    if split is not None and data_folder is None:
        raise click.UsageError("--split needs --data")
    if data_folder is None:
        curve = kept_curve(artifact)
    else:
        with progress_bar("embedding") as progress:
            curve = measured_curve(
                artifact,
                data_folder,
                split=split,
                progress=progress,
                allow_plugin_code=allow_plugin_code,
            )
    point = _point(curve, strong_share, usd_per_1k, quality_loss)
    if as_json:
        echo_json(_facts(curve, point))
    else:
        _show(curve, point)


def _point(
    curve: Curve, share: float | None, usd_per_1k: float | None, loss: float | None
) -> Point:
    if share is not None:
        return curve.with_share(share)
    return (
        curve.within_usd(usd_per_1k / 1e3)
        if usd_per_1k is not None
        else curve.within_loss(loss or 0.0)
    )


def _facts(curve: Curve, point: Point) -> dict[str, Any]:
    def of(one: Point) -> dict[str, Any]:
        usd = None if one.cost_usd is None else 1e3 * one.cost_usd
        return {
            "lambda": one.lam,
            "quality": one.quality,
            "usd_per_1k": usd,
            "strong_share": one.strong_share,
        }

    strong_usd = None if curve.strong_cost_usd is None else 1e3 * curve.strong_cost_usd
    return {
        **of(point),
        "strong": curve.strong,
        "strong_quality": curve.strong_quality,
        "strong_usd_per_1k": strong_usd,
        "method": curve.method,
        "queries": curve.queries,
        "named": {f"auto-{name}": of(one) for name, one in curve.named().items()},
    }


def _show(curve: Curve, point: Point) -> None:
    from waypost.metrics.operating_points import Point

    alone = Point(0.0, curve.strong_quality, curve.strong_cost_usd, 1.0)
    named = curve.named().items()
    rows = [
        ("wanted", *point_cells(point)),
        *((f"auto-{name}", *point_cells(one)) for name, one in reversed(list(named))),
        (f"{curve.strong} alone", "", *point_cells(alone)[1:]),
    ]
    click.echo(f"lambda {point.lam:g}")
    echo_table(("", "lambda", *POINT_COLUMNS), rows, right=("lambda", *POINT_COLUMNS))
    click.echo(f"Measured on {curve.queries} questions: {curve.method}.")
    click.echo(
        f'Use it as `policy: {{lambda: {point.lam:g}}}` in a Serve file, or `"model": '
        f'"auto:{point.lam:g}"` in a request.'
    )
