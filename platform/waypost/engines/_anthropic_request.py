"""Requests in OpenAI's form to bodies of the Messages API."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field

from waypost.contracts.errors import EngineRequestError
from waypost.contracts.generation import GenerateRequest
from waypost.engines._http_wire import HTTPConfig

Block = dict[str, Any]
"""A block of content: an object with a ``type``."""

NATIVE = frozenset({"cache_control", "container", "inference_geo", "output_config", "top_k"})
"""Fields of the Messages API that OpenAI's lacks. They pass as they are, as does ``thinking``."""

THINKING = frozenset({"thinking", "redacted_thinking"})

_TIERS = {"auto": "auto", "default": "standard_only"}
_DATA_URL = re.compile(r"data:([^;,]+);base64,(.*)", re.S)
_NO_ID = re.compile(r"[^a-zA-Z0-9_-]")


class Config(HTTPConfig):
    """Settings of the `anthropic` engine."""

    base_url: str = "https://api.anthropic.com/v1"
    """Up to and with the version of the path."""

    version: str = "2023-06-01"
    """Version of the API, the header ``anthropic-version``. Betas go into ``headers``."""

    max_tokens: int = Field(default=4096, ge=1)
    """Limit of an answer whose request names none, because the API needs one."""

    thinking: dict[str, Any] | None = None
    """What every request asks of extended thinking, such as ``{type: adaptive}``; a request's own
    ``thinking`` (under ``waypost.extra``) replaces it. None asks for none."""

    effort: bool = False
    """Whether ``reasoning_effort`` is sent, as ``output_config.effort``. Older LLMs refuse it."""

    structured_outputs: bool = True
    """Whether JSON schemas of ``response_format`` and ``strict`` of tools are sent. Older LLMs
    refuse them."""

    drop: list[Literal["temperature", "top_p", "top_k", "stop"]] = Field(default_factory=list)
    """Fields that the LLM refuses and that are therefore never sent."""

    pass_fields: list[str] = Field(default_factory=list)
    """Further fields under ``waypost.extra`` that pass as they are, such as those of a beta."""


