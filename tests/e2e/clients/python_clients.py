"""Runs Python clients of OpenAI's API and prints what they saw; for .venv-clients.

python python_clients.py NAME=URL ... prints a line of JSON for each cell: client, server, column,
mode and the value seen (or the error). The values are judged elsewhere (support/clients.py).
"""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")
os.environ |= {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "OPENAI_API_KEY": "sk-none"}

from pydantic import BaseModel  # noqa: E402

RESULTS = {"call_a": "rain", "call_b": "12:00"}
MODEL, LOCAL = "cook", "tiny"
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 9}, "people": {"type": "integer"}},
    "required": ["city", "people"],
    "additionalProperties": False,
}
FORM = {"type": "json_schema", "json_schema": {"name": "City", "strict": True, "schema": SCHEMA}}


class City(BaseModel):
    """A city."""

    city: str
    people: int


def function(name: str, field: str) -> dict[str, Any]:
    parameters = {"type": "object", "properties": {field: {"type": "string"}}, "required": [field]}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [function("get_weather", "city"), function("get_time", "tz")]


def user(case: str) -> list[dict[str, Any]]:
    return [{"role": "user", "content": f"Case {case}"}]


def calls_of(calls: Any) -> list[Any]:
    return [[c.id, c.function.name, json.loads(c.function.arguments)] for c in calls]


def usage_of(usage: Any) -> list[Any]:
    cached = usage.prompt_tokens_details.cached_tokens
    reasoning = usage.completion_tokens_details.reasoning_tokens
    return [usage.prompt_tokens, usage.completion_tokens, cached, reasoning]


Cells = dict[tuple[str, str], Callable[[], Any]]


def plain_cells(create: Callable[..., Any], **more: Any) -> Cells:
    """The cells of a client whose one call gives OpenAI's own objects."""

    def stream(case: str, **fields: Any) -> Iterator[Any]:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        return iter(create(messages=user(case), **options, **more, **fields))

    def whole(case: str, **fields: Any) -> Any:
        return create(messages=user(case), **more, **fields).choices[0].message

    def joined(case: str, field: str, **fields: Any) -> str:
        found = [
            getattr(c.choices[0].delta, field, None) for c in stream(case, **fields) if c.choices
        ]
        return "".join(text or "" for text in found)

    def pieces() -> str:
        found = [c.choices[0].delta.content for c in stream("whole") if c.choices]
        assert len([text for text in found if text]) > 1
        return "".join(text or "" for text in found)

    def tools() -> Any:
        message = whole("tools", tools=TOOLS, parallel_tool_calls=True)
        turn = [*user("tools"), message.model_dump(exclude_none=True)]
        turn += [{"role": "tool", "tool_call_id": i, "content": r} for i, r in RESULTS.items()]
        answer = create(messages=turn, tools=TOOLS, **more).choices[0].message.content
        return [calls_of(message.tool_calls), answer]

    def streamed_tools() -> Any:
        calls: dict[int, list[str]] = {}
        for chunk in stream("tools", tools=TOOLS):
            for call in (chunk.choices[0].delta.tool_calls or ()) if chunk.choices else ():
                found = calls.setdefault(call.index, ["", "", ""])
                found[0] += call.id or ""
                found[1] += call.function.name or ""
                found[2] += call.function.arguments or ""
        return [[id_, name, json.loads(text)] for id_, name, text in calls.values()]

    def local(**fields: Any) -> Any:
        options = {"model": LOCAL, "temperature": 0, "max_tokens": 20, "seed": 1} | fields
        return create(messages=user("x"), **(more | options))

    def local_stream() -> Any:
        chunks = [c for c in local(stream=True) if c.choices]
        return "".join(c.choices[0].delta.content or "" for c in chunks)

    return {
        ("whole", "whole"): lambda: whole("whole").content,
        ("stream", "stream"): pieces,
        ("parallel tools", "whole"): tools,
        ("parallel tools", "stream"): streamed_tools,
        ("reasoning", "whole"): lambda: [
            (message := whole("reasoning")).reasoning_content,
            message.content,
        ],
        ("reasoning", "stream"): lambda: joined("reasoning", "reasoning_content"),
        ("refusal", "whole"): lambda: [(m := whole("refusal")).refusal, m.content],
        ("refusal", "stream"): lambda: joined("refusal", "refusal"),
        ("structured output", "whole"): lambda: json.loads(
            whole("structured", response_format=FORM).content
        ),
        ("structured output", "stream"): lambda: json.loads(
            joined("structured", "content", response_format=FORM)
        ),
        ("usage", "whole"): lambda: usage_of(create(messages=user("whole"), **more).usage),
        ("usage", "stream"): lambda: usage_of(
            [c for c in stream("whole") if getattr(c, "usage", None)][-1].usage
        ),
        ("local LLM", "whole"): lambda: local().choices[0].message.content,
        ("local LLM", "stream"): local_stream,
        ("local LLM", "structured"): lambda: json.loads(
            local(response_format=FORM, max_tokens=60).choices[0].message.content
        ),
    }


