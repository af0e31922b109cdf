"""Cells of the clients that give objects instead of OpenAI's answers: instructor and llm."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from python_clients import LOCAL, MODEL, RESULTS, SCHEMA, Cells, City, usage_of, user


def instructor_cells(url: str) -> Cells:
    from typing import Literal

    import instructor
    from openai import OpenAI

    def client(mode: Any = instructor.Mode.TOOLS) -> Any:
        raw = OpenAI(base_url=url, api_key="sk-x", max_retries=0, timeout=60)
        return instructor.from_openai(raw, mode=mode).chat.completions

    class get_weather(BaseModel):  # noqa: N801 - the name of the tool
        city: Literal["Oslo"]

    class get_time(BaseModel):  # noqa: N801
        tz: Literal["UTC"]

    def made(case: str, mode: Any = instructor.Mode.TOOLS, **fields: Any) -> Any:
        asked = {"model": MODEL, "messages": user(case), "max_retries": 0} | fields
        return client(mode).create_with_completion(**asked)

    def parallel() -> Any:
        from collections.abc import Iterable

        kind = Iterable[get_weather | get_time]
        asked = {"model": MODEL, "messages": user("tools"), "response_model": kind}
        found = list(client(instructor.Mode.PARALLEL_TOOLS).create(**asked))
        return [[type(one).__name__, one.model_dump()] for one in found]

    def partial() -> Any:
        asked = {"model": MODEL, "messages": user("structured"), "response_model": City}
        return list(client().create_partial(**asked))[-1].model_dump()

    def local() -> Any:
        asked = {"model": LOCAL, "temperature": 0, "max_tokens": 60, "response_model": Place}
        found = client(instructor.Mode.JSON_SCHEMA).create(messages=user("x"), **asked)
        return found.model_dump()

    from pydantic import ConfigDict, Field

    class Place(BaseModel):
        model_config = ConfigDict(extra="forbid")  # else a random model adds fields without end
        city: str = Field(max_length=9)
        people: int = Field(ge=0, le=9)  # a random model writes digits without end

    json_schema = instructor.Mode.JSON_SCHEMA

    def message(case: str) -> Any:
        asked = {"model": MODEL, "messages": user(case), "response_model": None}
        return client().create(**asked).choices[0].message

    return {
        ("whole", "whole"): lambda: message("whole").content,
        ("parallel tools", "whole"): parallel,
        ("reasoning", "whole"): lambda: [
            (found := message("reasoning")).reasoning_content,
            found.content,
        ],
        ("refusal", "whole"): lambda: [(m := message("refusal")).refusal, m.content],
        ("structured output", "whole"): lambda: [
            made("structured", response_model=City)[0].model_dump(),
            made("structured", json_schema, response_model=City)[0].model_dump(),
        ][0],
        ("structured output", "stream"): partial,
        ("usage", "whole"): lambda: usage_of(made("structured", response_model=City)[1].usage),
        ("local LLM", "structured"): local,
    }


def llm_cells(url: str) -> Cells:
    import llm

    folder = Path(tempfile.mkdtemp())
    entries = [
        {"model_id": f"wp-{name}", "model_name": name, "api_base": url, "supports_tools": True}
        | {"supports_schema": True, "api_key_name": "wp"}
        for name in (MODEL, LOCAL)
    ]
    # JSON is YAML
    (folder / "extra-openai-models.yaml").write_text(json.dumps(entries))
    (folder / "keys.json").write_text(json.dumps({"wp": "sk-x"}))
    os.environ["LLM_USER_PATH"] = str(folder)

    def ask(case: str, name: str = MODEL, **fields: Any) -> Any:
        os.environ["LLM_USER_PATH"] = str(folder)
        return llm.get_model(f"wp-{name}").prompt(f"Case {case}", key="sk-x", **fields)

    def get_weather(city: str) -> str:
        """Tell the weather."""
        return RESULTS["call_a"] if city == "Oslo" else "?"

    def get_time(tz: str) -> str:
        """Tell the time."""
        return RESULTS["call_b"] if tz == "UTC" else "?"

    def tools(stream: bool) -> Any:
        def run() -> Any:
            model = llm.get_model(f"wp-{MODEL}")
            chain = model.chain(
                "Case tools", tools=[get_weather, get_time], key="sk-x", stream=stream
            )
            responses = list(chain.responses())
            texts = [response.text() for response in responses]
            calls = [
                [call.tool_call_id, call.name, call.arguments] for call in responses[0].tool_calls()
            ]
            return calls if stream else [calls, texts[-1]]

        return run

    def stream() -> str:
        pieces = list(ask("whole", stream=True))
        assert len([piece for piece in pieces if piece]) > 1
        return "".join(pieces)

    def usage(streamed: bool) -> Callable[[], Any]:
        def run() -> Any:
            response = ask("whole", stream=streamed)
            response.text()
            told = response.usage()
            details = told.details or {}
            cached = details.get("prompt_tokens_details", {}).get("cached_tokens")
            reasoning = details.get("completion_tokens_details", {}).get("reasoning_tokens")
            return [told.input, told.output, cached, reasoning]

        return run

    def reasoning(streamed: bool) -> Callable[[], Any]:
        def run() -> Any:
            response = ask("reasoning", stream=streamed)
            text = response.text()
            message = (response.response_json or {})["choices"][0]["message"]
            found = message["reasoning_content"]
            return found if streamed else [found, text]

        return run

    local = {"name": LOCAL, "temperature": 0, "max_tokens": 20, "seed": 1}
    return {
        ("whole", "whole"): lambda: ask("whole", stream=False).text(),
        ("stream", "stream"): stream,
        ("parallel tools", "whole"): tools(False),
        ("parallel tools", "stream"): tools(True),
        ("reasoning", "whole"): reasoning(False),
        ("reasoning", "stream"): reasoning(True),
        ("structured output", "whole"): lambda: json.loads(
            ask("structured", schema=City, stream=False).text()
        ),
        ("structured output", "stream"): lambda: json.loads(
            ask("structured", schema=City, stream=True).text()
        ),
        ("usage", "whole"): usage(False),
        ("usage", "stream"): usage(True),
        ("local LLM", "whole"): lambda: ask("x", stream=False, **local).text(),
        ("local LLM", "stream"): lambda: ask("x", stream=True, **local).text(),
        ("local LLM", "structured"): lambda: json.loads(
            ask("x", stream=False, schema=SCHEMA, **(local | {"max_tokens": 60})).text()
        ),
    }
