"""A question and the LLMs to choose from, each under a letter, as token ids."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase
from typing import Any

from waypost.contracts.errors import SchemaError, WeightsError
from waypost.contracts.records import LLMInfo
from waypost.encoders.texts import CHARS_PER_TOKEN, prepare
from waypost_routers._base_models import Base

MOST_LLMS = len(ascii_uppercase)

FEWEST_QUERY_TOKENS = 8

_MARK = "\u241e"
"""Stands for the question while the chat template is applied."""

_ASK = "Which model answers the question best?\n"


class LetterPrompt:
    """Makes prompts that end where the model is to say one letter.

    The list of LLMs comes first, so that what the model makes of it can be kept between
    questions. Only the question is ever cut, at its beginning.

    Args:
        base: The model whose tokenizer and chat template are used.
        llms: The candidates.
        feature_words: Words of each one's ``feature`` that stand in the list.
        max_tokens: Most tokens of a question.
        frame: What stands before and after all of it; None asks the chat template, which may put
            today's date there.

    Attributes:
        letters: Token ids of the letters.
        frame: See above.

    Raises:
        SchemaError: more LLMs than letters, or a list that leaves no room for a question.
        WeightsError: the tokenizer has no token for each letter.
    """

    def __init__(
        self,
        base: Base,
        llms: Sequence[LLMInfo],
        feature_words: int,
        max_tokens: int,
        frame: Sequence[str] | None = None,
    ) -> None:
        from transformers import AutoTokenizer

        if len(llms) > MOST_LLMS:
            raise SchemaError(
                f"causallm_router tells {MOST_LLMS} LLMs apart, by a letter each; there are "
                f"{len(llms)}: leave some out, or train another router"
            )
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
        self._descriptions = [describe(llm, feature_words) for llm in llms]
        self.letters = [self._letter(base, letter) for letter in ascii_uppercase[: len(llms)]]
        self.frame = tuple(frame) if frame is not None else self._template_frame()
        self._tail = self._ids(self.frame[1])
        context = int(getattr(base.model.config, "max_position_embeddings", None) or 2048)
        room = context - len(self.head(range(len(llms)))) - len(self._tail)
        if room < FEWEST_QUERY_TOKENS:
            raise SchemaError(
                f"causallm_router: the list of {len(llms)} LLMs fills the {context} tokens that "
                f"{base.name} reads; lower feature_words, or leave LLMs out"
            )
        self._max_tokens = min(max_tokens, room)

    def head(self, order: Sequence[int]) -> list[int]:
        """Return the ids up to the question; the LLMs stand in ``order``, A first."""
        lines = [
            f"{letter}. {self._descriptions[j]}"
            for letter, j in zip(ascii_uppercase, order, strict=False)
        ]
        return self._ids(self.frame[0] + _ASK + "\n".join(lines) + "\n\nQuestion: ")

    def rest(self, text: str) -> list[int]:
        """Return the ids from the question on; of a long one its last tokens."""
        (valid,) = prepare([text[-self._max_tokens * CHARS_PER_TOKEN :]], self._max_tokens)
        return self._ids(valid)[-self._max_tokens :] + self._tail

    def _template_frame(self) -> tuple[str, str]:
        after = "\n\nAnswer with its letter."
        if not getattr(self._tokenizer, "chat_template", None):
            return "", after + "\nAnswer: "
        chat = [{"role": "user", "content": _MARK + after}]
        text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        before, _, after = text.partition(_MARK)
        return before, after

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _letter(self, base: Base, letter: str) -> int:
        ids = self._ids(letter)
        if len(ids) != 1:
            raise WeightsError(f"{base.name}: its tokenizer has no token for {letter} alone")
        return ids[0]


def describe(llm: LLMInfo, feature_words: int) -> str:
    """Return an LLM's line of the list: name, size, and the first words of its feature."""
    size = f" ({llm.size})" if llm.size else ""
    words = " ".join((llm.feature or "").split()[:feature_words])
    return f"{llm.name}{size}" + (f": {words}" if words else "")
