"""The latest decisions of a gateway, in memory, for its page."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from waypost.contracts.generation import Usage
from waypost.contracts.records import Decision
from waypost.feedback import Outcome

MOST = 200
"""Decisions that are kept."""

_LONGEST = 300
_TEXT = 160


class _Kept(NamedTuple):
    """What of an `Outcome` is kept: all but the texts and vectors that it holds."""

    at: float
    request_id: str
    decision: Decision
    answered: str | None
    attempts: int
    failed: Sequence[str]
    usage: Usage | None
    cost_usd: float | None
    seconds: float | None
    error: str | None
    text: str | None


class Recent:
    """The latest decisions; bounded.

    Args:
        most: Most decisions.

    Attributes:
        texts: Whether the beginning of the text that was routed on is kept.
    """

    def __init__(self, most: int = MOST) -> None:
        self.texts = False
        self._found: deque[_Kept] = deque(maxlen=most)

    def add(self, made: Outcome) -> None:
        """Keep a decision and what became of it."""
        self._found.append(
            _Kept(
                made.at,
                made.request_id,
                made.decision,
                made.model,
                made.attempts,
                made.failed,
                made.usage,
                made.cost_usd,
                made.seconds,
                made.error,
                made.query["query"][:_TEXT] if self.texts else None,
            )
        )

    def told(self) -> list[dict[str, Any]]:
        """Return the decisions as plain data, newest first."""
        return [_told(one) for one in reversed(self._found)]


def _told(one: _Kept) -> dict[str, Any]:
    decision, usage = one.decision, one.usage
    found: dict[str, Any] = {
        "time": round(one.at, 3),
        "request_id": one.request_id,
        "router": decision.router,
        "chosen": decision.model,
        "answered": one.answered,
        "reason": decision.reason[:_LONGEST],
        "lambda": decision.lam,
        "attempts": one.attempts,
        "failed": list(one.failed),
        "predicted_cost_usd": decision.cost_usd.get(one.answered or decision.model),
        "cost_usd": one.cost_usd,
        "input_tokens": None if usage is None else usage.input_tokens,
        "output_tokens": None if usage is None else usage.output_tokens,
        "seconds": None if one.seconds is None else round(one.seconds, 6),
        "error": None if one.error is None else one.error[:_LONGEST],
    }
    return found if one.text is None else {**found, "text": one.text}
