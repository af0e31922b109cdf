"""An engine of another distribution; it answers with the words in reverse order."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import ClassVar

from pydantic import Field

from waypost.config import StrictModel
from waypost.contracts.errors import EngineServerError
from waypost.contracts.generation import Chunk, GenerateRequest
from waypost.engines import Engine
from waypost.engines.calls import Calls, Script, last_user_text, pieces, play, prompt_text


class Config(StrictModel):
    """Settings of the `acme_reverse` engine."""

    token_s: float = Field(default=0.0, ge=0)
    """Seconds between two words."""

    breaks: bool = False
    """Whether every request fails."""


class ReverseEngine(Engine):
    """An engine that answers with the words of the last message in reverse order."""

    name: ClassVar[str] = "acme_reverse"
    config_class: ClassVar[type[StrictModel]] = Config
    remote: ClassVar[bool] = True

    def __init__(self, config: Config) -> None:
        self.config = config
        self.calls = Calls(self.name)

    async def start(self) -> None:
        self.calls.open = True

    def generate(self, request: GenerateRequest) -> AsyncGenerator[Chunk, None]:
        return play(self.calls, request, self._script)

    async def abort(self, request_id: str) -> None:
        self.calls.abort(request_id)

    async def healthy(self) -> bool:
        return self.calls.open

    async def close(self) -> None:
        self.calls.close()

    def _script(self, request: GenerateRequest) -> Script:
        if self.config.breaks:
            raise EngineServerError("acme_reverse: its config sets breaks")
        return Script(
            pieces=[f"{word} " for word in reversed(last_user_text(request).split())],
            input_tokens=len(pieces(prompt_text(request))),
            token_s=self.config.token_s,
        )


class Misnamed(ReverseEngine):
    """An engine whose name differs from its entry point."""


class NoEngine:
    """A class that does not derive from `Engine`."""
