"""Queries of a file as they are routed: chats by mode, and earlier lines as earlier turns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from waypost.contracts.errors import SchemaError
from waypost.contracts.session import MODES, MOST_TURNS, TOP_K, RouteOn
from waypost.sessions.conversation import Said, last_turn, read_conversation, tokens_of
from waypost.sessions.kept_turns import Key, key_of
from waypost.sessions.retrieval import RETRIEVE, Retrieve, turns_of


def said_of(line: Mapping[str, Any]) -> list[Said]:
    """Return role and text of each message of a line: those under ``messages``, or its ``query``.

    Raises:
        SchemaError: it has both or neither, or a message has another form.
    """
    if ("messages" in line) == ("query" in line):
        raise SchemaError("expected a text, or a mapping with either query or messages")
    if "messages" not in line:
        if not isinstance(line["query"], str):
            raise SchemaError("query: expected a text, or a mapping with a text under 'query'")
        return [("user", line["query"])]
    messages = line["messages"]
    if not isinstance(messages, list) or not messages:
        raise SchemaError("messages: expected a list of at least one message")
    return [_said(message, f"messages[{i}]") for i, message in enumerate(messages)]


def _said(message: Any, where: str) -> Said:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise SchemaError(f"{where}: expected a mapping with role and content")
    content = message.get("content")
    if content is None and message["role"] == "assistant":
        content = ""
    if isinstance(content, list):
        parts = [one.get("text") if isinstance(one, Mapping) else None for one in content]
        content = None if None in parts else "\n".join(map(str, parts))
    if not isinstance(content, str):
        raise SchemaError(f"{where}.content: expected a text, or a list of parts with a text each")
    return message["role"], content


def as_routed(
    lines: Iterable[str | Mapping[str, Any]],
    route_on: RouteOn = "current_only",
    top_k: int = TOP_K,
) -> list[dict[str, Any]]:
    """Return queries as routers read them.

    In the mode ``retrieval`` a query carries its earlier turns: those of its own messages, and the
    lines before it of the same user, or of the same session where no user is named.

    Args:
        lines: Texts, or mappings with ``query`` or ``messages``; ``route_on`` and ``top_k`` of a
            line come before the arguments.
        route_on: What is routed on.
        top_k: Most earlier turns that are added, 1 to 32.

    Raises:
        SchemaError: a line has another form.
    """
    earlier: dict[Key, list[str]] = {}
    return [
        _routed({"query": line} if isinstance(line, str) else line, route_on, top_k, earlier)
        for line in lines
    ]


def _routed(
    line: Mapping[str, Any], route_on: RouteOn, top_k: int, earlier: dict[Key, list[str]]
) -> dict[str, Any]:
    mode = line.get("route_on", route_on)
    if mode not in MODES:
        raise SchemaError(f"route_on: expected one of {', '.join(MODES)}")
    said = said_of(line)
    rest = {key: line[key] for key in line if key not in ("route_on", "top_k")}
    if mode != "retrieval":
        now = last_turn(said, whole=mode == "full_context")
        found = {**rest, "query": now.text}
    else:
        talk = read_conversation(said, whole=False, most=MOST_TURNS)
        now = talk.now
        owner = key_of(rest.get("user_id"), rest.get("session_id"))
        known = earlier.setdefault(owner, []) if owner is not None else []
        turns = turns_of([*known, *(turn.text for turn in talk.earlier)], now.text)
        known.append(now.text)
        given = Retrieve.of({"turns": list(turns), "top_k": line.get("top_k", top_k)})
        found = {**rest, "query": now.text, RETRIEVE: given.to_dict()}
        if now.input_tokens is None:  # the LLM does not get the turns that are added
            found.setdefault("input_tokens", tokens_of(len(now.text)))
    if now.input_tokens is not None:
        found.setdefault("input_tokens", now.input_tokens)
    return found
