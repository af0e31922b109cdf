"""Waypost: routes each query to the LLM that answers it well enough for the least money.

    import waypost

    router = waypost.train("knnrouter", "serve_configs/starter/data", out="artifacts/knn")
    router.route_single("What is 12 * 7?").model
    router.route_batch([{"query": "What is 12 * 7?", "lambda": 0.4}, "Write quicksort."])

    waypost.evaluate([router, "best_single", "linearrouter"], "serve_configs/starter/data")

    router = waypost.load_router("artifacts/knn")        # trained before
    router = waypost.make_router("knnrouter", {"k": 20}) # not trained
    router.fit("serve_configs/starter/data")

    with waypost.Gateway("serve.yaml") as gateway:       # the file that `waypost init` writes
        print(gateway.ask("What is 12 * 7?"))

`docs/python-api.md` describes each. A router of one's own derives from `MetaRouter`, `ScoreRouter`
or `StepRouter` (`docs/plugins.md`).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from waypost.api import evaluate, make_router, train
    from waypost.contracts.records import Decision
    from waypost.contracts.router import MetaRouter, ScoreRouter
    from waypost.contracts.step_router import StepRouter
    from waypost.loading import load_router
    from waypost.serve.local import Gateway

# resolved at first use (PEP 562), so that `import waypost` loads neither numpy nor pyarrow
_HOMES = {
    "Decision": "waypost.contracts.records",
    "Gateway": "waypost.serve.local",
    "MetaRouter": "waypost.contracts.router",
    "ScoreRouter": "waypost.contracts.router",
    "StepRouter": "waypost.contracts.step_router",
    "evaluate": "waypost.api",
    "load_router": "waypost.loading",
    "make_router": "waypost.api",
    "train": "waypost.api",
}

__all__ = [
    "Decision",
    "Gateway",
    "MetaRouter",
    "ScoreRouter",
    "StepRouter",
    "__version__",
    "evaluate",
    "load_router",
    "make_router",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'waypost' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
