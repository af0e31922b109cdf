"""The server of ``waypost chat``, which is no part of a graph."""

from __future__ import annotations

import asyncio
import hmac
import secrets
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from types import FrameType

from waypost.chat.door import LOOPBACK
from waypost.contracts.errors import ConfigError, Fault, MissingExtraError
from waypost.secrets import Secret
from waypost.serve.handover import listen
from waypost.serve.plan import Plan

Tell = Callable[[str], None]

OPEN = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound to
RELAY = "*.gradio.live"


@dataclass(frozen=True)
class Options:
    """Options of the command; see its help.

    Attributes:
        login: Name and password; None asks for none.
        key: Key that the gateway gets.
    """

    host: str = "127.0.0.1"
    port: int = 7860
    allowed_hosts: tuple[str, ...] = ()
    share: bool = False
    login: tuple[str, str] | None = None
    route_on: str | None = None
    top_k: int | None = None
    key: Secret | None = None


def run(url: str, plan: Plan | None, options: Options, tell: Tell) -> None:
    """Serve the page until a signal.

    Args:
        url: The gateway; not read where there is a plan.
        plan: What a gateway in this process serves.
        options: Options of the command.
        tell: Prints a line.

    Raises:
        ConfigError: the address cannot be listened on.
        MissingExtraError: Gradio is not installed.
        WaypostError: the router of the plan cannot be loaded.
    """
    try:
        listener = listen(options.host, options.port)
    except (OSError, UnicodeError) as error:
        where = f"--host {options.host} --port {options.port}"
        reason = error.strerror if isinstance(error, OSError) else "no such name"
        raise ConfigError([Fault(where, f"cannot be listened on: {reason}")]) from None
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        asyncio.run(_serve(url, plan, options, listener, tell))
    except KeyboardInterrupt:
        tell("stopped")
    finally:
        listener.close()


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


async def _serve(
    url: str, plan: Plan | None, options: Options, listener: socket.socket, tell: Tell
) -> None:
    try:
        import uvicorn
    except ImportError:
        raise MissingExtraError("uvicorn", "chat") from None
    from waypost.chat.app import create_app

    async with AsyncExitStack() as stack:
        if plan is not None:
            from waypost.serve.local.plan_gateway import gateway

            tell("loading the router and the LLMs of this process")
            url = await stack.enter_async_context(gateway(plan))
        app = create_app(
            url,
            login=None if options.login is None else _login(*options.login),
            route_on=options.route_on,
            top_k=options.top_k,
            hosts=accepted_hosts(options),
            key=options.key,
            login_is_key=False,
        )
        server = uvicorn.Server(
            uvicorn.Config(
                app,
                log_level="error",
                access_log=False,
                ws="none",
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )
        for line in warnings(options):
            tell(line)
        port = listener.getsockname()[1]
        shown = "127.0.0.1" if options.host in OPEN else options.host
        tell(f"http://{f'[{shown}]' if ':' in shown else shown}:{port}  Ctrl-C stops it.")
        if options.share:
            tell(await asyncio.to_thread(_share, port))
        await server.serve(sockets=[listener])


def accepted_hosts(options: Options) -> list[str]:
    """Return the names that the page may be opened by."""
    own = [options.host]
    if options.host in OPEN:
        own += [socket.gethostname(), socket.getfqdn()]
    return [*LOOPBACK, *own, *options.allowed_hosts, *([RELAY] if options.share else [])]


def warnings(options: Options) -> list[str]:
    """Return what the options open, and to whom."""
    found = []
    if options.share:
        found.append(
            "warning: --share: everybody who has the link may ask at your cost; it works for a "
            "week, and what is said passes Gradio's relay"
        )
    if options.host in OPEN:
        found.append(
            f"warning: --host {options.host}: everybody who reaches this machine may ask at "
            "your cost"
        )
    if found and options.login is None:
        found.append("warning: nobody is asked for a password: --auth NAME:PASSWORD does")
    return found


def _login(name: str, password: str) -> Callable[[str, str], bool]:
    def accepts(given: str, tried: str) -> bool:
        same = hmac.compare_digest(given.encode(), name.encode())
        return same & hmac.compare_digest(tried.encode(), password.encode())

    return accepts


def _share(port: int) -> str:
    """Open a public link; return the line that tells it, or why there is none."""
    from gradio import networking

    try:
        link = networking.setup_tunnel("127.0.0.1", port, secrets.token_urlsafe(32), None, None)
    # whatever the download of its program and its relay raise
    except Exception as error:  # noqa: BLE001
        return f"warning: --share: no public link: Gradio's relay fails ({type(error).__name__})"
    return f"public link, for a week: {link}"
