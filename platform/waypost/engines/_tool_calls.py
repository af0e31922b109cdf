"""Tool calls as upstreams number, split and repeat them -> deltas as OpenAI's API has them.

What is known of upstreams, and read here:

- every call has index 0: Ollama, Gemini, LiteLLM, dynamo (ollama/ollama#15457,
  huggingface/smolagents#1958, ai-dynamo/dynamo#4723);
- no index, or no id, at all: older Ollama (ollama/ollama#7881), Gemini
  (langchain-ai/langchain#40392);
- later pieces without id belong to the call that began last at their index
  (oracle/langchain-oracle#253, google-deepmind/amplio#3);
- id and name again in every piece, a fresh id for each piece, or the whole call again at the end.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from waypost.contracts.errors import EngineServerError

_TEXT_OF = {"function": "arguments", "custom": "input"}
"""Kind of tool -> the field of a call that is text in pieces."""


@dataclass
class _Call:
    """A call that has begun; `text` is what its arguments are so far."""

    place: int
    name: str
    text: str

    @property
    def complete(self) -> bool:
        return _is_json(self.text)


@dataclass(frozen=True)
class _Piece:
    """What one delta, or one whole call, says."""

    index: int | None
    id: str
    type: str
    kind: str
    name: str
    text: str
    body: dict[str, Any]
    more: dict[str, Any]


class ToolCalls:
    """Reads the calls of one answer.

    Args:
        request_id: From which ids are made for calls that have none of their own.

    Attributes:
        characters: Length of all names and arguments so far.
    """

    def __init__(self, request_id: str) -> None:
        self.characters = 0
        self._request_id = request_id
        self._begun: list[_Call] = []
        self._by_id: dict[str, _Call] = {}
        self._latest: dict[int, _Call] = {}  # at an index of the upstream's

    def read(self, given: object, *, whole: bool) -> list[dict[str, Any]]:
        """Return the deltas that the calls of a message or delta stand for.

        Args:
            given: The upstream's ``tool_calls``.
            whole: Whether they are the calls of a message, each complete.

        Raises:
            EngineServerError: one is not what OpenAI's API says: clients rely on the types.
        """
        before = len(self._begun)
        pieces = [_piece(call) for call in (given if isinstance(given, list) else [given])]
        deltas = []
        for place, piece in enumerate(pieces):
            call = self._repeated(piece, place, before) if whole else self._find(piece)
            delta = self._begin(piece) if call is None else self._go_on(call, piece)
            if delta is not None:
                deltas.append(delta)
        return deltas

    def _repeated(self, piece: _Piece, place: int, before: int) -> _Call | None:
        """Return the call that a whole one repeats, of those that earlier events began."""
        if place >= before:
            return None
        call = self._by_id.get(piece.id) or self._begun[place]
        same = (call.name, call.text) == (piece.name, piece.text)
        return call if call.place < before and same else None

    def _find(self, piece: _Piece) -> _Call | None:
        """Return the call that a delta goes on with; None where it begins one."""
        at = self._latest.get(piece.index) if piece.index is not None else self._last()
        known = self._by_id.get(piece.id) if piece.id else None
        if known is not None:
            # one id for all calls: another index that begins with a name is another call
            return None if at is None and piece.name and piece.index is not None else known
        if at is None or not piece.name:
            return at
        if piece.id:  # a fresh id in the middle of the arguments is no new call
            return at if piece.name == at.name and at.text and not at.complete else None
        if at.text:
            # without any id: a call ends where its arguments are complete
            repeats = (piece.name, piece.text) == (at.name, at.text)
            return at if repeats or not at.complete else None
        return at if piece.index is not None or piece.name == at.name else None

    def _last(self) -> _Call | None:
        return self._begun[-1] if self._begun else None

    def _begin(self, piece: _Piece) -> dict[str, Any]:
        call = _Call(len(self._begun), piece.name, piece.text)
        self._begun.append(call)
        taken = not piece.id or piece.id in self._by_id
        id_ = f"call_{self._request_id}_{call.place}" if taken else piece.id
        self._by_id[id_] = call
        self._latest[call.place if piece.index is None else piece.index] = call
        self.characters += len(piece.name) + len(piece.text)
        body = {**piece.body, "name": piece.name, _TEXT_OF[piece.kind]: piece.text}
        return {"index": call.place, "id": id_, "type": piece.type, piece.kind: body, **piece.more}

    def _go_on(self, call: _Call, piece: _Piece) -> dict[str, Any] | None:
        name, text = piece.name, piece.text
        if name == call.name:
            name = ""
        elif name.startswith(call.name):  # the name so far, and more of it
            name = name[len(call.name) :]
        if text and text == call.text and call.complete:
            text = ""
        call.name += name
        call.text += text
        self.characters += len(name) + len(text)
        body = {**piece.body, **({"name": name} if name else {})}
        if text:
            body[_TEXT_OF[piece.kind]] = text
        if not body and not piece.more:
            return None
        return {"index": call.place, **({piece.kind: body} if body else {}), **piece.more}


def _piece(call: object) -> _Piece:
    if not isinstance(call, dict):
        raise _malformed()
    kind = "custom" if isinstance(call.get("custom"), dict) else "function"
    field = _TEXT_OF[kind]
    body = call.get(kind) or {}
    index = call.get("index")
    if isinstance(index, str) and index.isdecimal() and len(index) < 10:
        index = int(index)
    if not isinstance(body, dict) or not (index is None or type(index) is int):
        raise _malformed()
    text, name = body.get(field), body.get("name")
    if isinstance(text, dict | list):  # some servers send the object itself
        text = json.dumps(text)
    id_, type_ = call.get("id"), call.get("type")
    if not all(value is None or isinstance(value, str) for value in (id_, type_, name, text)):
        raise _malformed()
    read = {"index", "id", "type", kind}
    return _Piece(
        index,
        id_ or "",
        type_ or kind,
        kind,
        name or "",
        text or "",
        {key: value for key, value in body.items() if key not in {"name", field}},
        {key: value for key, value in call.items() if key not in read and value is not None},
    )


def _malformed() -> EngineServerError:
    return EngineServerError("a tool call of the answer is malformed")


def _is_json(text: str) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True
