"""Replies of a router node as plain data, and how the gateway reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from waypost.contracts.errors import (
    BudgetError,
    EmptyPoolError,
    PolicyError,
    SchemaError,
    WaypostError,
)
from waypost.contracts.records import Decision
from waypost.contracts.step_router import Action, action_from_dict
from waypost.feedback.outcome import QuestionVector
from waypost.sessions.retrieval import Retrieved

Reply = dict[str, Any]
"""``{"decision": Decision.to_dict()}``, with ``"vector": [encoder id, bytes]`` where a personal
router may learn from it, and ``"retrieved": Retrieved.to_dict()`` where earlier turns were asked
for; ``{"action": ...}`` of a step; or ``{"error": {"type", "message"}}``."""


class RouterUnavailableError(WaypostError):
    """The router cannot be reached or failed on its side."""


class StaleDecisionError(WaypostError):
    """Router and gateway have different configs at the moment; the request is decided again."""


@dataclass(frozen=True, slots=True)
class Routed:
    """What a router node found for a query; see `QuestionVector` and `Retrieved`."""

    decision: Decision
    vector: QuestionVector | None = None
    retrieved: Retrieved | None = None


_ERRORS: dict[str, type[WaypostError]] = {
    cls.__name__: cls
    for cls in (SchemaError, PolicyError, EmptyPoolError, BudgetError, StaleDecisionError)
}


def read_reply(reply: Reply) -> Decision:
    """Read a router node's reply to a query.

    Raises:
        PolicyError, SchemaError: the query has a wrong form, or no LLM may answer it.
        RouterUnavailableError: any other failure.
    """
    return Decision.from_dict(_read(reply)["decision"])


def read_routed(reply: Reply) -> Routed:
    """Read a router node's reply to a query with all that it tells; raises as `read_reply`."""
    decision, vector, found = read_reply(reply), reply.get("vector"), reply.get("retrieved")
    return Routed(
        decision,
        None if vector is None else QuestionVector(*vector),
        None if found is None else Retrieved.from_dict(found),
    )


def read_action(reply: Reply) -> Action:
    """Read a router node's reply to a step.

    Raises:
        StaleDecisionError: the router was replaced since its decision.
        PolicyError: no LLM is left that the router may ask.
        RouterUnavailableError: any other failure.
    """
    return action_from_dict(_read(reply)["action"])


def _read(reply: Reply) -> Reply:
    error = reply.get("error")
    if error is None:
        return reply
    raise _ERRORS.get(error["type"], RouterUnavailableError)(error["message"])


def failure_reply(error: WaypostError) -> Reply:
    """Return a failure as plain data."""
    return {"error": {"type": type(error).__name__, "message": str(error)}}
