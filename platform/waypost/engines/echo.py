"""The `echo` engine: answers with what it was told, at a scripted pace, failing on request.

For tests, demonstrations and the gateway's bench. It costs a few microseconds a token.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from waypost.config import StrictModel
from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineOverloadedError,
    EngineServerError,
    EngineTimeoutError,
)
from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.engines.base import Engine
from waypost.engines.calls import Calls, Script, last_user_text, pieces, play, prompt_text

_LOAD_POLL_S = 0.05

Failure = Literal["timeout", "429", "500", "connection", "mid_stream"]


class Config(StrictModel):
    """Settings of the `echo` engine."""

    text: str | None = None
    """What it answers; without it, the last message of the user, or the prompt."""

    tokens: int | None = Field(default=None, ge=0)
    """Length of the answer in tokens (words): the text is cut or repeated to it."""

    load_until: str | None = None
    """File whose appearance ends its start: until then it is as an LLM that loads for long."""

    delay_s: float = Field(default=0.0, ge=0)
    """Wait before the first token, or before a failure."""

    tokens_per_s: float | None = Field(default=None, gt=0)
    """Pace; without it, no wait between tokens."""

    fail_with: Failure | None = None
    """How requests fail; ``mid_stream`` cuts the answer off after half of its tokens."""

    fail_first_n: int = Field(default=0, ge=0)
    """The first n requests after the start fail."""

    fail_rate: float | None = Field(default=None, ge=0, le=1)
    """Share of the (further) requests that fail. Without it and fail_first_n, all do."""

    seed: int = 0
    """Decides which requests fail under `fail_rate`."""

    retry_after_s: float = Field(default=1.0, ge=0)
    """What a 429 asks to wait."""

    @model_validator(mode="after")
    def _failures_have_a_kind(self) -> Config:
        if self.fail_with is None and (self.fail_first_n or self.fail_rate is not None):
            raise ValueError("fail_first_n and fail_rate need fail_with, which says how to fail")
        return self


class EchoEngine(Engine):
    """Answers with a given text or with the user's own words.

    Attributes:
        calls: What runs now, and the tokens made so far.

    Example:
        >>> import asyncio
        >>> from waypost.engines import make_engine
        >>> from waypost.engines.base import collect
        >>> async def ask(question: str) -> str:
        ...     engine = make_engine("echo", {"text": "Four."})
        ...     await engine.start()
        ...     answer = await collect(engine, GenerateRequest("id-1", prompt=question))
        ...     await engine.close()
        ...     return answer.text
        >>> asyncio.run(ask("What is 2 + 2?"))
        'Four.'
    """

    name: ClassVar[str] = "echo"
    config_class: ClassVar[type[StrictModel]] = Config
    remote: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self.calls = Calls(self.name)

    async def start(self) -> None:
        """Begin the script anew: the failures of `fail_first_n` and `fail_rate` too."""
        while not _is_there(self.config.load_until):  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(_LOAD_POLL_S)
        self.calls.open = True
        self._seen = 0
        self._random = random.Random(self.config.seed)  # noqa: S311 - a script, no secret

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        """Answer as the settings say; see `Engine.generate`."""
        return play(self.calls, request, self._script)

    async def abort(self, request_id: str) -> None:
        """End that request with the finish reason ``cancelled``."""
        self.calls.abort(request_id)

    async def healthy(self) -> bool:
        """Say whether it is started and not closed."""
        return self.calls.open

    async def close(self) -> None:
        """End every request with an EngineConnectionError."""
        self.calls.close()

    def _script(self, request: GenerateRequest) -> Script:
        config = self.config
        answer = pieces(last_user_text(request) if config.text is None else config.text)
        if config.tokens is not None and answer:
            times = -(-config.tokens // len(answer))
            answer = (answer * times)[: config.tokens]
        fails = self._fails()
        return Script(
            pieces=answer,
            input_tokens=len(pieces(prompt_text(request))),
            delay_s=config.delay_s,
            token_s=1 / config.tokens_per_s if config.tokens_per_s else 0.0,
            error=self._error() if fails else None,
            error_after=len(answer) // 2 if config.fail_with == "mid_stream" else 0,
        )

    def _fails(self) -> bool:
        config = self.config
        self._seen += 1
        if config.fail_with is None or self._seen <= config.fail_first_n:
            return config.fail_with is not None
        if config.fail_rate is None:
            return config.fail_first_n == 0
        return self._random.random() < config.fail_rate

    def _error(self) -> EngineError:
        if self.config.fail_with == "timeout":
            return EngineTimeoutError("echo: scripted time-out")
        if self.config.fail_with == "429":
            wait = self.config.retry_after_s
            return EngineOverloadedError("echo: scripted 429", status=429, retry_after_s=wait)
        if self.config.fail_with == "500":
            return EngineServerError("echo: scripted 500", status=500)
        return EngineConnectionError(f"echo: scripted failure ({self.config.fail_with})")


def _is_there(path: str | None) -> bool:
    return path is None or Path(path).exists()
