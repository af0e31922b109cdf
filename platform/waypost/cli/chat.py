"""``waypost chat``: a page to talk to a pool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from waypost.cli.arguments import Folder
from waypost.storage.uri import Place

if TYPE_CHECKING:
    from waypost.secrets import Secret
    from waypost.serve.plan import Plan

KEYS_OF = "waypost-clients"
"""Service whose key in ``API_KEYS`` is sent to the gateway, as `waypost serve` reads it."""


@click.command("chat", epilog="Example: waypost chat --url http://127.0.0.1:8000")
@click.option("--url", help="A running gateway, such as http://127.0.0.1:8000.")
@click.option(
    "--artifact",
    type=Folder(exists=True),
    help="Without --url: folder written by waypost train, or its URI.  "
    "[default: artifact of the pool file]",
)
@click.option(
    "--pool",
    "pool_file",
    type=click.Path(path_type=Path),
    help="Without --url: serve config, or a YAML with pool only, whose LLMs run in this process "
    "or behind their HTTP endpoints.",
)
@click.option(
    "--mode",
    type=click.Choice(["current_only", "full_context", "retrieval"]),
    help="What the router looks at, at first.  [default: that of the gateway]",
)
@click.option(
    "--top-k",
    type=click.IntRange(1, 32),
    help="Similar earlier turns that the mode retrieval takes.  [default: that of the gateway]",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True)
@click.option(
    "--allowed-host",
    "allowed_hosts",
    multiple=True,
    metavar="NAME",
    help="Further name that the page may be opened by; repeat for several.",
)
@click.option("--share", is_flag=True, help="Make a public link, for a week, by Gradio's relay.")
@click.option(
    "--auth",
    metavar="NAME:PASSWORD",
    envvar="WAYPOST_CHAT_AUTH",
    show_envvar=True,
    help="Ask for this name and password.",
)
@click.option(
    "--key-service",
    metavar="NAME",
    help=f"Service in API_KEYS whose key the gateway gets.  [default: {KEYS_OF}, if it has keys]",
)
@click.option("--allow-plugin-code", is_flag=True, help="Run plug-in code from the artifact.")
@click.pass_context
def command(
    ctx: click.Context,
    url: str | None,
    artifact: Place | None,
    pool_file: Path | None,
    mode: str | None,
    top_k: int | None,
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    share: bool,
    auth: str | None,
    key_service: str | None,
    allow_plugin_code: bool,
) -> None:
    """Serve a page to talk to a pool; it shows the routing.

    Each answer has its LLM, the reason and the cost. Over a running gateway with --url, or alone
    with --pool. Ctrl-C stops it.
    """
    from waypost.serve.chat_alone import Options, run

    if (url is None) == (pool_file is None):
        raise click.UsageError("give either --url or --pool")
    if url is not None and (artifact is not None or allow_plugin_code):
        raise click.UsageError("--artifact and --allow-plugin-code need --pool")
    login = _login(auth)
    plan = None if pool_file is None else _plan(ctx, pool_file, artifact, allow_plugin_code)
    options = Options(
        host=host,
        port=port,
        allowed_hosts=allowed_hosts,
        share=share,
        login=login,
        route_on=mode,
        top_k=top_k,
        key=None if url is None else _key(key_service),
    )
    run(url or "", plan, options, lambda line: click.echo(line, err=True))


def _plan(
    ctx: click.Context, pool_file: Path, artifact: Place | None, allow_plugin_code: bool
) -> Plan:
    from waypost.serve.infer import read_pool
    from waypost.storage import local_copy

    folder = None if artifact is None else ctx.with_resource(local_copy(artifact))
    return read_pool(pool_file, folder, allow_plugin_code=allow_plugin_code)


def _login(auth: str | None) -> tuple[str, str] | None:
    if auth is None:
        return None
    name, colon, password = auth.partition(":")
    if not (name and colon and password):
        raise click.UsageError("--auth: expected NAME:PASSWORD")
    return name, password


def _key(service: str | None) -> Secret | None:
    """Return the key of the clients, where there is one.

    Raises:
        ConfigError: the service was named and has none.
    """
    from waypost.contracts.errors import ConfigError, Fault
    from waypost.secrets import ANY_SERVICE, key_ring

    ring = key_ring()
    key = ring.take(service or KEYS_OF)
    if service is None:
        # keys of other services may be among those for any: a gateway gets them by name only
        shared = [ring.take(ANY_SERVICE) for _ in range(ring.count(ANY_SERVICE))]
        return None if key in shared else key
    if key is None:
        raise ConfigError([Fault("API_KEYS", f"there is no key of the service {service!r}")])
    return key
