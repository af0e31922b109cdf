"""``waypost serve``: run a Serve config on this machine."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from waypost.serve.config_file import ServeConfig
    from waypost.serve.plan import Plan


@click.command("serve", epilog="Example: waypost serve serve_configs/router.yaml")
@click.argument("config", type=click.Path(path_type=Path))
@click.option(
    "--throughput/--plain",
    default=True,
    show_default=True,
    help="Serve's throughput mode.",
)
@click.option(
    "--haproxy",
    is_flag=True,
    help="Throughput mode with HAProxy in front, the fastest. Its pages of figures (ports 8404 and "
    "9101) listen on every interface.",
)
@click.option("--num-cpus", type=click.IntRange(min=1), help="Logical CPUs of Ray.")
@click.option("--logs", is_flag=True, help="Show the log lines of all nodes, and Ray's.")
@click.option("--check", is_flag=True, help="Check the file and stop.")
def command(
    config: Path,
    throughput: bool,
    haproxy: bool,
    num_cpus: int | None,
    logs: bool,
    check: bool,
) -> None:
    """Check CONFIG strictly, then serve it until Ctrl-C.

    Starts a Ray of its own, and stops only that. The file is one that Ray's `serve run` takes,
    too; here the environment is set for speed, and every fault of the file is told at once.
    """
    from waypost.serve import launch
    from waypost.serve.config_file import validate_serve_config

    if not check:
        launch.set_environment(throughput=throughput, haproxy=haproxy)
    checked = validate_serve_config(config)
    if check:
        click.echo(f"{config}: no fault found")
        for folder in launch.absent_artifacts(checked):
            click.echo(f"but {folder} is not there yet: waypost train writes it", err=True)
        return
    launch.check_port(checked)
    plans = _plans(checked)
    for model in (model for plan in plans.values() for model in plan.models if model.unavailable):
        click.echo(f"{model.name} {launch.NOT_SERVED}: {model.unavailable}", err=True)
    launch.fetch(plans.values(), lambda line: click.echo(line, err=True))
    try:
        launch.start(checked, num_cpus=num_cpus, log_to_driver=logs)
        signal.signal(signal.SIGTERM, _interrupt)  # now, because Ray sets its own at the start
        launch.wait_until_running(lambda line: click.echo(line, err=True), checked.args)
        _introduce(checked, plans)
        signal.pause()
    except KeyboardInterrupt:
        click.echo("stopping", err=True)
    finally:
        launch.stop()


def _plans(config: ServeConfig) -> dict[str, Plan]:
    """Resolve every application here, where a fault is a message and not a log of Ray's."""
    from waypost.serve.plan import make_plan

    return {name: make_plan(args, str(config.path)) for name, args in config.args.items()}


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _introduce(config: ServeConfig, plans: dict[str, Plan]) -> None:
    from waypost.serve.settings import AUTO

    base = f"http://{config.host}:{config.port}"
    for index, (name, plan) in enumerate(plans.items()):
        prefix = _route_prefix(config, name)
        models = ", ".join((AUTO, *plan.router.served))
        click.echo(f"\n{name}: {base}{prefix}/v1 serves {models}")
        if index == 0:
            body = '{"model": "auto", "messages": [{"role": "user", "content": "What is 12 * 7?"}]}'
            click.echo(f"try: curl -i {base}{prefix}/v1/chat/completions -d '{body}'")
    click.echo("Ctrl-C stops it.")


def _route_prefix(config: ServeConfig, name: str) -> str:
    for application in config.data["applications"]:
        if application.get("name", "default") == name:
            return str(application.get("route_prefix", "/")).rstrip("/")
    return ""
