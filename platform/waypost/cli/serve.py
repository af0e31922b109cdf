"""``waypost serve``: run a Serve config on this machine."""

from __future__ import annotations

import signal
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import click

from waypost.cli.output import introduce, tell
from waypost.contracts.errors import WaypostError

if TYPE_CHECKING:
    from waypost.serve.config_file import ServeConfig
    from waypost.serve.handover import Doorkeeper
    from waypost.serve.plan import Plan
    from waypost.survivors import Watch


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
    help="Throughput mode behind HAProxy instead of the gateway's own HTTP server. HAProxy's "
    "statistics (ports 8404 and 9101) listen on every interface.",
)
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="Port to listen on, instead of http_options.port of CONFIG.",
)
@click.option("--num-cpus", type=click.IntRange(min=1), help="Number of logical CPUs of Ray.")
@click.option("--logs", is_flag=True, help="Show the logs of all nodes and of Ray.")
@click.option("--check", is_flag=True, help="Check CONFIG and exit.")
@click.option(
    "--local",
    is_flag=True,
    help="Serve it in this process, without Ray: for pools of endpoints.",
)
@click.pass_context
def command(
    ctx: click.Context,
    config: Path,
    throughput: bool,
    haproxy: bool,
    port: int | None,
    num_cpus: int | None,
    logs: bool,
    check: bool,
    local: bool,
) -> None:
    """Check CONFIG strictly, then serve it until Ctrl-C.

    Starts its own Ray instance and stops only that one. Ray's `serve run` accepts the same file;
    this command also sets the environment for speed and reports all faults of the file at once.

    On SIGHUP the file is read again. A file without faults is applied while requests are served.

    With --local there is no Ray: the gateway runs in this process, and its log lines go to stderr.
    """
    if local:
        _without_ray(ctx, config, port, check)
        return
    from waypost.ray_session import results_only
    from waypost.serve import checks, launch
    from waypost.serve.config_file import validate_serve_config
    from waypost.survivors import Watch

    if not check:
        launch.set_environment(throughput=throughput, haproxy=haproxy)
    checked = validate_serve_config(config, port)
    if check:
        _show_checked(config, checks.examine(checked))
        return
    with Watch() as watch, _public_port(checked, haproxy, watch) as door:
        plans = _prepare(checked)
        with nullcontext() if logs else results_only():
            _serve(checked, plans, num_cpus, logs, port, door)


def _without_ray(ctx: click.Context, path: Path, port: int | None, check: bool) -> None:
    from waypost.serve import checks
    from waypost.serve.local.config import read_local

    of_ray = ("throughput", "haproxy", "num_cpus", "logs")
    default = click.core.ParameterSource.DEFAULT
    if given := [name for name in of_ray if ctx.get_parameter_source(name) is not default]:
        option = f"--{given[0].replace('_', '-')}"
        raise click.UsageError(f"{option} is an option of Ray, which --local does without")
    config = read_local(path, port=port)
    if check:
        remarks = checks.remarks_on(config.args, config.changes, config.where)
        _show_checked(path, remarks)
        return
    from waypost.cli.serve_local import serve

    serve(config, port)


def _show_checked(path: Path, remarks: list[str]) -> None:
    click.echo(f"{path}: no fault found")
    for remark in remarks:
        tell(f"but {remark}")


def _public_port(
    config: ServeConfig, haproxy: bool, watch: Watch
) -> AbstractContextManager[Doorkeeper | None]:
    """Take the port for the gateway's own HTTP servers, or check that it is free for Ray."""
    from waypost.config import environment_value
    from waypost.serve import port as ports

    if haproxy or environment_value("RAY_SERVE_ENABLE_HA_PROXY") == "1":
        ports.check_port(config)
        ports.check_haproxy_ports()
        folder = Path(tempfile.mkdtemp(prefix="waypost-haproxy-"))
        watch.remove_at_end(folder)
        ports.set_haproxy_folder(folder)
    elif (why := ports.needs_serve(config)) is None:
        door = ports.open_door(config)
        watch.remove_at_end(door.path.parent)
        return door
    else:
        ports.check_port(config)
        tell(f"Ray Serve's proxy serves HTTP: {why}")
    return nullcontext()


def _serve(
    config: ServeConfig,
    plans: dict[str, Plan],
    num_cpus: int | None,
    logs: bool,
    port: int | None,
    door: Doorkeeper | None,
) -> None:
    from waypost.serve import launch, stopping
    from waypost.serve import port as ports

    reloading: _Reloading | None = None
    try:
        tell("starting Ray")
        launch.start(config, num_cpus=num_cpus, logs=logs, door=door)
        ports.answer_for_haproxy()
        signal.signal(signal.SIGTERM, _interrupt)  # after Ray's start, which sets its own handler
        reloading = _Reloading(config, port, door)
        launch.wait_until_running(tell, config.args)
        _introduce(config, plans, launch.wait_until_ready(config, tell))
        reloading.forever()
    except KeyboardInterrupt:
        seconds = stopping.longest_stop_s(config if reloading is None else reloading.config)
        tell(f"stopping: open requests have up to {seconds:g} s")
    finally:
        stopping.stop_gracefully(None if reloading is None else reloading.config, door)
    tell("stopped")


def _prepare(config: ServeConfig) -> dict[str, Plan]:
    """Resolve every application in this process, and fetch its weights."""
    from waypost.serve import checks, launch
    from waypost.serve.prices import library_prices

    plans = checks.plans_of(config)
    for model in (model for plan in plans.values() for model in plan.models if model.unavailable):
        tell(f"{model.name} {launch.NOT_SERVED}: {model.unavailable}")
    for line in (line for plan in plans.values() for line in library_prices(plan.models)):
        tell(line)
    launch.fetch(plans.values(), tell)
    return plans


class _Reloading:
    """Handler that applies the changed file on SIGHUP.

    Attributes:
        config: The active config.
    """

    def __init__(self, config: ServeConfig, port: int | None, door: Doorkeeper | None) -> None:
        self.config = config
        self._port = port
        self._door = door
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
                self.config = _reload(self.config, self._port, self._door)


def _reload(config: ServeConfig, port: int | None, door: Doorkeeper | None) -> ServeConfig:
    """Read the file again, apply it, and return the active config."""
    from waypost.serve import launch
    from waypost.serve import port as ports
    from waypost.serve.config_file import validate_serve_config

    try:
        changed = validate_serve_config(config.path, port)
        _prepare(changed)
    except WaypostError as error:
        tell(f"the changed file is refused; the active config stays:\n{error}")
        return config
    if door is not None and (why := ports.misfit(door, changed)) is not None:
        tell(f"the changed file is refused; the active config stays: {why}, so it needs a restart")
        return config
    if changed.data.get("http_options") != config.data.get("http_options"):
        tell("http_options: a change needs a restart")
    launch.update(changed.data)
    tell(f"{config.path} is submitted")
    try:
        launch.wait_until_running(tell, changed.args)
    except launch.ServeFailedError as error:
        tell(str(error))
    else:
        tell(f"{config.path} is in force")
    return changed


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _introduce(
    config: ServeConfig, plans: dict[str, Plan], failed: dict[str, frozenset[str]]
) -> None:
    """Print what serves.

    Args:
        config: The active config.
        plans: Its plan of each application.
        failed: See `launch.wait_until_ready`.
    """
    for index, (name, plan) in enumerate(plans.items()):
        served = [llm for llm in plan.router.served if llm not in failed[name]]
        introduce(name, config.url(name), served, example=index == 0)
    click.echo("Ctrl-C stops it.")
