"""What the gateway tells of itself: models, readiness, status, latest decisions, and its pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import waypost
from waypost.serve.config import AUTO
from waypost.serve.gateway.access import ClientKeys
from waypost.serve.gateway.closing import Closing
from waypost.serve.gateway.errors import LOADING_WAIT_S, Problem
from waypost.serve.gateway.graph import Graph
from waypost.serve.gateway.http import Exchange
from waypost.serve.gateway.pages import page
from waypost.serve.gateway.recent import Recent
from waypost.serve.gateway.responses import dumps
from waypost.serve.prices import told_prices

MODEL = "/v1/models/"
ANY_MODEL = "/v1/models/{model}"
CHAT = "/chat"

WITHHELD = "send an API key to read the reason"


class Looking:
    """Handlers of requests that change nothing.

    Args:
        graph: Returns the graph in force.
        keys: Accepted keys of clients; None requires no key.
        closing: Whether the gateway stops.
        recent: The latest decisions.
    """

    def __init__(
        self,
        graph: Callable[[], Graph],
        keys: ClientKeys | None,
        closing: Closing,
        recent: Recent,
    ) -> None:
        self._graph = graph
        self._keys = keys
        self._closing = closing
        self._recent = recent

    def _listed(self) -> list[dict[str, Any]]:
        head = {"object": "model", "created": 0, "owned_by": "waypost"}
        plan = self._graph().plan
        routers = (AUTO, *plan.router_names)
        return [
            *({"id": name, **head, "kind": "router"} for name in routers),
            *(
                {"id": name, **head, "kind": "router", "lambda": lam}
                for name, lam in plan.dials.items()
            ),
            *(
                {"id": model.name, **head, "kind": "llm", **told_prices(model)}
                for model in plan.models
            ),
        ]

    async def list_models(self, http: Exchange, request_id: str) -> None:
        """Write the list of routers and LLMs."""
        await http.reply_json({"object": "list", "data": self._listed()})

    async def show_model(self, http: Exchange, request_id: str) -> None:
        """Write one router or LLM."""
        name = http.path.removeprefix(MODEL)
        found = next((model for model in self._listed() if model["id"] == name), None)
        if found is None:
            message = "no such model; GET /v1/models lists them"
            raise Problem(404, message, param="model", code="model_not_found")
        await http.reply_json(found)

    async def readiness(self, http: Exchange, request_id: str) -> None:
        """Write what loads; see `Dispatcher.readiness`."""
        self._closing.check()
        told = self._readiness(http)
        ready = told["status"] == "ready"
        wait = {} if ready else {"retry-after": LOADING_WAIT_S}
        await http.reply(200 if ready else 503, dumps(told), headers=wait)

    def _readiness(self, http: Exchange) -> dict[str, Any]:
        found = self._graph().dispatcher.readiness()
        rounded = {name: round(seconds, 1) for name, seconds in found.loading_s.items()}
        failed = found.failed
        if self._keys is not None and not self._keys.accept(http.headers.get("authorization")):
            failed = dict.fromkeys(failed, WITHHELD)  # anyone may ask, and reasons name endpoints
        return {"status": found.status, "loading_s": rounded, "failed": failed}

    async def status(self, http: Exchange, request_id: str) -> None:
        """Write what is served, and how it is."""
        graph = self._graph()
        plan = graph.plan
        ready = self._readiness(http)
        resting = graph.dispatcher.circuit.resting()
        states = dict.fromkeys(ready["loading_s"], "loading")
        states |= dict.fromkeys(ready["failed"], "failed")
        routers = [
            {"name": name, "default": i == 0, "steps": name in plan.router.step_routers}
            for i, name in enumerate(plan.router_names)
        ]
        models = [
            {
                "name": model.name,
                "input_price": model.input_price,
                "output_price": model.output_price,
                "state": states.get(model.name, "ready"),
                "resting": model.name in resting,
            }
            for model in plan.models
        ]
        await http.reply_json(
            {
                "version": waypost.__version__,
                **ready,
                "routers": routers,
                "models": models,
                "route_on": plan.route_on,
                "top_k": plan.retrieval.top_k,
                "keeps_turns": plan.retrieval.keep_turns is not None,
                "lambda": plan.router.policy.lam,
                "feedback": plan.feedback_dir is not None,
                "chat": CHAT if plan.chat is not None else None,
                "api_keys": plan.api_keys,
            }
        )

    async def decisions(self, http: Exchange, request_id: str) -> None:
        """Write the latest decisions of this gateway, newest first."""
        await http.reply_json({"decisions": self._recent.told()})

    async def describe(self, http: Exchange, request_id: str) -> None:
        """Write the OpenAPI document."""
        await http.reply(200, self._graph().openapi)

    async def home(self, http: Exchange, request_id: str) -> None:
        """Write the gateway's page. It holds no data: it asks for them with the reader's key."""
        await self._page(http, "home")

    async def docs(self, http: Exchange, request_id: str) -> None:
        """Write the page that shows the OpenAPI document."""
        await self._page(http, "docs")

    async def _page(self, http: Exchange, name: str) -> None:
        body, headers = page(name)
        await http.reply(200, body, "text/html; charset=utf-8", headers)
