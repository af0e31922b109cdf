"""The text side of a causal language model: requests to tokens, tokens to text, its defaults.

Works with transformers 4.45 to 5.x. Imports transformers at the top: only what starts with an
engine imports it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import transformers
from jinja2.exceptions import TemplateError

from waypost.contracts.errors import EngineRequestError, WeightsError
from waypost.contracts.generation import GenerateRequest
from waypost.engines._lm_guided import Guide
from waypost.engines.calls import content_text

_ROLES = {"developer": "system"}
"""Roles that chat templates do not know, and those that mean the same."""

_UNBOUNDED = 1 << 30
"""Context of a model whose positions have no bound (recurrent ones, ALiBi)."""


class ModelText:
    """Tokenizer and settings of one decoder-only model, without its weights.

    Args:
        tokenizer: Of transformers.
        config: The model's configuration.
        generation: Its generation_config.json, or what transformers makes of its absence.
        name: What messages call the model.

    Attributes:
        name: As given.
        context_length: Tokens the model can attend to.
        end_ids: Tokens that end an answer.
        temperature: The model's own sampling default; 0 (greedy) where it has none.
        top_p: The model's own nucleus default; 1 where it has none.
    """

    def __init__(self, tokenizer: Any, config: Any, generation: Any, name: str) -> None:
        self.name = name
        self._tokenizer = tokenizer
        # The Rust tokenizer itself: unlike the Python one around it, it changes no state when
        # it encodes, so several threads may use it at once.
        self._text = tokenizer.backend_tokenizer
        self._text.no_truncation()
        self._text.no_padding()
        self._config = config.get_text_config()
        length = getattr(self._config, "max_position_embeddings", None)
        self.context_length = _UNBOUNDED if length is None else int(length)
        self.end_ids = frozenset(
            _ids(generation.eos_token_id)
            + _ids(self._config.eos_token_id)
            + _ids(tokenizer.eos_token_id)
        )
        samples = bool(generation.do_sample)
        self.temperature = float(_or(generation.temperature, 1.0)) if samples else 0.0
        self.top_p = float(_or(generation.top_p, 1.0)) if samples else 1.0

    @classmethod
    def of_folder(cls, path: Path, name: str) -> ModelText:
        """Read tokenizer and settings of a model folder.

        Raises:
            WeightsError: where they cannot be read.
        """
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
            config = transformers.AutoConfig.from_pretrained(path, local_files_only=True)
            return ModelText(tokenizer, config, _generation(path, config), name)
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise WeightsError(
                f"{name}: {path} is not a model to generate with: {error}"
            ) from error

    @property
    def width(self) -> int:
        """Logits of a token."""
        return max(int(self._config.vocab_size), int(self._text.get_vocab_size()))

    def guide(self) -> Guide:
        """Return what keeps answers to a format. Takes half a second.

        Raises:
            MissingExtraError: llguidance is not installed.
            WeightsError: the tokenizer is of a kind that cannot be constrained.
        """
        return Guide(self._text.to_str(), self.width, self.end_ids, self.name)

    def tokens(self, request: GenerateRequest) -> list[int]:
        """Return the tokens of a request: messages through the chat template, a prompt as it is.

        Never empty: an empty prompt is the model's begin (else end) token.

        Raises:
            EngineRequestError: where the model has no chat template, or the template refuses
                the messages.
        """
        if request.prompt is not None:
            ids = self._text.encode(request.prompt, add_special_tokens=True).ids
        else:
            ids = self._text.encode(self._render(request), add_special_tokens=False).ids
        first = _ids(self._tokenizer.bos_token_id) or sorted(self.end_ids)
        return list(ids) or first[:1]

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, without special ones."""
        text: str = self._text.decode(list(ids), skip_special_tokens=True)
        return text

    def _render(self, request: GenerateRequest) -> str:
        if not self._tokenizer.chat_template:
            raise EngineRequestError(
                f"{self.name} has no chat template: it takes prompts (/v1/completions) only"
            )
        messages = [
            {**message, "role": _ROLES.get(role, role), "content": content_text(content)}
            for message in request.messages or []
            for role, content in [(message["role"], message.get("content"))]
        ]
        try:
            text: str = self._tokenizer.apply_chat_template(
                messages, tools=request.tools, add_generation_prompt=True, tokenize=False
            )
        except (TemplateError, TypeError, KeyError, ValueError):
            text = ""
        if not text:
            # raised outside of the handler: the template's own error may hold the user's text
            raise EngineRequestError(
                f"{self.name}: its chat template refuses the messages; check their roles, their "
                "order and the tools"
            )
        return text


def _generation(path: Path, config: Any) -> Any:
    try:
        return transformers.GenerationConfig.from_pretrained(path, local_files_only=True)
    except OSError:
        return transformers.GenerationConfig.from_model_config(config)


def _ids(value: int | Sequence[int] | None) -> list[int]:
    if value is None:
        return []
    return [value] if isinstance(value, int) else [int(item) for item in value]


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
