"""Streams in OpenAI's form, written event by event."""

from __future__ import annotations

import json
from typing import Any


def stream_of(
    *deltas: dict[str, Any], reason: str | None = "stop", usage: Any = None, **beside: Any
) -> bytes:
    """Return a stream of these deltas.

    Args:
        deltas: One event each.
        reason: The finish reason, in an event of its own; None sends none.
        usage: Of the last event; None sends none.
        beside: Fields of each event, beside its choices.
    """
    choices = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    if reason is not None:
        choices.append({"index": 0, "delta": {}, "finish_reason": reason})
    events: list[Any] = [{"choices": [choice], **beside} for choice in choices]
    if usage is not None:
        events.append({"choices": [], "usage": usage})
    written = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return f"{written}data: [DONE]\n\n".encode()
