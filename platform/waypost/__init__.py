"""Waypost: routes each query to the LLM that answers it well enough for the least money."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from waypost.contracts.records import Decision
    from waypost.contracts.router import MetaRouter, ScoreRouter
    from waypost.contracts.step_router import StepRouter
    from waypost.loading import load_router
    from waypost.registry import make_router
    from waypost.serve.local import Gateway

# resolved at first use (PEP 562), so that `import waypost` loads neither numpy nor pyarrow
_HOMES = {
    "Decision": "waypost.contracts.records",
    "Gateway": "waypost.serve.local",
    "MetaRouter": "waypost.contracts.router",
    "ScoreRouter": "waypost.contracts.router",
    "StepRouter": "waypost.contracts.step_router",
    "load_router": "waypost.loading",
    "make_router": "waypost.registry",
}

__all__ = [
    "Decision",
    "Gateway",
    "MetaRouter",
    "ScoreRouter",
    "StepRouter",
    "__version__",
    "load_router",
    "make_router",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'waypost' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
