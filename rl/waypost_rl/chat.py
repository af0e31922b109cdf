"""The policy's tokenizer: the frame of its chat, its special tokens, text to tokens and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from waypost.contracts.errors import WeightsError
from waypost_rl.protocol import TAGS

_MARK = "waypost-question"


class Codec(Protocol):
    """Text to tokens and back."""

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; the tokenizer adds none of its own."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special tokens."""


class TokenizerCodec:
    """The codec of a tokenizer of transformers.

    Args:
        tokenizer: A fast or slow tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the tokens of a text; see `Codec.encode`."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens; see `Codec.decode`."""
        text: str = self._tokenizer.decode(
            list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


@dataclass(frozen=True, slots=True)
class Chat:
    """How a policy is addressed.

    Attributes:
        frame: Chat template: text before and after the message of the user.
        reserved: Special tokens, without the protocol's tags.
        begin_ids: Tokens that encoding puts before a text: the begin token, or none. They are not
            in the frame.
    """

    frame: tuple[str, str]
    reserved: tuple[str, ...]
    begin_ids: tuple[int, ...]


def chat_of(tokenizer: Any, name: str) -> Chat:
    """Read the chat of a tokenizer of transformers. One without a template continues the prompt.

    Raises:
        WeightsError: The tokenizer, which ``name`` is for, fails or changes the message.
    """
    try:
        added = tokenizer.added_tokens_decoder.values()
        known = {*tokenizer.all_special_tokens, *(one.content for one in added if one.special)}
        turn = [{"role": "user", "content": _MARK}]
        text: str = (
            tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False)
            if tokenizer.chat_template
            else _MARK
        )
        first = tokenizer(_MARK)["input_ids"][:1]
    except Exception as error:
        raise WeightsError(
            f"{name}: its tokenizer cannot be used ({type(error).__name__}: {error})"
        ) from error
    before, mark, after = text.partition(_MARK)
    if not mark or _MARK in after:
        raise WeightsError(f"{name}: its chat template does not contain the message once")
    begin_ids: tuple[int, ...] = ()
    if tokenizer.bos_token and first == [tokenizer.bos_token_id]:
        before = before.removeprefix(tokenizer.bos_token)
        begin_ids = (int(tokenizer.bos_token_id),)
    tags = {f"<{end}{tag}>" for tag in TAGS for end in ("", "/")}
    reserved = tuple(sorted(token for token in known - tags if token.strip()))
    return Chat((before, after), reserved, begin_ids)
