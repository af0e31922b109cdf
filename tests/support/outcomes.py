"""Outcomes of requests as a gateway tells them to the feedback store and the decision log."""

from __future__ import annotations

import time
from typing import Any

from waypost.contracts.generation import Usage
from waypost.contracts.records import Decision
from waypost.feedback import Outcome

DECISION = Decision(
    "cook",
    ("cook", "prover"),
    quality={"cook": 0.75, "prover": 0.5},
    cost_usd={"cook": 0.002},
    confidence=0.5,
    lam=0.25,
    propensity=0.75,
    router="knnrouter",
    router_version="1",
)


def outcome(
    request_id: str, text: str = "boil an egg", user: str | None = "ann", **changes: Any
) -> Outcome:
    """Return the outcome of a request that ``cook`` answered."""
    query = {"query": text, "session_id": "s1"} | ({"user_id": user} if user else {})
    known: dict[str, Any] = {
        "at": time.time(),
        "query": query,
        "decision": DECISION,
        "model": "cook",
        "attempts": 1,
        "usage": Usage(10, 20),
        "cost_usd": 0.001,
        "seconds": 1.5,
        "finish_reason": "stop",
    }
    return Outcome(request_id, **(known | changes))
