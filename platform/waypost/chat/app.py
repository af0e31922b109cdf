"""The chat page as an ASGI application."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from waypost.chat.client import GatewayClient
from waypost.chat.door import App, Door, Patience
from waypost.contracts.errors import MissingExtraError
from waypost.secrets import Secret

if TYPE_CHECKING:
    from fastapi import FastAPI

Login = Callable[[str, str], bool]


def create_app(
    gateway_url: str,
    *,
    root_path: str = "",
    login: Login | None = None,
    route_on: str | None = None,
    top_k: int | None = None,
    hosts: Sequence[str] | None = None,
    key: Secret | None = None,
    login_is_key: bool = True,
) -> App:
    """Return the page over a gateway.

    Args:
        gateway_url: Where the gateway listens, such as ``http://127.0.0.1:8000``.
        root_path: Path that the page stands at, such as ``/chat``; requests have it in their path.
        login: Whether a user with a password may enter; the name is then the user of the requests.
            None asks for no login.
        route_on: What is routed on at first; None leaves it to the gateway.
        top_k: Earlier turns that the mode ``retrieval`` takes at first, 1 to 32.
        hosts: Accepted names of the Host header; None accepts all.
        key: Key that the gateway gets.
        login_is_key: Whether the gateway gets the password of a login instead.

    Returns:
        The application; its lifespan must be run.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    try:
        import gradio as gr
        from fastapi import FastAPI
    except ImportError:
        raise MissingExtraError("gradio", "chat") from None
    from waypost.chat import look
    from waypost.chat.page import Page

    client = GatewayClient(gateway_url)
    keys: dict[str, Secret] = {}
    patience = Patience()

    def enter(name: str, password: str) -> bool:
        if login is None or not patience.may_try(name):
            return False
        accepted = login(name, password)
        if not accepted:
            patience.failed(name)
        elif login_is_key:
            keys[name] = Secret(password)
        return accepted

    @asynccontextmanager
    async def living(_: FastAPI) -> AsyncIterator[None]:
        try:
            yield
        finally:
            await client.close()

    page = Page(client, key=key, keys=keys, route_on=route_on, top_k=top_k)
    app = gr.mount_gradio_app(
        FastAPI(lifespan=living, docs_url=None, redoc_url=None, openapi_url=None),
        page.blocks.queue(default_concurrency_limit=None),
        path=root_path or "/",
        auth=None if login is None else enter,
        show_error=False,
        ssr_mode=False,
        footer_links=[],
        theme=look.theme(),
        head=look.HEAD,
    )
    return Door(app, hosts)
