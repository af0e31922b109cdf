"""``waypost train``: train a router on routing data and write an artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from waypost.cli.arguments import Folder
from waypost.cli.errors import interruptible
from waypost.cli.output import POINT_COLUMNS, echo_json, echo_table, point_cells, progress_bar
from waypost.storage.uri import Place


@click.command(
    "train",
    epilog="Example: waypost train --router knnrouter --data DIR --out artifacts/knn k=40 tau=0.1",
)
@click.option("--router", "router", help="Registry name; see waypost list-routers.")
@click.option(
    "--data",
    "data_folder",
    type=Folder(exists=True),
    help="Routing-data folder or its URI; the test split is not read.  [default: that of a "
    "plug-in's config.yaml]",
)
@click.option(
    "--out",
    required=True,
    type=Folder(),
    help="Folder or URI of the artifact; an existing artifact is replaced.",
)
@click.option(
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    help="YAML with router, parameters, encoder, seed, folds.",
)
@click.option("--encoder", help="Query encoder: static, onnx, torch, hashing, or an encoder's id.")
@click.option(
    "--pack-encoder",
    is_flag=True,
    default=None,
    help="Put the static encoder's table into the artifact (16 MB), so that none is distilled.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Seed of folds and router.  [default: 0]")
@click.option(
    "--folds",
    type=click.IntRange(0, 100),
    help="Folds of the cross-validation; 0 skips it.  [default: 5; 3 if a fit takes more than 5 s; "
    "0 if a model is fine-tuned]",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.argument("parameters", nargs=-1, metavar="[KEY=VALUE]...")
def command(
    router: str | None,
    data_folder: Place | None,
    out: Place,
    config_path: Path | None,
    encoder: str | None,
    pack_encoder: bool | None,
    seed: int | None,
    folds: int | None,
    as_json: bool,
    parameters: tuple[str, ...],
) -> None:
    """Train a router on routing data and write an artifact.

    A router that learns nothing (a plug-in with route_single only) also needs an artifact; the
    data folder then needs llms.json only.

    KEY=VALUE sets a parameter of the router. Options and KEY=VALUE override the --config file.
    """
    from waypost.config import read_yaml
    from waypost.contracts.records import watching
    from waypost.pipelines.train import read_train_config, train
    from waypost.registry import run_defaults

    given = {"router": router, "encoder": encoder, "seed": seed, "folds": folds}
    given |= {"pack_encoder": pack_encoder}
    config = {} if config_path is None else read_yaml(config_path)
    config.update({key: value for key, value in given.items() if value is not None})
    if "router" not in config:
        raise click.UsageError("name a router: --router NAME, or router: in the --config file")
    settings = read_train_config(config, parameters, str(config_path or "options"))
    folder = data_folder or run_defaults(settings.router).get("data")
    if folder is None:
        raise click.UsageError("--data: missing; the folder of routing data")
    with (
        interruptible("starts again; stored embeddings are kept"),
        progress_bar("embedding") as progress,
        watching(lambda what, done, total: progress(done, total, what)),
    ):
        result = train(settings, folder, out, progress)
    manifest = result.manifest
    if as_json:
        echo_json({"artifact": str(out), **manifest.model_dump(mode="json", exclude={"files"})})
        return
    click.echo(f"{manifest.router} {manifest.version} -> {out}")
    for line in _summary(manifest.metrics):
        click.echo(line)
    _show_points(manifest.metrics)


def _show_points(metrics: dict[str, Any]) -> None:
    """Print quality and cost at the three lambdas that have a name."""
    from waypost.metrics.operating_points import read_curve

    curve = read_curve(metrics)
    if curve is None:
        return
    rows = [
        (f"auto-{name}", *point_cells(point)) for name, point in reversed(curve.named().items())
    ]
    click.echo("")
    echo_table(("model", "lambda", *POINT_COLUMNS), rows, right=("lambda", *POINT_COLUMNS))
    click.echo(f"strong: {curve.strong}. `waypost calibrate` chooses other lambdas.")


def _summary(metrics: dict[str, Any]) -> list[str]:
    lines = [
        f"fitted on {metrics['training_queries']} queries, {metrics['llms']} LLMs "
        f"in {metrics['fit_s']:.1f} s"
        if metrics["learns"]
        else f"nothing to fit: the router decides by a rule among {metrics['llms']} LLMs"
    ]
    if choice := metrics.get("choice"):
        lines.append(f"chosen: {choice['chosen']} ({choice['why']})")
    found = metrics.get("validation")
    if not found or not found["queries"]:
        return [*lines, "not validated"]
    error = "" if found["gain_se"] is None else f" (standard error {found['gain_se']:.4f})"
    lines += [
        f"{found['method']}, {found['queries']} queries, lambda 0:",
        f"  quality      {found['quality']:.4f}",
        f"  best single  {found['best_single']:.4f}   gain {found['gain']:+.4f}{error}",
        f"  oracle       {found['oracle']:.4f}",
    ]
    if found["cost_usd"] is not None and found["best_single_cost_usd"] is not None:
        lines.append(
            f"  cost a query {found['cost_usd']:.3g} USD; "
            f"best single {found['best_single_cost_usd']:.3g} USD"
        )
    return lines
