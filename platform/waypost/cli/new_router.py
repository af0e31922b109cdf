"""``waypost new-router``: a plug-in folder to begin with."""

from __future__ import annotations

import keyword
import shutil
import tempfile
from pathlib import Path

import click

from waypost.cli.router_templates import plugin_files


@click.command("new-router", epilog="Example: waypost new-router myrouter")
@click.argument("name")
@click.option(
    "--kind",
    type=click.Choice(["score", "plain"]),
    default="score",
    show_default=True,
    help="score learns each LLM's score from routing data; plain decides by a rule of its own.",
)
@click.option(
    "--dir",
    "parent",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("custom_routers"),
    show_default=True,
    help="Where its folder is written.",
)
def command(name: str, kind: str, parent: Path) -> None:
    """Write a working router of your own, to change.

    It is a folder NAME with router.py, config.yaml and a test. Every command finds the routers in
    ./custom_routers, ~/.waypost/plugins and the folders of WAYPOST_PLUGINS.
    """
    from waypost.config import settings

    folder = write_plugin(name, kind, parent)
    for path in sorted(folder.iterdir()):
        click.echo(f"wrote {path}")
    if parent.resolve() not in [path.resolve() for path in settings().plugin_paths]:
        click.echo(f"to have it found: export WAYPOST_PLUGINS={parent.resolve()}")
    click.echo(f"next: pytest {folder}")
    click.echo(f"      waypost train --router {name} --data DIR --out artifacts/{name}")


def write_plugin(name: str, kind: str, parent: Path) -> Path:
    """Write a plug-in folder, all of it or nothing, and return it.

    Raises:
        ConfigError: the name cannot be used, the folder exists, or it cannot be written.
    """
    from waypost.contracts.errors import ConfigError, Fault
    from waypost.registry import list_routers

    folder = parent / name
    if not (name.isidentifier() and name.isascii()) or keyword.iskeyword(name) or name[0] == "_":
        problem = "expected letters, digits and _, a letter first, such as my_router"
        raise ConfigError([Fault(f"name {name!r}", problem)])
    for entry in list_routers():
        if entry.name == name:
            problem = f"there is a router of that name: {entry.source}, {entry.location}"
            raise ConfigError([Fault(f"name {name!r}", problem)])
    if folder.exists():
        raise ConfigError([Fault(str(folder), "exists; take another name, or remove it")])
    try:
        parent.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{name}.", dir=parent))
        try:
            partial.chmod(0o755)
            for file, text in plugin_files(name, kind).items():
                (partial / file).write_text(text, encoding="utf-8")
            partial.rename(folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise ConfigError([Fault(str(folder), f"cannot be written: {error.strerror}")]) from None
    return folder