def openai_cells(url: str) -> Cells:
    from openai import OpenAI

    client = OpenAI(base_url=url, api_key="sk-x", max_retries=0, timeout=60)
    cells = plain_cells(client.chat.completions.create, model=MODEL)

    def parsed() -> Any:
        done = client.chat.completions.parse(
            model=MODEL, messages=user("structured"), response_format=City
        )
        return done.choices[0].message.parsed.model_dump()

    def parsed_stream() -> Any:
        asked = {"model": MODEL, "messages": user("structured"), "response_format": City}
        with client.chat.completions.stream(**asked) as stream:
            return stream.get_final_completion().choices[0].message.parsed.model_dump()

    return cells | {
        ("structured output", "whole"): parsed,
        ("structured output", "stream"): parsed_stream,
    }


def litellm_cells(url: str) -> Cells:
    import litellm

    def create(model: str, **fields: Any) -> Any:
        named = f"openai/{model}"
        return litellm.completion(
            model=named, api_base=url, api_key="sk-x", num_retries=0, **fields
        )

    return plain_cells(create, model=MODEL)


def langchain_cells(url: str) -> Cells:
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI

    def chat(model: str = MODEL, **fields: Any) -> Any:
        return ChatOpenAI(
            model=model, base_url=url, api_key="sk-x", max_retries=0, stream_usage=True, **fields
        )

    def streamed(case: str, runnable: Any = None) -> Any:
        pieces = list((runnable or chat()).stream(f"Case {case}"))
        whole = pieces[0]
        for piece in pieces[1:]:
            whole = whole + piece
        return whole, len([piece for piece in pieces if piece.content])

    def text_stream() -> str:
        whole, pieces = streamed("whole")
        assert pieces > 1
        return whole.content

    def calls(message: Any) -> list[Any]:
        return [[call["id"], call["name"], call["args"]] for call in message.tool_calls]

    def tools() -> Any:
        bound = chat().bind_tools(TOOLS, parallel_tool_calls=True)
        turn = [HumanMessage("Case tools")]
        turn.append(bound.invoke(turn))
        turn += [ToolMessage(text, tool_call_id=id_) for id_, text in RESULTS.items()]
        return [calls(turn[1]), bound.invoke(turn).content]

    def usage(message: Any) -> list[Any]:
        told = message.usage_metadata
        details = (
            told["input_token_details"]["cache_read"],
            told["output_token_details"]["reasoning"],
        )
        return [told["input_tokens"], told["output_tokens"], *details]

    def refusal(message: Any) -> Any:
        return message.additional_kwargs["refusal"]

    structured = chat().with_structured_output(City)
    local = chat(LOCAL, temperature=0, max_tokens=20, seed=1)
    return {
        ("whole", "whole"): lambda: chat().invoke("Case whole").content,
        ("stream", "stream"): text_stream,
        ("parallel tools", "whole"): tools,
        ("parallel tools", "stream"): lambda: calls(streamed("tools", chat().bind_tools(TOOLS))[0]),
        ("reasoning", "whole"): lambda: [
            (message := chat().invoke("Case reasoning")).additional_kwargs["reasoning_content"],
            message.content,
        ],
        ("reasoning", "stream"): lambda: streamed("reasoning")[0].additional_kwargs[
            "reasoning_content"
        ],
        ("refusal", "whole"): lambda: [
            refusal(message := chat().invoke("Case refusal")),
            message.content or None,
        ],
        ("refusal", "stream"): lambda: refusal(streamed("refusal")[0]),
        ("structured output", "whole"): lambda: structured.invoke("Case structured").model_dump(),
        ("structured output", "stream"): lambda: list(structured.stream("Case structured"))[
            -1
        ].model_dump(),
        ("usage", "whole"): lambda: usage(chat().invoke("Case whole")),
        ("usage", "stream"): lambda: usage(streamed("whole")[0]),
        ("local LLM", "whole"): lambda: local.invoke("Case x").content,
        ("local LLM", "stream"): lambda: streamed("x", local)[0].content,
        ("local LLM", "structured"): lambda: (
            chat(LOCAL, temperature=0, max_tokens=60)
            .with_structured_output(FORM["json_schema"] | {"title": "City"}, method="json_schema")
            .invoke("Case x")
        ),
    }


def clients() -> dict[str, tuple[str, Callable[[str], Cells]]]:
    """Return package and cells of each client."""
    sys.path.insert(0, str(Path(__file__).parent))
    from object_clients import instructor_cells, llm_cells

    return {
        "openai (Python)": ("openai", openai_cells),
        "langchain-openai": ("langchain-openai", langchain_cells),
        "litellm": ("litellm", litellm_cells),
        "instructor": ("instructor", instructor_cells),
        "llm": ("llm", llm_cells),
    }


def main() -> None:
    """Run every cell of every client against every server."""
    servers = dict(argument.split("=", 1) for argument in sys.argv[1:])
    for client, (package, make) in clients().items():
        for server, url in servers.items():
            for (column, mode), run in make(url).items():
                if column == "local LLM" and server == "direct":
                    continue
                found: dict[str, Any] = {}
                try:
                    found["seen"] = run()
                except Exception as error:  # noqa: BLE001 - whatever a client raises is its cell
                    last = traceback.extract_tb(error.__traceback__)[-1]
                    found["error"] = f"{type(error).__name__}: {str(error)[:300]} ({last.name})"
                head = {"client": client, "version": version(package), "server": server}
                print(json.dumps(head | {"column": column, "mode": mode} | found), flush=True)


if __name__ == "__main__":
    main()
