"""``waypost submit``: run a command as a job on a Ray cluster."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from waypost.storage.uri import Uri, is_uri

if TYPE_CHECKING:
    from waypost.jobs.environment import Ship

_OUTPUTS = ("--out", "--output")


@click.command(
    "submit",
    epilog="Example: waypost submit --address http://head:8265 -- "
    "waypost tune --config tune_configs/knnrouter.yaml --data s3://b/routing --out s3://b/knn",
)
@click.option(
    "--address",
    metavar="URL",
    help="Dashboard of the head node.  [default: RAY_API_SERVER_ADDRESS, RAY_ADDRESS, "
    "http://127.0.0.1:8265]",
)
@click.option(
    "--working-dir",
    default=".",
    show_default="this folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder to upload with the job, without files listed in .gitignore.",
)
@click.option(
    "--ship",
    type=click.Choice(["auto", "all", "package", "nothing"]),
    default="auto",
    show_default=True,
    help="What else to upload: this package and the locked requirements (all), this package, or "
    "nothing; auto checks what the cluster has.",
)
@click.option(
    "--requirements",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Lock file of requirements.  [default: requirements/jobs.txt]",
)
@click.option(
    "--env",
    "variables",
    multiple=True,
    metavar="NAME=VALUE",
    help="Environment variable of the job; repeat for several. It is visible in the cluster's job "
    "list: set secrets in the cluster's environment instead.",
)
@click.option(
    "--stop-on-interrupt", is_flag=True, help="Stop the job on Ctrl-C.  [default: it goes on]"
)
@click.option("--no-wait", is_flag=True, help="Print the job's id without following its log.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
@click.pass_context
def command(
    ctx: click.Context,
    address: str | None,
    working_dir: Path,
    ship: str,
    requirements: Path | None,
    variables: tuple[str, ...],
    stop_on_interrupt: bool,
    no_wait: bool,
    words: tuple[str, ...],
) -> None:
    """Run a command as a job on a Ray cluster.

    Streams the job's log and exits with its exit code. The same command again follows the running
    job, or continues after an ended one. Inputs and outputs are URIs, or absolute paths that the
    cluster's machines share.
    """
    from waypost.jobs import client as jobs

    given = _command_of(words)
    env_vars = _variables(variables)
    client = jobs.connect(address)

    def environment() -> dict[str, Any]:
        return _environment(client, given, working_dir.resolve(), ship, requirements, env_vars)

    try:
        job = jobs.submit(client, given, environment)
        click.echo(f"job {job} at {client.get_address()}", err=True)
        if no_wait:
            click.echo(job)
            return
        code = jobs.follow(client, job, _write)
    except KeyboardInterrupt:
        # The job's id may be unknown here: Ctrl-C can interrupt the submission itself.
        _interrupted(client, given, stop_on_interrupt)
        raise
    ctx.exit(code)


def _interrupted(client: Any, given: Sequence[str], stop: bool) -> None:
    from waypost.jobs import client as jobs

    job = jobs.running(client, given)
    if job is None:
        click.echo("this command has no running job", err=True)
    elif stop:
        ended = jobs.stop(client, job)
        click.echo(f"{job} {'is stopped' if ended else 'has been told to stop'}", err=True)
    else:
        click.echo(
            f"{job} goes on; run the same command to follow it again; to stop it: "
            f"ray job stop --address {client.get_address()} {job}",
            err=True,
        )


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _command_of(words: Sequence[str]) -> list[str]:
    """Check the words of a command and return them without ``waypost``.

    Raises:
        click.UsageError: the words are no command, write to the job's own folder, or contain
            credentials that the cluster would show.
    """
    from waypost.cli import command as top

    given = list(words[1:] if words[0] == "waypost" else words)
    known = top.list_commands(click.Context(top))
    if not given or given[0] not in known or given[0] == "submit":
        raise click.UsageError(f"expected a waypost command after --; there are {', '.join(known)}")
    for place, word in enumerate(given):
        name, _, value = word.partition("=") if word.startswith("--") else ("", "", word)
        if is_uri(value) and Uri(value).holds_secrets:
            raise click.UsageError(
                f"{Uri(value)}: holds credentials, but a cluster shows the commands of its jobs; "
                "set the credentials in the cluster's environment"
            )
        option = name or (given[place - 1] if place else "")
        is_place = option in _OUTPUTS and value and not value.startswith("--")
        if is_place and not is_uri(value) and not Path(value).is_absolute():
            raise click.UsageError(
                f"{option} {value}: would be written into a folder that is deleted with the job; "
                "give a URI or an absolute path"
            )
    if (given[0] == "data" or given[:2] == ["rl", "train"]) and "--config" in given[:-1]:
        _check_out(Path(given[given.index("--config") + 1]), given)
    return given


def _check_out(config: Path, given: Sequence[str]) -> None:
    """Refuse a run that writes to the job's folder, which is deleted.

    Raises:
        click.UsageError: ``out`` is a relative path.
        ConfigError: the config file does not exist or is not YAML.
    """
    from waypost.config import read_yaml

    said = [word.removeprefix("out=") for word in given if word.startswith("out=")]
    out = said[-1] if said else read_yaml(config).get("out")
    if isinstance(out, str) and not is_uri(out) and not Path(out).is_absolute():
        advice = (
            "a URI or an absolute path: out=s3://bucket/routing-data"
            if given[0] == "data"
            else "an absolute path that the machines share: out=/shared/run"
        )
        raise click.UsageError(
            f"{config}: out: {out}: would be written into a folder that is deleted with the job; "
            f"give {advice}"
        )


def _variables(items: Sequence[str]) -> dict[str, str]:
    pairs = [item.partition("=") for item in items]
    if wrong := [name for name, sign, _ in pairs if not sign or not name]:
        raise click.UsageError(f"--env {wrong[0]}: expected NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _environment(
    client: Any,
    given: Sequence[str],
    working_dir: Path,
    ship: str,
    requirements: Path | None,
    env_vars: dict[str, str],
) -> dict[str, Any]:
    from waypost.jobs import client as jobs
    from waypost.jobs import environment as made

    lock: list[str] = []
    chosen: Ship = "nothing"
    if ship in {"auto", "all"}:
        lock = made.find_requirements(requirements, working_dir, given)
    if ship == "auto":
        log = jobs.run_quietly(client, shlex.join(made.probe_command(lock)))
        there = made.read_probe(log)
        chosen = made.to_ship(there)
        if there.other:
            click.echo(
                f"the cluster lacks {len(there.other)} of {len(lock)} packages; it installs them "
                "once, which takes minutes",
                err=True,
            )
    else:
        chosen = ship  # type: ignore[assignment] # click has checked it
    return made.runtime_env(working_dir, chosen, lock, env_vars)
