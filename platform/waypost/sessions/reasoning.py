"""Send reasoning back to the provider that made it, and to no other.

Signed, encrypted or plain, the reasoning of an earlier turn is the maker's: another provider
cannot use it, may refuse it, and should not read it. Where a pool has several providers, messages
with reasoning carry a tag of their maker (`TAG`), which clients send back as they do the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from waypost.contracts.generation import Answer, Chunk

TAG = "reasoning_provider"
"""Field of a message, and of each block of its reasoning: a digest of the provider."""

_BLOCKS = frozenset({"thinking_blocks", "reasoning_details", "content_blocks"})
"""Lists of blocks, each of which is tagged: clients rebuild messages from the fields they know."""

BOUND = _BLOCKS | {
    "reasoning", "reasoning_content", "reasoning_opaque", "reasoning_text", "thinking",
    "encrypted_content", "signature", "thought_signature", "provider_specific_fields",
}  # fmt: skip
"""Fields of a message that are its provider's alone."""

BOUND_OF_CALLS = frozenset({"extra_content", "provider_specific_fields", "thought_signature"})
"""The same of the calls of tools: Gemini signs them."""

_SEEN = BOUND | {TAG}

PieceT = TypeVar("PieceT", Chunk, Answer)
Message = dict[str, Any]


class Providers:
    """The provider of each LLM.

    Args:
        of: LLM -> name of its provider.
    """

    def __init__(self, of: Mapping[str, str]) -> None:
        self._tags = {model: _digest(provider) for model, provider in of.items()}
        self._several = len(set(self._tags.values())) > 1

    def tag(self, model: str) -> str | None:
        """Return the tag of what an LLM makes; None where all LLMs have one provider."""
        return self._tags.get(model) if self._several else None

    def sent(
        self, model: str, messages: list[Message] | None
    ) -> tuple[list[Message] | None, tuple[str, ...]]:
        """Return messages as an LLM gets them, and the sorted names of the fields left out.

        Reasoning without a tag goes on only where all LLMs have one provider. Tags do not go on.
        """
        if messages is None or all(_is_plain(message) for message in messages):
            return messages, ()
        left_out: set[str] = set()
        own = self._tags.get(model)
        found = [self._of(message, own, left_out) for message in messages]
        return found, tuple(sorted(left_out))

    def _of(self, message: Message, own: str | None, left_out: set[str]) -> Message:
        if _is_plain(message):
            return message
        maker = message.get(TAG)
        fields = {}
        for name, value in message.items():
            if name in _BLOCKS and isinstance(value, list):
                kept = [_untagged(item) for item in value if self._may(_maker(item, maker), own)]
                if len(kept) < len(value):
                    left_out.add(name)
                if kept or not value:
                    fields[name] = kept
            elif name == "tool_calls" and isinstance(value, list):
                fields[name] = [self._call(call, maker, own, left_out) for call in value]
            elif name in BOUND and value is not None and not self._may(maker, own):
                left_out.add(name)
            elif name != TAG:
                fields[name] = value
        return fields

    def _call(self, call: Any, maker: Any, own: str | None, left_out: set[str]) -> Any:
        if BOUND_OF_CALLS.isdisjoint(call) or self._may(maker, own):
            return call
        left_out.update(BOUND_OF_CALLS & {*call})
        return {name: value for name, value in call.items() if name not in BOUND_OF_CALLS}

    def _may(self, maker: Any, own: str | None) -> bool:
        if maker is None:
            return not self._several
        if not isinstance(maker, str) or not maker or own is None:
            return False
        return not maker.replace(own, "")  # clients join the texts of deltas: a tag may repeat


def _digest(provider: str) -> str:
    return hashlib.blake2b(provider.encode(), digest_size=6).hexdigest()


def _is_plain(message: Message) -> bool:
    if message.get("role") != "assistant":
        return True
    calls: Iterable[Any] = message.get("tool_calls") or ()
    return _SEEN.isdisjoint(message) and all(BOUND_OF_CALLS.isdisjoint(call) for call in calls)


def _maker(item: Any, maker: Any) -> Any:
    return item.get(TAG, maker) if isinstance(item, dict) else maker


def _untagged(item: Any) -> Any:
    if isinstance(item, dict) and TAG in item:
        return {name: value for name, value in item.items() if name != TAG}
    return item


def tagged(piece: PieceT, tag: str | None, *, again: bool = False) -> PieceT:
    """Return a piece of an answer whose reasoning has the tag of its provider.

    Args:
        piece: The piece.
        tag: The tag; None adds none.
        again: Whether an earlier piece of the answer has it: then only blocks get it.
    """
    said = piece.extra.get("message", {})
    if tag is None or not (piece.reasoning or _is_bound(said, piece.tool_calls)):
        return piece
    fields = {
        name: [_with(item, tag) for item in value]
        if name in _BLOCKS and isinstance(value, list)
        else value
        for name, value in said.items()
    }
    own = {} if again else {TAG: tag}
    return replace(piece, extra={**piece.extra, "message": {**fields, **own}})


def _is_bound(said: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]) -> bool:
    return not BOUND.isdisjoint(said) or any(not BOUND_OF_CALLS.isdisjoint(c) for c in calls)


def _with(item: Any, tag: str) -> Any:
    return {**item, TAG: tag} if isinstance(item, dict) else item
