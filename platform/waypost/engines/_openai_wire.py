"""Settings of the `openai` engine, and OpenAI's messages: requests to bodies, events to chunks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from waypost.contracts.errors import EngineServerError
from waypost.contracts.generation import (
    Chunk,
    FinishReason,
    GenerateRequest,
    Usage,
    joined,
    joined_extra,
)
from waypost.engines._http_wire import HTTPConfig, estimated_tokens, is_count
from waypost.engines._tool_calls import ToolCalls
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
    "model_length": "length",
    "tool_calls": "tool_calls",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
    "safety": "content_filter",
    "recitation": "content_filter",
    "prohibited_content": "content_filter",
    "sensitive": "content_filter",
}
"""An upstream's word, in small letters -> ours; any other is ``stop``: the answer did end.

``model_length`` is Mistral's, ``sensitive`` Zhipu's, ``safety`` and the two below Gemini's.
"""

_NO_END = frozenset(
    {
        "error",  # OpenRouter, SGLang
        "abort",  # vLLM, SGLang
        "network_error",  # Zhipu
        "insufficient_system_resource",  # DeepSeek
        "malformed_function_call",  # Gemini
    }
)
"""Words that say that the answer broke off."""

_MESSAGE = frozenset(
    {"role", "content", "tool_calls", "refusal", "annotations", "reasoning_content"}
)
_CHOICE = frozenset({"index", "delta", "message", "text", "finish_reason"})
_ANSWER = frozenset({"id", "object", "created", "model", "choices", "usage", "error"}) | {
    "obfuscation"  # padding of an event's length, void once the event is written anew
}
_USAGE = frozenset({"prompt_tokens", "completion_tokens", "total_tokens"})


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
        self._calls = ToolCalls(request.request_id)
        self._characters = 0
        self._streams = False
        self._notes: list[dict[str, Any]] = []
        self._told: dict[str, dict[str, Any]] = {"choice": {}, "answer": {}}
        self._new: list[Chunk] = []  # not yet taken
        self._texts: list[str] = []  # behind these
        self._extra: dict[str, dict[str, Any]] = {}  # not yet taken, besides that of messages

    @property
    def stopped(self) -> bool:
        """Whether the rest of the answer is not wanted."""
        return self._stops.stopped

    def read(self, data: dict[str, Any]) -> bool:
        """Take one event of a stream, or a whole answer; `take` gives what it adds.

        Raises:
            EngineServerError: the upstream says that the answer failed, or it is malformed.
        """
        if not self._read_text(data):
            self._read_all(data)
        return True

    def _read_text(self, data: dict[str, Any]) -> bool:
        """Take an event that adds text and says nothing else that is new; say whether it is one.

        Nearly all events of a stream do, and each passes here.
        """
        choices = data.get("choices")
        if data.get("usage") or type(choices) is not list or len(choices) != 1:
            return False
        choice = choices[0]
        if type(choice) is not dict or choice.get("finish_reason") or choice.get("index"):
            return False
        delta = choice.get("delta")
        if type(delta) is not dict or len(delta) != 1 or "message" in choice:
            return False
        text = delta.get("content")
        if type(text) is not str or not text:
            return False
        if self._news("answer", data, _ANSWER) or self._news("choice", choice, _CHOICE):
            return False
        self._streams = self.answered = True
        self._characters += len(text)
        if text := self._stops.push(text):
            self._texts.append(text)
        return True

    def _read_all(self, data: dict[str, Any]) -> None:
        self._read_usage(data.get("usage"))
        self._tell("answer", data, _ANSWER)
        choice = _first(data.get("choices"))
        self.answered = self.answered or bool(choice)
        self._tell("choice", choice, _CHOICE)
        delta, message = _dict(choice.get("delta")), _dict(choice.get("message"))
        # some upstreams end a stream with the whole message, of which the deltas said all
        whole = not delta and not self._streams
        self._streams = self._streams or bool(delta)
        self._read_message(message if whole else delta, choice.get("text"), whole=whole)
        if not whole and (calls := message.get("tool_calls")):
            self._add(Chunk(tool_calls=tuple(self._calls.read(calls, whole=True))))
        word = choice.get("finish_reason")
        if self.finish_reason is None and isinstance(word, str) and word:
            if word.lower() in _NO_END:
                raise EngineServerError(f"the upstream broke the answer off ({word.lower()})")
            self.finish_reason = _FINISH.get(word.lower(), "stop")

    def _read_message(self, message: dict[str, Any], text: Any, *, whole: bool) -> None:
        content = message.get("content")
        text = content_text(content or text)
        self._characters += len(text)
        reasoning = _reasoning(message)
        refusal = message.get("refusal")
        refusal = refusal if isinstance(refusal, str) else ""
        calls = message.get("tool_calls")
        self._characters += len(reasoning) + len(refusal)
        further = {k: v for k, v in message.items() if k not in _MESSAGE and v not in _NOTHING}
        self._add(
            Chunk(
                self._stops.push(text),
                tuple(self._calls.read(calls, whole=whole)) if calls else (),
                reasoning=reasoning,
                refusal=refusal,
                annotations=self._annotations(message.get("annotations")),
                extra={"message": further} if further else {},
            )
        )

    def _add(self, chunk: Chunk) -> None:
        if chunk.says_something:
            self._gather()
            self._new.append(chunk)

    def _gather(self) -> None:
        if self._texts:
            self._new.append(Chunk("".join(self._texts)))
            self._texts.clear()

    def _annotations(self, given: Any) -> tuple[dict[str, Any], ...]:
        """Return those that are new: some upstreams repeat all in every event."""
        notes = given if isinstance(given, list) else ()
        new = [note for note in notes if isinstance(note, dict) and note not in self._notes]
        self._notes.extend(new)
        return tuple(new)

    def _tell(self, place: str, data: dict[str, Any], read: frozenset[str]) -> None:
        """Keep fields that Waypost does not read, where they say something new."""
        if new := self._news(place, data, read):
            self._told[place] = self._told[place] | new
            self._extra = joined_extra(self._extra, {place: new})

    def _news(self, place: str, data: dict[str, Any], read: frozenset[str]) -> dict[str, Any]:
        """Return the fields that Waypost does not read and that were not told before."""
        if read.issuperset(data):
            return {}
        told = self._told[place]
        return {
            name: value
            for name, value in data.items()
            if name not in read and value is not None and (name not in told or told[name] != value)
        }

    def take(self) -> Chunk | None:
        """Return what was added since the last time, if anything."""
        self._gather()
        if not self._new:
            return None
        new, self._new = self._new, []
        extra, self._extra = self._extra, {}
        if len(new) == 1 and not extra:
            return new[0]
        found = joined(new)
        return replace(found.to_chunk(), finish_reason=None, usage=None, extra=found.extra | extra)

    def rest(self) -> Chunk | None:
        """Return the text held back for a stop string that did not come."""
        held = self._stops.flush()
        return Chunk(text=held) if held else None

    def last(self, reason: FinishReason | None = None) -> Chunk:
        """Return the last chunk. A usage that was not told is estimated from the characters."""
        made = self._characters + self._calls.characters
        usage = self.usage or Usage(
            estimated_tokens(len(prompt_text(self._request))),
            estimated_tokens(made),
            estimated=True,
        )
        return Chunk(
            finish_reason=reason or self.finish_reason or "stop", usage=usage, extra=self._extra
        )

    def _read_usage(self, usage: Any) -> None:
        if isinstance(usage, dict) and (found := read_usage(usage)) is not None:
            self.usage = found


_NOTHING: tuple[Any, ...] = (None, "", [], {})


def read_usage(told: dict[str, Any]) -> Usage | None:
    """Read OpenAI's ``usage``; None where it has no counts.

    Some upstreams count reasoning beside the completion: it then stands in the total only (xAI,
    Gemini), or exceeds the completion. All that was generated is output here.
    """
    prompt, answer = told.get("prompt_tokens"), told.get("completion_tokens", 0)
    if not is_count(prompt) or not is_count(answer):
        return None
    cached = _count(told, "prompt_tokens_details", "cached_tokens", "prompt_cache_hit_tokens")
    reasoning = _count(told, "completion_tokens_details", "reasoning_tokens")
    total = told.get("total_tokens")
    unseen = total - prompt - answer if is_count(total) else 0
    if unseen > 0 and reasoning in {0, unseen}:
        reasoning, answer = unseen, answer + unseen
    elif reasoning > answer:
        answer += reasoning
    details = {k: v for k, v in told.items() if k not in _USAGE and v not in _NOTHING}
    return Usage(prompt, answer, min(cached, prompt), reasoning, details)


def _count(told: dict[str, Any], details: str, name: str, other: str | None = None) -> int:
    for value in (_dict(told.get(details)).get(name), told.get(name), told.get(other or name)):
        if is_count(value):
            return value
    return 0


def _reasoning(message: dict[str, Any]) -> str:
    """Return visible thinking, whatever the upstream calls it; parts of type thinking: Mistral."""
    for name in ("reasoning_content", "reasoning", "thinking"):
        if isinstance(value := message.get(name), str) and value:
            return value
    content = message.get("content")
    parts = content if isinstance(content, list) else ()
    return "".join(
        content_text(part.get("thinking"))
        for part in parts
        if isinstance(part, dict) and part.get("type") == "thinking"
    )


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _first(choices: Any) -> dict[str, Any]:
    """Return the choice of index 0; one request asks for one."""
    for choice in choices if isinstance(choices, list) else ():
        if isinstance(choice, dict) and choice.get("index", 0) == 0:
            return choice
    return {}
