"""What an upstream's refusal is about, told by its code, type and wording: one table.

The code or type tells it where there is one of its own; most upstreams say
``invalid_request_error`` for everything, and then only the wording does. A refusal that no line
matches is the request's fault. Engines of other distributions may use the table; a Serve file adds
lines by the setting ``refusals`` of an engine, and those come first.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from waypost.config import StrictModel
from waypost.contracts.errors import REFUSED_REQUEST

About = Literal["context", "content", "key", "money", "llm", "provider", "request"]
"""``context``: the prompt is too long for this LLM. ``content``: a content filter. ``key``: the
key. ``money``: the account has none. ``llm``: what this LLM lacks. ``provider``: what this endpoint
lacks. ``request``: the request itself; no other LLM is asked."""

_SEARCHED = 4_096
"""Characters of an error that are searched."""


class Refusal(StrictModel):
    """One line of the table: an error that has one of the codes, or the wording."""

    about: About
    """What such a refusal is about."""

    codes: tuple[str, ...] = ()
    """Values of ``code``, ``type`` or ``status`` of the error, without regard to case."""

    wording: str | None = Field(default=None, min_length=1)
    """Regular expression that is searched in the error, without regard to case."""

    source: str = ""
    """Where it was seen."""

    @field_validator("wording")
    @classmethod
    def _compiles(cls, value: str | None) -> str | None:
        try:
            re.compile(value or "")
        except re.error as error:
            raise ValueError(f"is no regular expression: {error}") from None
        return value

    @model_validator(mode="after")
    def _matches_something(self) -> Refusal:
        if not self.codes and self.wording is None:
            raise ValueError("give codes or wording")
        return self

    def matches(self, codes: frozenset[str], text: str) -> bool:
        """Return whether an error of these codes (in small letters) and this text is meant."""
        if any(code.lower() in codes for code in self.codes):
            return True
        return self.wording is not None and _pattern(self.wording).search(text) is not None


@lru_cache(maxsize=1024)
def _pattern(wording: str) -> re.Pattern[str]:
    return re.compile(wording, re.IGNORECASE | re.DOTALL)


def _line(about: About, source: str, wording: str | None = None, *codes: str) -> Refusal:
    return Refusal(about=about, codes=codes, wording=wording, source=source)


TABLE: tuple[Refusal, ...] = (
    # content filters
    _line(
        "content",
        "continuedev/continue#4192 (Azure)",
        r"content management policy",
        "content_filter",
        "ResponsibleAIPolicyViolation",
        "content_policy_violation",
    ),
    _line("content", "666ghj/BettaFish#108 (DeepSeek)", r"content exists risk"),
    _line(
        "content",
        "camel-ai/owl#432, QwenLM/qwen-code#3145 (DashScope)",
        r"data_?inspection_?failed|may contain inappropriate content",
        "data_inspection_failed",
    ),
    _line("content", "anthropics/claude-code#58367", r"blocked by content filter"),
    _line("content", "OpenAI's code of flagged prompts", r"flagged as potentially violating"),
    _line("content", "openrouter.ai/docs/api-reference/errors", r"requires moderation.*flagged"),
    # contexts
    _line(
        "context",
        "ChatGPTNextWeb/NextChat#3195 (OpenAI), ggml-org/llama.cpp#15780",
        r"context size has been exceeded|exceeds? the available context size",
        "context_length_exceeded",
        "exceed_context_size_error",
    ),
    _line("context", "Anthropic", r"prompt is too long"),
    _line("context", "google-gemini/gemini-cli#12098", r"input token count.{0,40}exceeds"),
    _line("context", "sjzar/chatlog#30", r"length of prompt_tokens.{0,40}max_seq_len"),
    _line("context", "run-llama/llama_index#7974 (Replicate)", r"input is too long"),
    _line("context", "DashScope", r"range of input length should be"),
    _line("context", "abetlen/llama-cpp-python#416", r"exceed context window"),
    _line(
        "context",
        "QwenLM/qwen-code#371 and others",
        r"context.{0,20}(length|window|limit)|maximum.{0,20}length",
    ),
    # keys and money
    _line("key", "poenl/gemini-api (Gemini answers 400)", r"api key not valid", "API_KEY_INVALID"),
    _line(
        "money",
        "continuedev/continue#5499 (Anthropic answers 400)",
        r"credit balance is too low|insufficient balance|arrearage",
        "arrearage",
        "insufficient_quota",
        "billing_not_active",
    ),
    # what one LLM lacks
    _line(
        "llm",
        "ChatGPTNextWeb/NextChat#3195 (OpenAI), nickscamara/open-deep-research#19 (DeepSeek), "
        "Gitlawb/openclaude#331 (Volcengine), vercel/ai#2772 (Bedrock), Anthropic",
        r"max_?(completion_|output_|new_)?tokens\b.{0,80}"
        r"(too large|too high|at most|above maximum|valid range|maximum allowed|less than)"
        r"|supports at most \d+ completion tokens|maximum tokens you requested exceeds",
    ),
    _line(
        "llm",
        "BeehiveInnovations/pal-mcp-server#78, sigoden/aichat#1144 (OpenAI)",
        r"(not support(ed)?\b.{0,40} (with|by|for) this model)|this model does not support",
        "unsupported_value",
        "unsupported_parameter",
        "unsupported_model",
    ),
    _line("llm", "ollama/ollama#14795", r"does not support (tools|tool|function|image|thinking)"),
    _line("llm", "QwenLM/Qwen-Agent#344 (vLLM)", r"tool choice requires --enable-auto-tool-choice"),
    _line("llm", "lobehub/lobehub#9385 (OpenAI)", r"organization must be verified"),
    _line("llm", "vLLM", r"is not a multimodal model|at most 0 (image|audio|video)"),
    _line(
        "llm",
        "microsoft/autogen#1037 (templates of Mistral), templates of Gemma",
        r"conversation roles must alternate|system role (is )?not supported",
    ),
    _line(
        "llm",
        "valentinfrlch/ha-llmvision#324 (Groq), ConardLi/easy-dataset#9 (DeepSeek)",
        r"model.{0,80}(decommissioned|does not exist|not found)|model not exist",
        "model_decommissioned",
        "model_not_found",
    ),
    # what one endpoint lacks
    _line(
        "provider",
        "ItzCrazyKns/Vane#969, dzhng/deep-research#22 (DeepSeek)",
        r"response_format.{0,80}(unavailable|not supported|unsupported|invalid type)",
    ),
    _line(
        "provider",
        "decolua/9router#773, cline/cline#230 (DeepSeek)",
        r"failed to deserialize the json body",
    ),
    _line(
        "provider",
        "BerriAI/litellm#30835, mistralai/platform-docs-public#7 (Mistral)",
        r"extra inputs are not permitted|extra_forbidden",
    ),
    _line(
        "provider",
        "MinLL/SkyrimNet-GamePlugin#77 (Gemini)",
        r"unknown name.{0,80}cannot find field|unrecognized request argument",
        "unknown_parameter",
    ),
    _line("provider", "google-gemini/gemini-cli#24641", r"user location is not supported"),
    _line("provider", "OpenRouter", r"no endpoints found that support"),
)
"""The lines, in the order in which they are tried."""

_ANYWHERE: frozenset[About] = frozenset({"content", "context"})
"""What is believed at any status but those below: moderation is a 403, llama.cpp answers 500."""

_OF_THEIR_OWN = frozenset({401, 408, 429})


def refusal_about(status: int, error: object, own: Sequence[Refusal] = ()) -> About | None:
    """Return what a refusal is about; None where no line matches it.

    Args:
        status: HTTP status, or that which an error inside a stream names.
        error: The body's ``error``: an object with message, code and type, or a text.
        own: Further lines, which come first and are believed at any status.
    """
    facts: Mapping[str, Any] = error if isinstance(error, Mapping) else {"message": error}
    inner = facts.get("innererror")
    codes = frozenset(
        str(value).lower()
        for value in (
            *(facts.get(name) for name in ("code", "type", "status")),
            inner.get("code") if isinstance(inner, Mapping) else None,
        )
        if isinstance(value, str)
    )
    # also what stands in param, detail or the raw error of a provider behind this one
    text = json.dumps(error, ensure_ascii=False, default=str)[:_SEARCHED]
    for line in own:
        if line.matches(codes, text):
            return line.about
    if status in _OF_THEIR_OWN:
        return None
    for line in TABLE:
        believed = line.about in _ANYWHERE or status in REFUSED_REQUEST
        if believed and line.matches(codes, text):
            return line.about
    return None
