"""``waypost serve --local``: the gateway in this process, without Ray, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Coroutine
from typing import Any

import click

from waypost.cli.output import introduce, tell
from waypost.contracts.errors import WaypostError
from waypost.serve import launch
from waypost.serve.garbage import collect_seldom
from waypost.serve.handover import listen
from waypost.serve.local.config import LocalConfig, read_local
from waypost.serve.local.gateway import Gateway
from waypost.serve.local.loop import new_loop
from waypost.serve.port import port_taken
from waypost.serve.prices import library_prices
from waypost.serve.stopping import stop_s


def serve(config: LocalConfig, port: int | None) -> None:
    """Serve a checked file on its port.

    Args:
        config: The file.
        port: What replaces its port when it is read again.

    Raises:
        PortTakenError: another process listens on the port.
        WaypostError: a router cannot be loaded, or a folder cannot be written.
    """
    gateway = Gateway(config)
    try:
        listener = listen(config.host, config.port)
    except OSError as error:
        raise port_taken(config.host, config.port, config.where, error) from None
    with listener:
        _prepare(gateway)
        with asyncio.Runner(loop_factory=new_loop) as runner:
            runner.run(_Serving(gateway, port).run(listener))
    tell("stopped")


def _prepare(gateway: Gateway) -> None:
    for line in library_prices(gateway.plan.models):
        tell(line)
    launch.fetch([gateway.plan], tell)


class _Serving:
    """One run of the gateway and the signals to it."""

    def __init__(self, gateway: Gateway, port: int | None) -> None:
        self._gateway = gateway
        self._port = port
        self._path = gateway.config.path
        self._stop, self._reload = asyncio.Event(), asyncio.Event()

    async def run(self, listener: socket.socket) -> None:
        """Serve until a signal ends it."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        gateway = self._gateway
        if not await self._unless_stopped(gateway.start()):
            return
        collect_seldom()
        await gateway.accept(listener, gateway.config.prefix)
        introduce("gateway", gateway.config.url, _served(gateway))
        click.echo("Ctrl-C stops it.")
        while await self._unless_stopped(self._reload.wait()):
            self._reload.clear()
            await self._change()
        seconds = stop_s(gateway.config.args)
        tell(f"stopping: open requests have up to {seconds:g} s")
        self._stop.clear()
        await self._unless_stopped(gateway.end(seconds))  # a second signal ends it at once

    async def _unless_stopped(self, work: Coroutine[Any, Any, Any]) -> bool:
        """Return whether the work ended by itself; a signal to stop cancels it.

        Raises:
            WaypostError: the work failed.
        """
        task, stop = asyncio.ensure_future(work), asyncio.ensure_future(self._stop.wait())
        await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        ended = task.done()
        if not ended:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        else:
            task.result()
        return ended

    async def _change(self) -> None:
        """Read the file again and apply it; where it is wrong, the earlier one stays."""
        assert self._path is not None  # the command line gives a file
        before = self._gateway.config
        try:
            changed = await asyncio.to_thread(read_local, self._path, None, self._port)
            await self._gateway.change(changed)
        except WaypostError as error:
            tell(f"the changed file is refused; the active config stays:\n{error}")
            return
        if changed.url != before.url:
            tell("http_options and route_prefix: a change needs a restart")
        if changed.args.log != before.args.log:
            tell("log: a change needs a restart")
        tell(f"{self._path} is in force")


def _served(gateway: Gateway) -> list[str]:
    """Tell which LLMs are not served; return the names of the others."""
    for name, problem in gateway.problems.items():
        tell(f"{name} {launch.NOT_SERVED}: {problem}")
    return [name for name in gateway.plan.router.served if name not in gateway.problems]
