"""OpenAI's messages: a request to its body, and a body or a stream's event to chunks."""

from __future__ import annotations

import json
from typing import Any

from waypost.contracts.errors import EngineServerError
from waypost.contracts.generation import Chunk, FinishReason, GenerateRequest, Usage
from waypost.engines._messages import content_text, prompt_text
from waypost.engines._stops import StopFilter

CHARACTERS_PER_TOKEN = 4
"""For the usage of an upstream that tells none: what English text has on average."""

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "max_tokens": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
"""An upstream's word -> ours; any other is ``stop``: the answer did end."""


def request_path(request: GenerateRequest) -> str:
    """Return the path below the base URL."""
    return "/completions" if request.messages is None else "/chat/completions"


def request_body(
    request: GenerateRequest, model: str, *, stream: bool, max_tokens_field: str, usage: bool
) -> dict[str, Any]:
    """Return the JSON body. `request.extra` cannot replace a field that the request has.

    Args:
        request: What to ask.
        model: The upstream's name of the model.
        stream: Whether the answer is to be a stream.
        max_tokens_field: ``max_tokens`` or ``max_completion_tokens``.
        usage: Whether to ask for the usage at the end of a stream.
    """
    fields = {
        "model": model,
        "messages": request.messages,
        "prompt": request.prompt,
        max_tokens_field: request.max_tokens,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "stop": list(request.stop) or None,
        "tools": request.tools,
        "tool_choice": request.tool_choice,
        "stream": stream,
        "stream_options": {"include_usage": True} if stream and usage else None,
    }
    own = {key: value for key, value in fields.items() if value is not None}
    return {**request.extra, **own}


class AnswerReader:
    """Collects what an upstream says into chunks.

    Attributes:
        finish_reason: None until the upstream says that the answer ended.
        usage: None until the upstream tells it.
        answered: True once the upstream sent a choice, though perhaps an empty one.
        stopped: True once a stop string was found that the upstream let through.
    """

    def __init__(self, request: GenerateRequest) -> None:
        self.finish_reason: FinishReason | None = None
        self.usage: Usage | None = None
        self.answered = False
        self._request = request
        self._stops = StopFilter(request.stop)
        self._characters = 0

    @property
    def stopped(self) -> bool:
        """Whether the rest of the answer is not wanted."""
        return self._stops.stopped

    def read(self, data: dict[str, Any]) -> Chunk | None:
        """Take one event of a stream, or a whole answer; return what it adds, if anything."""
        self._read_usage(data.get("usage"))
        choice = _first(data.get("choices"))
        self.answered = self.answered or bool(choice)
        message = choice.get("delta") or choice.get("message") or {}
        text = content_text(message.get("content") or choice.get("text"))
        self._characters += len(text)
        shown = self._stops.push(text)
        calls = tuple(
            {"index": index, **call}
            for index, call in enumerate(message.get("tool_calls") or ())
            if isinstance(call, dict)
        )
        if self.finish_reason is None and (word := choice.get("finish_reason")):
            self.finish_reason = _FINISH.get(word, "stop")
        return Chunk(text=shown, tool_calls=calls) if shown or calls else None

    def rest(self) -> Chunk | None:
        """Return the text held back for a stop string that did not come."""
        held = self._stops.flush()
        return Chunk(text=held) if held else None

    def last(self, reason: FinishReason | None = None) -> Chunk:
        """Return the last chunk. A usage that was not told is estimated from the characters."""
        usage = self.usage or Usage(
            _tokens(len(prompt_text(self._request))), _tokens(self._characters)
        )
        return Chunk(finish_reason=reason or self.finish_reason or "stop", usage=usage)

    def _read_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
            if isinstance(prompt, int) and isinstance(answer, int):
                self.usage = Usage(prompt, answer)


def parse_json(text: str | bytes, where: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        EngineServerError: where it is none; the message does not repeat it.
    """
    try:
        data = json.loads(text)
    except ValueError:
        data = None
    if not isinstance(data, dict):
        raise EngineServerError(f"{where}: expected a JSON object, found something else")
    return data


def _first(choices: Any) -> dict[str, Any]:
    """Return the choice of index 0; one request asks for one."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            return choice
    return {}


def _tokens(characters: int) -> int:
    return -(-characters // CHARACTERS_PER_TOKEN)
