"""``waypost tune``: search a router's parameters by cross-validation."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import click

from waypost.cli.arguments import Folder
from waypost.cli.errors import interruptible
from waypost.cli.output import echo_json, progress_bar
from waypost.storage.uri import Place


@click.command(
    "tune",
    epilog="Example: waypost tune --config tune_configs/knnrouter.yaml --data DIR --out R "
    "budget.trials=20",
)
@click.option(
    "--config",
    "config_path",
    required=True,
    type=click.Path(path_type=Path),
    help="YAML file of one or several sweeps; see tune_configs.",
)
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
    help="Folder or URI of the results; existing results of this sweep are kept.",
)
@click.option("--encoder", help="Query encoder.  [default: the file's, else static]")
@click.option("--fresh", is_flag=True, help="Delete the sweep in --out and start again.")
@click.option(
    "--dashboard",
    is_flag=True,
    help="Start TensorBoard and Ray's dashboard; on a terminal they run until Ctrl-C.",
)
@click.option("--json", "as_json", is_flag=True, help="Print report.json.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.pass_context
def command(
    ctx: click.Context,
    config_path: Path,
    data_folder: Place,
    out: Place,
    encoder: str | None,
    fresh: bool,
    dashboard: bool,
    as_json: bool,
    overrides: tuple[str, ...],
) -> None:
    """Search a router's parameters by cross-validation and train the best.

    KEY=VALUE changes a key of the file, such as budget.trials=20. The same command continues an
    interrupted sweep. Trials run on the Ray cluster of RAY_ADDRESS, else on a new local one.
    """
    from waypost.tune.config import read_sweep
    from waypost.tune.sweep import SweepCallbacks, run_sweep
    from waypost.tune.sweeps import is_many, read_many, run_many

    if encoder is not None:
        overrides = (*overrides, f"encoder={encoder}")
    work: Callable[..., dict[str, Any]]
    many = is_many(config_path)
    if many:
        work = partial(run_many, read_many(config_path, overrides))
    else:
        work = partial(run_sweep, read_sweep(config_path, overrides))
    with interruptible("continues the sweep"), ExitStack() as stack:
        show = _Display(stack, dashboard, many)
        callbacks = SweepCallbacks(show.embedded, show.begun, show.row, show.epoch, show.step)
        report = work(
            data_folder,
            out,
            fresh=fresh,
            dashboard=dashboard,
            command=_command(ctx),
            callbacks=callbacks,
        )
        show.end()
        reports = report.get("sweeps", {"": report})
        if as_json:
            echo_json(report)
        else:
            for name, one in reports.items():
                for line in _summary(one, f"{out}/{name}" if name else str(out)):
                    click.echo(line)
            if len(reports) > 1:
                click.echo(f"report: {out}/report.md; best: {report['best']}")
        show.wait()
    for name, why in report.get("failed", {}).items():
        click.echo(f"error: {name}: {why}", err=True)
    if report.get("failed"):
        ctx.exit(1)


class _Display:
    """Progress display on stderr: trials, best score so far and the dashboards' addresses."""

    def __init__(self, stack: ExitStack, dashboard: bool, many: bool) -> None:
        self._stack, self._dashboard, self._many = stack, dashboard, many
        self._bars = stack.enter_context(ExitStack())
        self._embedding = self._bars.enter_context(progress_bar("embedding"))
        self._trials = self._bars.enter_context(progress_bar("trials"))
        self._shown = False
        self._done, self._mode = 0, "max"
        self._best: tuple[int, float] | None = None

    def embedded(self, done: int, total: int) -> None:
        self._embedding(done, total)

    def begun(self, folder: Path, address: str | None, known: list[Any], mode: str) -> None:
        self._mode, self._done, self._best = mode, 0, None
        for row in known:
            self._count(row)
        if known:
            click.echo(f"{len(known)} trials are already done", err=True)
        if self._dashboard and not self._shown:
            self._shown = True
            from waypost.tune.dashboard import tensorboard
            from waypost.tune.sweep import TENSORBOARD

            logs = folder.parent if self._many else folder / TENSORBOARD
            shown = self._stack.enter_context(tensorboard(logs))
            click.echo(f"TensorBoard: {shown}", err=True)
            if address is not None:
                click.echo(f"Ray dashboard: http://{address}", err=True)

    def row(self, row: Any, total: int) -> None:
        self._count(row)
        if row.status == "failed":
            click.echo(f"trial {row.number} failed: {row.error}", err=True)
        self._draw(total)

    def epoch(self, row: Any, total: int) -> None:
        again = " again" if row.deal else ""
        reached = f"epoch {len(row.epochs)}: {_number(row.score)}"
        self._draw(total, f"; trial {row.number}{again}, {reached}")

    def _draw(self, total: int, now: str = "") -> None:
        best = "" if self._best is None else f", best {self._best[1]:.5g} (trial {self._best[0]})"
        self._trials(min(self._done, total), total, f"trials{best}{now}")

    def step(self, what: str) -> None:
        click.echo(what, err=True)

    def _count(self, row: Any) -> None:
        if row.deal:
            return
        self._done += 1
        if row.status != "done":
            return
        sign = 1 if self._mode == "max" else -1
        if self._best is None or sign * row.score > sign * self._best[1]:
            self._best = (row.number, row.score)

    def end(self) -> None:
        self._bars.close()

    def wait(self) -> None:
        """Keep TensorBoard running until Ctrl-C if stdin is a terminal."""
        if self._dashboard and sys.stdin.isatty():
            import threading

            click.echo("TensorBoard keeps running; Ctrl-C stops it", err=True)
            try:
                threading.Event().wait()
            except KeyboardInterrupt:
                click.echo("", err=True)


def _command(ctx: click.Context) -> str:
    """Return the command line without options that do not change the results."""
    words = ["waypost", "tune"]
    for option, name in (("--config", "config_path"), ("--data", "data_folder"), ("--out", "out")):
        words += [option, str(ctx.params[name])]
    if ctx.params["encoder"]:
        words += ["--encoder", ctx.params["encoder"]]
    return shlex.join([*words, *ctx.params["overrides"]])


def _summary(report: dict[str, Any], out: str) -> list[str]:
    taken, tried = report["taken"], report["trials"]
    lines = [
        f"{report['router']}: {tried['tried']} trials, {tried['failed']} failed, "
        f"{tried['stopped']} stopped early; {report['metric']['label']}, cross-validated:",
        f"  default {_number(taken['default_score'])}   taken {_number(taken['score'])}",
        f"  {taken['why']}",
        f"  {_settings(taken['parameters'])}",
    ]
    test = report.get("test")
    if test and test.get("quality"):
        named = test["quality"].items()
        shown = "   ".join(f"{name} {_number(value)}" for name, value in named)
        lines.append(f"test split, {test['queries']} questions, quality at lambda 0:  {shown}")
        if test.get("difference") is not None:
            lines.append(
                f"  tuned minus default {test['difference']:+.4f} "
                f"[{test['low']:+.4f}, {test['high']:+.4f}]"
            )
    return [*lines, f"artifact: {out}/best", f"report: {out}/report.md"]


def _settings(parameters: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    return " ".join(f"{k}={text(v)}" for k, v in parameters.items()) or "the default's settings"


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.5g}"
