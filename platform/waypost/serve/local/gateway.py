"""`waypost.Gateway`: the whole gateway in this process, for Python, as an ASGI app or on a port."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Mapping, MutableMapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from waypost.contracts.errors import MissingExtraError, NotStartedError
from waypost.contracts.records import Decision
from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.backends.passing import respond
from waypost.serve.gateway.access import client_keys
from waypost.serve.gateway.app import Gateway as App
from waypost.serve.gateway.closing import Closing
from waypost.serve.gateway.http import Receive, Send
from waypost.serve.handover import listen
from waypost.serve.local.config import HOST, LocalConfig, read_local
from waypost.serve.local.loop import LoopThread
from waypost.serve.local.reply import (
    CHAT,
    FEEDBACK,
    ROUTE,
    Reply,
    exchange,
    question,
    reply_of,
)
from waypost.serve.logs import set_up_logging
from waypost.serve.plan import Plan
from waypost.serve.stopping import TOLD_S, stop_s

if TYPE_CHECKING:
    from waypost.serve.chat_page import ChatPage
    from waypost.serve.gateway.ingress import Ingress

T = TypeVar("T")

FLUSH_S = 2.0
"""Time for clients to read what ended their answers, when the gateway closes."""

NOT_STARTED = "the gateway is not started: `with Gateway(...) as gateway:`, or call its open()"
_POLL_S = 0.05


class Gateway:
    """The gateway that ``waypost serve`` runs on Ray, in this process and without it.

    It has the same HTTP API, router, failover and records, for LLMs behind endpoints (engines
    ``openai`` and ``anthropic``) and for scripted ones (``echo``, ``replay``). Use it as a context
    manager, with ``with`` or ``async with``; as an ASGI application, which an ASGI server starts;
    or on a port of its own (`listen`).

        >>> from waypost import Gateway
        >>> pool = [
        ...     {"name": "small", "engine": "echo", "input_price": 0.1, "output_price": 0.4},
        ...     {"name": "large", "engine": "echo", "input_price": 2.0, "output_price": 8.0},
        ... ]
        >>> with Gateway(pool=pool, router="difficulty") as gateway:
        ...     reply = gateway.ask("What is the capital of France?")
        ...     url = gateway.listen()  # OpenAI's API is under its /v1
        >>> print(reply.model, "said:", reply)
        small said: What is the capital of France?

    Args:
        config: A Serve file with one application, or a YAML file with only its ``args``; or the
            content of either. None takes only the arguments below.
        artifact: Folder or URI of a router, in place of those of ``config``.
        args: Arguments of the graph in place of those of ``config``: ``pool``, ``policy``, ...

    Attributes:
        plan: The resolved graph in force.

    Raises:
        ConfigError: with every fault, also of engines and settings that need Ray.
        ArtifactError: the router cannot be read, or knows no LLM of the pool.
    """

    def __init__(
        self,
        config: str | Path | Mapping[str, Any] | LocalConfig | None = None,
        *,
        artifact: str | Path | None = None,
        **args: Any,
    ) -> None:
        if not isinstance(config, LocalConfig):
            given = {**args, **({} if artifact is None else {"artifact": str(artifact)})}
            config = read_local(config, given)
        self.config = config
        self.plan: Plan = config.plan()
        self._app: App | None = None
        self._page: ChatPage | None = None  # that of the start: changes of the file leave it
        self._requests: dict[App, int] = {}  # those of each app, in the order of their start
        self._servers: list[Ingress] = []
        self._leaving: set[asyncio.Task[None]] = set()
        self._starting: asyncio.Lock | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: LoopThread | None = None

    def __repr__(self) -> str:
        llms = ", ".join(model.name for model in self.plan.models)
        routers = ", ".join(self.plan.router_names)
        return f"Gateway(routers: {routers}; LLMs: {llms})"

    # -- start and end ------------------------------------------------------------------------

    def open(self) -> Self:
        """Start the gateway in a thread of its own; ``with`` does so, and closes it at its end.

        Raises:
            WaypostError: a router cannot be loaded, or a folder cannot be written.
        """
        if self._thread is None:
            self._thread = LoopThread()
            try:
                self._thread.call(self.start())
            except BaseException:
                self._end_thread()
                raise
        return self

    def close(self) -> None:
        """End what `open` started: requests in flight are ended, records are written."""
        thread = self._thread
        if thread is not None:
            with suppress(NotStartedError):  # else another thread closed it meanwhile
                thread.call(self.end())
            self._end_thread()

    def _end_thread(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.end()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.end()

    async def start(self) -> None:
        """Start the gateway in the running event loop, unless it runs.

        Raises:
            WaypostError: as `open`.
        """
        if self._starting is None:
            self._starting = asyncio.Lock()
        async with self._starting:
            if self._app is None:
                set_up_logging(self.plan.log)
                self._loop = asyncio.get_running_loop()
                if self.plan.chat is not None:
                    await self._open_page()
                self._app = await self._begun(self.plan)

    async def end(self, within_s: float = 0.0) -> None:
        """Refuse further requests, let those in flight finish, and free everything.

        Args:
            within_s: Seconds for requests in flight; then they are ended as by `stop`.
        """
        if self._app is None:
            return
        self.stop(within_s)
        for app in tuple(self._requests):
            with suppress(TimeoutError):
                async with asyncio.timeout(within_s + TOLD_S):
                    await app.closing.done()
        await asyncio.gather(*(server.drain(FLUSH_S) for server in self._servers))
        self._servers.clear()
        await asyncio.gather(*self._leaving, return_exceptions=True)
        await self._app.close()
        if self._page is not None:
            await self._page.close()
        self._page = None
        self._app, self._loop, self._starting = None, None, None
        self._requests.clear()

    async def _open_page(self) -> None:
        from waypost.serve.chat_page import ChatPage  # needs the packages of an HTTP server

        self._page = ChatPage(self.plan, partial(respond, self))
        await self._page.start()

    async def _begun(self, plan: Plan) -> App:
        keys = client_keys() if plan.api_keys else None
        page = None if self._page is None or plan.chat is None else self._page.ask
        app = App(plan, local_router(plan), local_llm, keys, chat=page)
        await app.start()
        self._requests[app] = 0
        return app

    def reload(self, config: LocalConfig) -> None:
        """Serve further requests by a changed file; see `change`."""
        self._wait_for(self.change(config))

    async def change(self, config: LocalConfig) -> None:
        """Serve further requests by a changed file; requests in flight end by the earlier one.

        As on Ray, a changed ``user_config`` is adopted, and changed arguments start a new gateway
        in place of this one. Address and logging stay.

        Raises:
            WaypostError: the changed file cannot be served; the earlier one stays in force.
        """
        earlier = self._running
        plan = await asyncio.to_thread(config.plan)
        if config.args == self.config.args:
            await earlier.adopt(plan)
        else:
            self._app = await self._begun(plan)
            leaving = asyncio.create_task(self._leave(earlier, stop_s(self.config.args)))
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self.config, self.plan = config, plan

    async def _leave(self, app: App, within_s: float) -> None:
        """Close an app once its requests have ended, or were ended after ``within_s`` seconds."""
        loop = asyncio.get_running_loop()
        until = loop.time() + within_s
        while self._requests[app]:
            if loop.time() > until:
                app.stop(0.0)
            await asyncio.sleep(_POLL_S)
        del self._requests[app]
        await app.close()

    @property
    def _running(self) -> App:
        if self._app is None:
            raise NotStartedError(NOT_STARTED)
        return self._app

    # -- HTTP ---------------------------------------------------------------------------------

    def listen(self, host: str = HOST, port: int = 0, prefix: str = "") -> str:
        """Serve HTTP on a port, until the gateway is closed.

        Args:
            host: Address to listen on.
            port: Port; 0 takes a free one.
            prefix: Path that all requests begin with; "" is none.

        Returns:
            The URL, without a slash at the end: OpenAI's API is under its ``/v1``.

        Raises:
            NotStartedError: the gateway was not opened by `open` or ``with``.
            OSError: the address cannot be listened on.
            MissingExtraError: the packages of an HTTP server are not installed.
        """
        return self._wait_for(self.accept(listen(host, port), prefix))

    async def accept(self, listener: socket.socket, prefix: str = "") -> str:
        """Serve HTTP on a listening socket of the caller; return the URL as `listen` does.

        Raises:
            MissingExtraError: the packages of an HTTP server are not installed.
        """
        try:
            from waypost.serve.gateway.ingress import Ingress
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "uvicorn", "gateway") from None
        server = Ingress(self, listener, prefix)
        await server.start()
        self._servers.append(server)
        host, port = listener.getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}{prefix}"

    @property
    def closing(self) -> Closing:
        """Whether the gateway stops."""
        return self._running.closing

    @property
    def problems(self) -> dict[str, str]:
        """Why LLMs are not served, by name."""
        return self._running.dispatcher.problems()

    def stop(self, after_s: float) -> None:
        """Refuse new requests, and end those still in flight after ``after_s`` seconds."""
        for app in tuple(self._requests):
            app.stop(after_s)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one ASGI connection. The gateway starts with the server, else with the first."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if self._app is None:  # mounted in another application, which tells mounts no start
            await self.start()
        app = self._running
        self._requests[app] += 1
        try:
            await app(scope, receive, send)
        finally:
            if app in self._requests:  # else the gateway has ended meanwhile
                self._requests[app] -= 1

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            kind = (await receive())["type"]
            work = self.start() if kind == "lifespan.startup" else self.end()
            try:
                await work
            except Exception as error:  # noqa: BLE001 - ASGI's way to report it
                await send({"type": f"{kind}.failed", "message": str(error)})
                return
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    # -- questions ----------------------------------------------------------------------------

    def ask(self, asked: str | Sequence[Mapping[str, Any]], **fields: Any) -> Reply:
        """Ask a question, as a client over HTTP would.

        Args:
            asked: The question, or messages in OpenAI's form.
            fields: Further fields of OpenAI's body (``model``, ``max_tokens``, ``tools``, ...), and
                ``lam`` (cost weight, at least 0), ``max_cost_usd``, ``allowed_models``,
                ``user_id``, ``session_id``, ``session_token``.

        Raises:
            GatewayError: no LLM answered, or a field is wrong; it has HTTP status and code.
            NotStartedError: the gateway was not opened by `open` or ``with``.
        """
        return self._wait_for(self.ask_async(asked, **fields))

    async def ask_async(self, asked: str | Sequence[Mapping[str, Any]], **fields: Any) -> Reply:
        """Ask a question from a coroutine; see `ask`."""
        return reply_of(*await self._post(CHAT, question(asked, fields)))

    def route(self, asked: str | Sequence[Mapping[str, Any]], **fields: Any) -> Decision:
        """Return the decision for a question, without an answer; arguments and errors as `ask`."""
        return self._wait_for(self.route_async(asked, **fields))

    async def route_async(
        self, asked: str | Sequence[Mapping[str, Any]], **fields: Any
    ) -> Decision:
        """Return the decision for a question from a coroutine; see `route`."""
        found, _ = await self._post(ROUTE, question(asked, fields))
        return Decision.from_dict(found)

    def rate(self, request_id: str, rating: float, reason: str | None = None) -> None:
        """Rate an answer; the graph needs ``feedback_dir``.

        Args:
            request_id: `Reply.request_id`.
            rating: 0 to 1.
            reason: Why; None says nothing.

        Raises:
            GatewayError: the id is unknown, or no feedback is kept.
        """
        said = {} if reason is None else {"reason": reason}
        body = {"request_id": request_id, "rating": rating, **said}
        self._wait_for(self._post(FEEDBACK, body))

    async def _post(
        self, path: str, body: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        _ = self._running  # a question does not start what nobody would close
        work = exchange(self, path, body)
        if self._loop in (None, asyncio.get_running_loop()):
            return await work
        assert self._loop is not None  # that of its own thread
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))

    def _wait_for(self, work: Coroutine[Any, Any, T]) -> T:
        thread = self._thread  # another thread may close the gateway meanwhile
        if thread is None:
            work.close()
            if self._app is not None:
                raise NotStartedError("the gateway runs in an event loop: await its ..._async")
            raise NotStartedError(NOT_STARTED)
        return thread.call(work)
