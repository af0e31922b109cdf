"""``waypost serve``: run a Serve config on this machine."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from waypost.contracts.errors import WaypostError

if TYPE_CHECKING:
    from waypost.serve.config_file import ServeConfig
    from waypost.serve.plan import Plan


POLL_S = 0.2


@click.command("serve", epilog="Example: waypost serve serve_configs/router.yaml")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--throughput/--plain",
    default=True,
    show_default=True,
    help="Ray Serve's throughput mode.",
)
@click.option(
    "--haproxy",
    is_flag=True,
    help="Throughput mode behind HAProxy, the fastest. HAProxy's statistics (ports 8404 and 9101) "
    "listen on every interface.",
)
@click.option("--num-cpus", type=click.IntRange(min=1), help="Number of logical CPUs of Ray.")
@click.option("--logs", is_flag=True, help="Show the logs of all nodes and of Ray.")
@click.option("--check", is_flag=True, help="Check CONFIG and exit.")
def command(
    config: Path,
    throughput: bool,
    haproxy: bool,
    num_cpus: int | None,
    logs: bool,
    check: bool,
) -> None:
    """Check CONFIG strictly, then serve it until Ctrl-C.

    Starts its own Ray instance and stops only that one. Ray's `serve run` accepts the same file;
    this command also sets the environment for speed and reports all faults of the file at once.

    On SIGHUP the file is read again. A file without faults is applied while requests are served.
    """
    from waypost.serve import launch
    from waypost.serve.config_file import validate_serve_config

    if not check:
        launch.set_environment(throughput=throughput, haproxy=haproxy)
    checked = validate_serve_config(config)
    if check:
        click.echo(f"{config}: no fault found")
        for folder in launch.absent_artifacts(checked):
            click.echo(f"but {folder} does not exist yet: waypost train writes it", err=True)
        return
    launch.check_port(checked)
    plans = _prepare(checked)
    reloading: _Reloading | None = None
    try:
        launch.start(checked, num_cpus=num_cpus, log_to_driver=logs)
        signal.signal(signal.SIGTERM, _interrupt)  # after Ray's start, which sets its own handler
        reloading = _Reloading(checked)
        launch.wait_until_running(_tell, checked.args)
        launch.wait_until_ready(checked)
        _introduce(checked, plans)
        reloading.forever()
    except KeyboardInterrupt:
        click.echo("stopping", err=True)
    finally:
        launch.stop_gracefully(None if reloading is None else reloading.config)


def _tell(line: str) -> None:
    click.echo(line, err=True)


def _prepare(config: ServeConfig) -> dict[str, Plan]:
    """Resolve every application in this process, so that a fault is a plain message."""
    from waypost.serve import launch
    from waypost.serve.plan import make_plan

    plans = {name: make_plan(args, str(config.path)) for name, args in config.args.items()}
    for model in (model for plan in plans.values() for model in plan.models if model.unavailable):
        _tell(f"{model.name} {launch.NOT_SERVED}: {model.unavailable}")
    launch.fetch(plans.values(), _tell)
    return plans


class _Reloading:
    """Handler that applies the changed file on SIGHUP.

    Attributes:
        config: The active config.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.config = config
        self._asked = False
        signal.signal(signal.SIGHUP, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def forever(self) -> NoReturn:
        """Wait for signals; SIGINT and SIGTERM raise KeyboardInterrupt."""
        while True:
            # signal.pause would miss a SIGHUP that arrives between the test and the pause
            time.sleep(POLL_S)
            if self._asked:
                self._asked = False
                self.config = _reload(self.config)


def _reload(config: ServeConfig) -> ServeConfig:
    """Read the file again, apply it, and return the active config."""
    from waypost.serve import launch
    from waypost.serve.config_file import validate_serve_config

    try:
        changed = validate_serve_config(config.path)
        _prepare(changed)
    except WaypostError as error:
        _tell(f"the changed file is refused; the active config stays:\n{error}")
        return config
    if changed.data.get("http_options") != config.data.get("http_options"):
        _tell("http_options: a change needs a restart")
    launch.update(changed.data)
    _tell(f"{config.path} is submitted")
    try:
        launch.wait_until_running(_tell, changed.args)
    except launch.ServeFailedError as error:
        _tell(str(error))
    return changed


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _introduce(config: ServeConfig, plans: dict[str, Plan]) -> None:
    from waypost.serve.config import AUTO

    for index, (name, plan) in enumerate(plans.items()):
        base = config.url(name)
        models = ", ".join((AUTO, *plan.router.served))
        click.echo(f"\n{name}: {base}/v1 serves {models}")
        if index == 0:
            body = '{"model": "auto", "messages": [{"role": "user", "content": "What is 12 * 7?"}]}'
            click.echo(f"try: curl -i {base}/v1/chat/completions -d '{body}'")
    click.echo("Ctrl-C stops it.")
