"""Answers that follow a JSON schema: what a request asks for, and the masks of its tokens.

`llguidance` keeps a parser for each answer. Before each token it says which tokens may come next;
all others get no probability. It is imported where an engine enforces formats only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import (
    EngineRequestError,
    EngineServerError,
    MissingExtraError,
    WeightsError,
)

if TYPE_CHECKING:
    from collections.abc import Collection

    from llguidance._lib import JsonCompileOptions

    from waypost.contracts.generation import GenerateRequest

ResponseFormat = Literal["refuse", "enforce"]

_FORMAT = "response_format"
ONE_LINE: JsonCompileOptions = {
    "whitespace_flexible": False,
    "item_separator": ", ",
    "key_separator": ": ",
}
"""JSON on one line: with free white space a small model may write nothing else to its limit."""

_ANOTHER_MAY = ("unimplemented", "too complex", "limit")
"""Words of a fault that is not the schema's: an LLM behind HTTP may do it."""


def asked_schema(request: GenerateRequest, setting: ResponseFormat, name: str) -> Any:
    """Return the JSON schema that the answer must follow; None where it may be any text.

    Args:
        request: What is asked; ``extra.response_format`` is in OpenAI's form.
        setting: What the engine does with it.
        name: What messages call the model.

    Raises:
        EngineRequestError: the format is refused by the setting, or is none that OpenAI's API has.
    """
    asked = request.extra.get(_FORMAT)
    if asked is None:
        return None
    kind = asked.get("type") if isinstance(asked, dict) else None
    if kind == "text":
        return None
    if kind not in {"json_object", "json_schema"}:
        raise _refused(f"{_FORMAT}.type: expected text, json_object or json_schema")
    if setting == "refuse":
        raise EngineRequestError(
            f"{name}: {_FORMAT} {kind} is refused here; to enforce it, set {_FORMAT}: enforce in "
            "the config of this LLM",
            retryable=True,  # another LLM may take it
            status=400,
        )
    if kind == "json_object":
        # older clients and servers (Together's, llama.cpp's) have the schema beside the type
        beside = asked.get("schema")
        return beside if isinstance(beside, dict) else {"type": "object"}
    given = asked.get("json_schema")
    if not isinstance(given, dict):
        raise _refused(f"{_FORMAT}.json_schema: expected an object with name and schema")
    schema = given.get("schema")
    if not isinstance(schema, dict):
        raise _refused(f"{_FORMAT}.json_schema.schema: expected a JSON schema, which is an object")
    return schema


def _refused(message: str, *, retryable: bool = False) -> EngineRequestError:
    return EngineRequestError(message, retryable=retryable, status=400)


class Guide:
    """Makes the masks of one model.

    Args:
        tokenizer: Of the library `tokenizers`, as JSON.
        width: Logits of a token.
        end_ids: Tokens that end an answer.
        name: What messages call the model.

    Raises:
        MissingExtraError: llguidance is not installed.
        WeightsError: answers of this tokenizer cannot be constrained.
    """

    def __init__(self, tokenizer: str, width: int, end_ids: Collection[int], name: str) -> None:
        try:
            from llguidance import LLTokenizer
        except ModuleNotFoundError:
            raise MissingExtraError(f"llguidance ({_FORMAT}: enforce)", "serve") from None
        try:
            # half a second for a vocabulary of 50,000
            self._tokenizer = LLTokenizer(tokenizer, n_vocab=width, eos_token=sorted(end_ids))
        except ValueError as error:
            raise WeightsError(
                f"{name}: its tokenizer cannot be constrained ({error}); set {_FORMAT}: refuse"
            ) from None
        self._width = width
        self._end_ids = sorted(end_ids)

    def all_but_ends(self) -> NDArray[np.bool_]:
        """Return a mask, (width,), that forbids every token that does not end an answer."""
        forbidden = np.ones(self._width, np.bool_)
        forbidden[self._end_ids] = False
        return forbidden

    def follow(self, schema: Any) -> Guided:
        """Return what keeps one answer to a schema. Takes milliseconds, for large ones seconds.

        Raises:
            EngineRequestError: the schema is wrong, or is beyond what can be enforced.
        """
        from llguidance import LLMatcher

        matcher = LLMatcher(
            self._tokenizer, LLMatcher.grammar_from_json_schema(schema, overrides=ONE_LINE)
        )
        if fault := matcher.get_error():
            # only the first line: further ones repeat the client's patterns
            told = f"{_FORMAT}.json_schema.schema: {fault.splitlines()[0].rstrip(':')}"
            beyond = any(word in fault.lower() for word in _ANOTHER_MAY)
            raise _refused(told, retryable=beyond)
        return Guided(matcher, self._width)


class Guided:
    """Keeps one answer to its schema. For one thread at a time."""

    def __init__(self, matcher: Any, width: int) -> None:
        self._matcher = matcher
        self._width = width

    @property
    def complete(self) -> bool:
        """Whether the answer follows its schema and nothing can follow it."""
        return bool(self._matcher.is_stopped())

    def forbidden(self) -> NDArray[np.bool_]:
        """Return which tokens may not come next, (width,).

        Raises:
            EngineServerError: the parser gave up.
        """
        mask = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(mask, bitorder="little")[: self._width]
        if self._matcher.is_error() or not allowed.any():
            raise EngineServerError(f"{_FORMAT}: {self._matcher.get_error() or 'no token fits'}")
        forbidden = np.ones(self._width, np.bool_)
        forbidden[: len(allowed)] = allowed == 0
        return forbidden

    def take(self, *tokens: int) -> bool:
        """Go on behind tokens; return whether the answer still follows its schema."""
        return bool(self._matcher.consume_tokens(list(tokens)))