def messages_body(
    request: GenerateRequest, config: Config, *, stream: bool
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the JSON body, and the sorted names of the request's fields that it leaves out.

    System and developer messages become ``system``; consecutive turns of one role become one,
    results of tools a part of the user's.

    Raises:
        EngineRequestError: a message holds what the Messages API does not take; another LLM may.
    """
    extra, dropped = dict(request.extra), set(config.drop)
    system, turns = _turns(request)
    max_tokens = request.max_tokens or config.max_tokens
    thinking = extra.pop("thinking", None) or _thinking(config, turns, max_tokens)
    body: dict[str, Any] = {
        "model": config.model,
        "max_tokens": max_tokens,
        "messages": turns,
        "system": system,
        "thinking": thinking,
        "stop_sequences": [text for text in request.stop if text.strip()],
        "stream": stream or None,
        **_sampling(request, thinking is not None and thinking.get("type") != "disabled"),
        **_tools(request, turns, extra, strict=config.structured_outputs),
        **{name: extra.pop(name) for name in (NATIVE | {*config.pass_fields}) & {*extra}},
    }
    if output := _output(extra, config):
        body["output_config"] = {**output, **(body.get("output_config") or {})}
    if user := extra.pop("safety_identifier", None) or extra.get("user"):
        body["metadata"] = {"user_id": user}
        extra.pop("user", None)
    if tier := _TIERS.get(str(extra.get("service_tier"))):
        body["service_tier"] = tier
        del extra["service_tier"]
    for name in dropped:
        body.pop("stop_sequences" if name == "stop" else name, None)
    asked = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "seed": request.seed,
        "top_k": request.extra.get("top_k"),
    }
    left_out = {name for name, value in asked.items() if value is not None and name not in body}
    body = {name: value for name, value in body.items() if value not in (None, [], ())}
    return body, tuple(sorted(left_out | {*extra}))


def _sampling(request: GenerateRequest, thinks: bool) -> dict[str, Any]:
    """Return temperature or top_p.

    LLMs since 4.1 refuse both together and, while they think, any temperature but 1 and a top_p
    below 0.95.
    """
    temperature, top_p = request.temperature, request.top_p
    if thinks:
        return {"top_p": top_p} if top_p is not None and top_p >= 0.95 else {}
    if temperature is not None:
        return {"temperature": min(1.0, temperature)}
    return {} if top_p is None else {"top_p": top_p}


def _thinking(config: Config, turns: list[Block], max_tokens: int) -> dict[str, Any] | None:
    """Return the file's thinking, or None where the API would refuse it for this request."""
    wanted = config.thinking
    if wanted is None or wanted.get("type") != "enabled":
        return wanted
    budget = wanted.get("budget_tokens")
    if isinstance(budget, int) and budget >= max_tokens:
        return None
    # a turn with calls of tools has to begin with the thinking that led to them
    last = next((turn for turn in reversed(turns) if turn["role"] == "assistant"), None)
    kinds = [block["type"] for block in last["content"]] if last else []
    return None if "tool_use" in kinds and kinds[0] not in THINKING else wanted


def _output(extra: dict[str, Any], config: Config) -> dict[str, Any]:
    output: dict[str, Any] = {}
    if config.effort and (effort := extra.pop("reasoning_effort", None)):
        output["effort"] = "low" if effort in {"none", "minimal"} else effort
    wanted = extra.get("response_format")
    kind = wanted.get("type") if isinstance(wanted, dict) else None
    schema = (wanted or {}).get("json_schema") if kind == "json_schema" else None
    if config.structured_outputs and isinstance(schema, dict) and "schema" in schema:
        output["format"] = {"type": "json_schema", "schema": schema["schema"]}
        del extra["response_format"]
    elif kind == "text":
        del extra["response_format"]
    return output


# Tools


def _tools(
    request: GenerateRequest, turns: list[Block], extra: dict[str, Any], *, strict: bool
) -> dict[str, Any]:
    parallel = extra.pop("parallel_tool_calls", None)
    tools = [_tool(tool, strict) for tool in request.tools or ()]
    choice = _choice(request.tool_choice)
    if not tools:
        # the API wants the tools of earlier turns described, though none may be called now
        used = {b["name"]: None for t in turns for b in t["content"] if b["type"] == "tool_use"}
        tools = [{"name": name, "input_schema": {"type": "object"}} for name in used]
        choice = {"type": "none"}
    elif isinstance(request.tool_choice, Mapping) and (names := _allowed(request.tool_choice)):
        tools = [tool for tool in tools if tool["name"] in names]
    if not tools:
        return {}
    if parallel is False and (choice or {}).get("type") != "none":
        choice = {**(choice or {"type": "auto"}), "disable_parallel_tool_use": True}
    return {"tools": tools, "tool_choice": choice}


def _tool(tool: Mapping[str, Any], strict: bool) -> dict[str, Any]:
    function = tool.get("function") or {}
    made = {
        "name": function.get("name"),
        "description": function.get("description"),
        "input_schema": function.get("parameters") or {"type": "object", "properties": {}},
        "strict": function.get("strict") or None if strict else None,
        "cache_control": tool.get("cache_control") or function.get("cache_control"),
    }
    return {name: value for name, value in made.items() if value is not None}


def _choice(choice: str | Mapping[str, Any] | None) -> dict[str, Any] | None:
    if isinstance(choice, Mapping):
        if name := (choice.get("function") or {}).get("name"):
            return {"type": "tool", "name": name}
        choice = (choice.get("allowed_tools") or {}).get("mode")
    kinds = {"auto": "auto", "required": "any", "none": "none"}
    return {"type": kinds[choice]} if choice in kinds else None


def _allowed(choice: Mapping[str, Any]) -> set[str | None]:
    tools = (choice.get("allowed_tools") or {}).get("tools") or ()
    return {(tool.get("function") or {}).get("name") for tool in tools}


# Messages


def _turns(request: GenerateRequest) -> tuple[list[Block], list[Block]]:
    """Return the blocks of ``system``, and the turns, each with a list of blocks."""
    if request.messages is None:
        return [], [{"role": "user", "content": [_text(request.prompt or "")]}]
    system: list[Block] = []
    turns: list[Block] = []
    for message in request.messages:
        role = message.get("role")
        if role in {"system", "developer"}:
            system += _blocks(message.get("content"))
            continue
        blocks = _READ.get(str(role), _user)(message)
        role = "assistant" if role == "assistant" else "user"
        if turns and turns[-1]["role"] == role:
            turns[-1]["content"] += blocks
        elif blocks or role == "user":
            turns.append({"role": role, "content": blocks})
    if not turns:  # a conversation of a system message alone: the API wants a user's
        return [], [{"role": "user", "content": system or [_text("")]}]
    for turn in turns:
        turn["content"] = turn["content"] or [_text("")]  # which the API refuses, with its reason
    if turns[-1]["role"] == "assistant" and turns[-1]["content"][-1]["type"] == "text":
        last = turns[-1]["content"][-1]
        last["text"] = last["text"].rstrip()  # the API refuses to continue after white space
    return system, turns


def _user(message: Mapping[str, Any]) -> list[Block]:
    return _blocks(message.get("content"))


def _assistant(message: Mapping[str, Any]) -> list[Block]:
    given = message.get("thinking_blocks")
    thoughts = given if isinstance(given, list) else []
    blocks = [
        {name: value for name, value in block.items() if name != "index"}
        for block in thoughts
        if isinstance(block, dict) and block.get("type") in THINKING
    ]
    blocks += _blocks(message.get("content"))
    if isinstance(refusal := message.get("refusal"), str) and refusal:
        blocks.append(_text(refusal))
    calls = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    ids = [_id(call.get("id")) for call in message.get("tool_calls") or ()]
    for call_id, function in zip(ids, calls, strict=True):
        arguments = _arguments(function.get("arguments"))
        name = str(function.get("name"))
        blocks.append({"type": "tool_use", "id": call_id, "name": name, "input": arguments})
    return blocks


def _result(message: Mapping[str, Any]) -> list[Block]:
    content = _blocks(message.get("content"))
    result = {"type": "tool_result", "tool_use_id": _id(message.get("tool_call_id"))}
    return [{**result, "content": content} if content else result]


_READ = {"assistant": _assistant, "tool": _result}


def _id(given: object) -> str:
    """Return an id as the API takes it; other providers use more characters."""
    return _NO_ID.sub("_", str(given or "")) or "unnamed"


def _arguments(given: object) -> dict[str, Any]:
    # an LLM may have written what is no JSON object; the next turn shows it as it was
    try:
        read = json.loads(given) if isinstance(given, str) and given.strip() else given or {}
    except ValueError:
        read = None
    return read if isinstance(read, dict) else {"arguments": given}


def _blocks(content: object) -> list[Block]:
    if isinstance(content, str):
        return [_text(content)] if content else []
    parts: Iterable[Any] = content if isinstance(content, list) else ()
    return [block for part in parts if (block := _block(part))]


def _block(part: Mapping[str, Any]) -> Block | None:
    """Return the block of a part, or None for an empty text, which the API refuses."""
    kind = part.get("type")
    if kind in {"text", "refusal"}:
        block = _text(part.get(kind) or "") if part.get(kind) else None
    elif kind == "image_url":
        block = {"type": "image", "source": _source((part.get(kind) or {}).get("url"), kind)}
    elif kind == "file":
        file = part.get(kind) or {}
        block = {"type": "document", "source": _source(file.get("file_data"), kind)}
        if name := file.get("filename"):
            block["title"] = name
    else:
        raise _untaken(f"a part of type {kind!r}", "text, image_url and file")
    if block and (mark := part.get("cache_control")):
        block["cache_control"] = mark
    return block


def _source(url: object, kind: str) -> Block:
    if isinstance(url, str):
        if found := _DATA_URL.fullmatch(url):
            return {"type": "base64", "media_type": found[1], "data": found[2]}
        if url.startswith(("https://", "http://")):
            return {"type": "url", "url": url}
    raise _untaken(f"a part of type {kind!r} without a URL or base64 data", "one of both")


def _untaken(found: str, expected: str) -> EngineRequestError:
    message = f"messages: {found}; the Messages API takes {expected}; ask another LLM"
    return EngineRequestError(message, retryable=True)


def _text(text: str) -> Block:
    return {"type": "text", "text": text}
