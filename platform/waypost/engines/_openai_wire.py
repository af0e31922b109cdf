"""Settings of the `openai` engine, and OpenAI's messages: requests to bodies, events to chunks."""

from __future__ import annotations

import json
from typing import Any, Literal

from waypost.contracts.errors import EngineServerError
from waypost.contracts.generation import Chunk, FinishReason, GenerateRequest, Usage
from waypost.engines._http_wire import HTTPConfig, estimated_tokens, is_count
from waypost.engines.calls import StopFilter, content_text, prompt_text


class Config(HTTPConfig):
    """Settings of the `openai` engine."""

    include_usage: bool = True
    """Ask for the token counts of a stream. False for an upstream that refuses the question;
    counts are then estimated as a quarter of the characters."""

    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What the upstream calls the limit."""


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
        self.ended = False  # "[DONE]" says it, which is no JSON
        self._request = request
        self._stops = StopFilter(request.stop)
        self._characters = 0
        self._texts: list[str] = []  # not yet taken, as are the calls
        self._calls: list[dict[str, Any]] = []

    @property
    def stopped(self) -> bool:
        """Whether the rest of the answer is not wanted."""
        return self._stops.stopped

    def read(self, data: dict[str, Any]) -> bool:
        """Take one event of a stream, or a whole answer; `take` gives what it adds."""
        self._read_usage(data.get("usage"))
        choice = _first(data.get("choices"))
        self.answered = self.answered or bool(choice)
        message = choice.get("delta") or choice.get("message") or {}
        text = content_text(message.get("content") or choice.get("text"))
        self._characters += len(text)
        self._texts.append(self._stops.push(text))
        if calls := message.get("tool_calls"):
            self._calls.extend(_tool_calls(calls))
        if self.finish_reason is None and (word := choice.get("finish_reason")):
            self.finish_reason = _FINISH.get(word, "stop")
        return True

    def take(self) -> Chunk | None:
        """Return what was added since the last time, if anything."""
        text, calls = "".join(self._texts), tuple(self._calls)
        self._texts.clear()
        self._calls.clear()
        return Chunk(text=text, tool_calls=calls) if text or calls else None

    def rest(self) -> Chunk | None:
        """Return the text held back for a stop string that did not come."""
        held = self._stops.flush()
        return Chunk(text=held) if held else None

    def last(self, reason: FinishReason | None = None) -> Chunk:
        """Return the last chunk. A usage that was not told is estimated from the characters."""
        usage = self.usage or Usage(
            estimated_tokens(len(prompt_text(self._request))), estimated_tokens(self._characters)
        )
        return Chunk(finish_reason=reason or self.finish_reason or "stop", usage=usage)

    def _read_usage(self, usage: Any) -> None:
        if isinstance(usage, dict):
            prompt, answer = usage.get("prompt_tokens"), usage.get("completion_tokens", 0)
            if is_count(prompt) and is_count(answer):
                self.usage = Usage(prompt, answer)


def _tool_calls(given: object) -> list[dict[str, Any]]:
    """Read the calls of a message or a delta: those who join deltas rely on their types.

    Raises:
        EngineServerError: where one is not what OpenAI's API says.
    """
    calls: list[dict[str, Any]] = []
    for place, call in enumerate(given if isinstance(given, list) else [given]):
        function = call.get("function") or {} if isinstance(call, dict) else None
        if not isinstance(function, dict) or type(call.get("index", place)) is not int:
            raise EngineServerError("a tool call of the answer is malformed")
        if isinstance(function.get("arguments"), dict):  # some servers send the object itself
            function = {**function, "arguments": json.dumps(function["arguments"])}
        texts = [call.get("id"), call.get("type"), *function.values()]
        if not all(text is None or isinstance(text, str) for text in texts):
            raise EngineServerError("a tool call of the answer is malformed")
        calls.append({"index": place, **call} | ({"function": function} if function else {}))
    return calls


def _first(choices: Any) -> dict[str, Any]:
    """Return the choice of index 0; one request asks for one."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            return choice
    return {}
