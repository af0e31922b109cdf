"""The gateway with its own HTTP server in one process, without Ray: what is measured is ours.

    python -m waypost.bench._alone < arguments.json

The arguments are those of the graph (`waypost.serve.config.ServeArgs`), router and engines inside
the gateway. The process writes its port as its first line, and serves until a signal.
"""

from __future__ import annotations

import asyncio
import json
import sys

import uvloop

from waypost.serve.backends.dispatcher import local_llm, local_router
from waypost.serve.config import ServeArgs
from waypost.serve.gateway.app import Gateway
from waypost.serve.gateway.ingress import Ingress
from waypost.serve.handover import listen
from waypost.serve.logs import set_up_logging
from waypost.serve.nodes import collect_seldom
from waypost.serve.plan import Plan, make_plan


async def _serve(plan: Plan) -> None:
    set_up_logging(plan.log)
    gateway = Gateway(plan, local_router(plan), local_llm)
    await gateway.start()
    collect_seldom()
    listener = listen("127.0.0.1", 0)
    await Ingress(gateway, listener).start()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    args = ServeArgs.model_validate(json.load(sys.stdin))
    uvloop.run(_serve(make_plan(args)))  # as a replica in `waypost serve`
