"""What the `anthropic` engine makes of a request in OpenAI's form."""

from __future__ import annotations

from typing import Any

import pytest

from waypost.contracts.errors import EngineRequestError
from waypost.contracts.generation import GenerateRequest
from waypost.engines._anthropic_request import Config, messages_body

PNG = "data:image/png;base64,iVBORw0KGgo="
WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says the weather.",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}},
    },
}
CLOCK = {"type": "function", "function": {"name": "clock"}}


def body(*messages: dict[str, Any], config: dict[str, Any] | None = None, **fields: Any) -> Any:
    """Return the body of a request, and the names that it leaves out."""
    settings = Config.model_validate({"model": "claude", **(config or {})})
    asked = list(messages) or [user("hi")]
    request = GenerateRequest("r", messages=asked, **fields)
    return messages_body(request, settings, stream=False)


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def call(id_: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": id_, "type": "function", "function": {"name": name, "arguments": arguments}}


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def test_the_smallest_request():
    sent, left_out = body()
    assert sent == {
        "model": "claude",
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("hi")]}],
    }
    assert left_out == ()


def test_a_completion_is_a_turn_of_the_user():
    config = Config(model="claude", max_tokens=9)
    sent, _ = messages_body(GenerateRequest("r", prompt="Once"), config, stream=True)
    assert sent["messages"] == [{"role": "user", "content": [text("Once")]}]
    assert (sent["max_tokens"], sent["stream"]) == (9, True)


# Roles


def test_system_and_developer_messages_become_the_system_list_in_their_order():
    marked = {**text("Long rules."), "cache_control": {"type": "ephemeral"}}
    sent, _ = body(
        {"role": "system", "content": "Be brief."},
        user("hi"),
        {"role": "developer", "content": [marked, text("")]},
    )
    assert sent["system"] == [text("Be brief."), marked]
    assert sent["messages"] == [{"role": "user", "content": [text("hi")]}]


def test_a_system_message_alone_is_asked_as_the_user():
    sent, _ = body({"role": "system", "content": "Write a poem."})
    assert sent["messages"] == [{"role": "user", "content": [text("Write a poem.")]}]
    assert "system" not in sent


def test_consecutive_turns_of_one_role_are_merged():
    sent, _ = body(
        user("a"),
        user("b"),
        {"role": "assistant", "content": "c"},
        {"role": "assistant", "content": None, "refusal": "no"},
        user("d"),
    )
    said = [(turn["role"], [b["text"] for b in turn["content"]]) for turn in sent["messages"]]
    assert said == [("user", ["a", "b"]), ("assistant", ["c", "no"]), ("user", ["d"])]


def test_an_empty_turn_of_the_assistant_is_left_out():
    sent, _ = body(user("a"), {"role": "assistant", "content": ""}, user("b"))
    assert sent["messages"] == [{"role": "user", "content": [text("a"), text("b")]}]


def test_a_last_turn_of_the_assistant_ends_without_white_space():
    sent, _ = body(user("a"), {"role": "assistant", "content": "The answer is \n"})
    assert sent["messages"][-1]["content"] == [text("The answer is")]


# Tools


def test_tools_calls_and_results():
    sent, left_out = body(
        user("weather here and there?"),
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                call("call_1", "weather", '{"town": "here"}'),
                call("functions.weather:2", "weather", ""),
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "sun"},
        {"role": "tool", "tool_call_id": "functions.weather:2", "content": [text("rain")]},
        user("and now?"),
        tools=[WEATHER, CLOCK],
    )
    assert sent["tools"] == [
        {
            "name": "weather",
            "description": "Says the weather.",
            "input_schema": WEATHER["function"]["parameters"],
        },
        {"name": "clock", "input_schema": {"type": "object", "properties": {}}},
    ]
    other = "functions_weather_2"  # the API takes letters, digits, _ and - only
    assert sent["messages"][1]["content"] == [
        text("I look."),
        {"type": "tool_use", "id": "call_1", "name": "weather", "input": {"town": "here"}},
        {"type": "tool_use", "id": other, "name": "weather", "input": {}},
    ]
    assert sent["messages"][2] == {
        "role": "user",
        "content": [
            {"type": "tool_result", "tool_use_id": "call_1", "content": [text("sun")]},
            {"type": "tool_result", "tool_use_id": other, "content": [text("rain")]},
            text("and now?"),
        ],
    }
    assert left_out == ()


@pytest.mark.parametrize("arguments", ["{not json", "[1]", '"text"'])
def test_arguments_that_are_no_object_are_shown_as_they_were(arguments):
    message = {"role": "assistant", "tool_calls": [call("c", "clock", arguments)]}
    sent, _ = body(user("a"), message, {"role": "tool", "tool_call_id": "c", "content": ""})
    assert sent["messages"][1]["content"][0]["input"] == {"arguments": arguments}
    assert sent["messages"][2]["content"] == [{"type": "tool_result", "tool_use_id": "c"}]


def test_tools_of_earlier_turns_are_described_and_not_called():
    message = {"role": "assistant", "tool_calls": [call("c", "clock", "{}")]}
    sent, _ = body(user("a"), message, {"role": "tool", "tool_call_id": "c", "content": "12"})
    assert sent["tools"] == [{"name": "clock", "input_schema": {"type": "object"}}]
    assert sent["tool_choice"] == {"type": "none"}


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        (None, None),
        ("auto", {"type": "auto"}),
        ("required", {"type": "any"}),
        ("none", {"type": "none"}),
        ({"type": "function", "function": {"name": "clock"}}, {"type": "tool", "name": "clock"}),
    ],
)
def test_tool_choice(choice, sent):
    asked, _ = body(tools=[WEATHER, CLOCK], tool_choice=choice)
    assert asked.get("tool_choice") == sent
    assert "tool_choice" not in body(tool_choice=choice)[0]  # the API refuses it without tools


def test_allowed_tools():
    allowed = {"mode": "required", "tools": [{"type": "function", "function": {"name": "clock"}}]}
    choice = {"type": "allowed_tools", "allowed_tools": allowed}
    sent, _ = body(tools=[WEATHER, CLOCK], tool_choice=choice)
    assert [tool["name"] for tool in sent["tools"]] == ["clock"]
    assert sent["tool_choice"] == {"type": "any"}


@pytest.mark.parametrize(("choice", "kind"), [(None, "auto"), ("required", "any")])
def test_one_call_at_a_time(choice, kind):
    sent, left_out = body(tools=[CLOCK], tool_choice=choice, extra={"parallel_tool_calls": False})
    assert sent["tool_choice"] == {"type": kind, "disable_parallel_tool_use": True}
    assert left_out == ()
    none, _ = body(tools=[CLOCK], tool_choice="none", extra={"parallel_tool_calls": False})
    assert none["tool_choice"] == {"type": "none"}


def test_strict_tools_where_the_llm_knows_them():
    tool = {"type": "function", "function": {"name": "clock", "strict": True}}
    assert body(tools=[tool])[0]["tools"][0]["strict"] is True
    old, _ = body(tools=[tool], config={"structured_outputs": False})
    assert "strict" not in old["tools"][0]


# Parts


def test_images_and_files():
    sent, _ = body(
        user(
            [
                text("look"),
                {"type": "image_url", "image_url": {"url": PNG, "detail": "high"}},
                {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
                {
                    "type": "file",
                    "file": {
                        "filename": "a.pdf",
                        "file_data": "data:application/pdf;base64,JVBERi0=",
                    },
                },
            ]
        )
    )
    assert sent["messages"][0]["content"] == [
        text("look"),
        {
            "type": "image",
            "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="},
        },
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {
            "type": "document",
            "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            "title": "a.pdf",
        },
    ]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
        {"type": "image_url", "image_url": {"url": "ftp://example.com/secret-name"}},
    ],
)
def test_a_part_that_the_api_does_not_take_is_for_the_next_llm(part):
    with pytest.raises(EngineRequestError, match="ask another LLM") as caught:
        body(user([part]))
    assert caught.value.retryable
    assert "secret-name" not in str(caught.value)


# Thinking

THOUGHT = {"type": "thinking", "thinking": "Hm.", "signature": "abc"}
HIDDEN = {"type": "redacted_thinking", "data": "xyz"}


def test_thinking_goes_back_with_its_signature():
    message = {
        "role": "assistant",
        "content": "It is noon.",
        "reasoning_content": "Hm.",
        "thinking_blocks": [{**THOUGHT, "index": 0}, {**HIDDEN, "index": 1}, {"type": "text"}],
    }
    sent, _ = body(user("a"), message, user("b"))
    assert sent["messages"][1]["content"] == [THOUGHT, HIDDEN, text("It is noon.")]


ENABLED = {"type": "enabled", "budget_tokens": 2048}


def test_thinking_of_the_file_and_of_the_request():
    adaptive = {"type": "adaptive"}
    assert body(config={"thinking": adaptive})[0]["thinking"] == adaptive
    own, left_out = body(config={"thinking": adaptive}, extra={"thinking": {"type": "disabled"}})
    assert own["thinking"] == {"type": "disabled"}
    assert left_out == ()


def test_thinking_that_the_api_would_refuse_is_not_asked_for():
    file = {"thinking": ENABLED}
    assert body(config=file)[0]["thinking"] == ENABLED
    assert "thinking" not in body(config=file, max_tokens=2048)[0]
    calls = {"role": "assistant", "tool_calls": [call("c", "clock", "{}")]}
    result = {"role": "tool", "tool_call_id": "c", "content": "12"}
    assert "thinking" not in body(user("a"), calls, result, tools=[CLOCK], config=file)[0]
    calls["thinking_blocks"] = [THOUGHT]
    assert body(user("a"), calls, result, tools=[CLOCK], config=file)[0]["thinking"] == ENABLED


# Fields


@pytest.mark.parametrize(
    ("asked", "sent", "left_out"),
    [
        ({"temperature": 0.0}, {"temperature": 0.0}, ()),
        ({"temperature": 1.7}, {"temperature": 1.0}, ()),
        ({"top_p": 0.5}, {"top_p": 0.5}, ()),
        ({"temperature": 0.2, "top_p": 0.5}, {"temperature": 0.2}, ("top_p",)),
        ({"seed": 3}, {}, ("seed",)),
        ({"extra": {"top_k": 5}}, {"top_k": 5}, ()),
    ],
)
def test_sampling(asked, sent, left_out):
    found, names = body(**asked)
    assert {name: found[name] for name in {"temperature", "top_p", "top_k"} & {*found}} == sent
    assert names == left_out


def test_sampling_while_the_llm_thinks():
    thinks = {"thinking": {"type": "adaptive"}}
    sent, left_out = body(config=thinks, temperature=0.2, top_p=0.5)
    assert not {"temperature", "top_p"} & set(sent)
    assert left_out == ("temperature", "top_p")
    assert body(config=thinks, top_p=0.95)[0]["top_p"] == 0.95


def test_fields_that_an_llm_refuses_are_dropped_by_the_file():
    config = {"drop": ["temperature", "top_k", "stop"]}
    sent, left_out = body(config=config, temperature=0, stop=("x",), extra={"top_k": 5})
    assert not {"temperature", "top_k", "stop_sequences"} & set(sent)
    assert left_out == ("temperature", "top_k")  # the engine itself cuts at stop strings


def test_stop_strings_of_white_space_are_not_sent():
    assert body(stop=("\n\n", "END"))[0]["stop_sequences"] == ["END"]
    assert "stop_sequences" not in body(stop=("\n\n",))[0]


def test_a_json_schema_is_the_output_format():
    schema = {"type": "object", "properties": {}}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    sent, left_out = body(extra={"response_format": wanted})
    assert sent["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert left_out == ()
    old, left_out = body(extra={"response_format": wanted}, config={"structured_outputs": False})
    assert "output_config" not in old
    assert left_out == ("response_format",)


@pytest.mark.parametrize(
    ("kind", "left_out"), [("text", ()), ("json_object", ("response_format",))]
)
def test_other_response_formats(kind, left_out):
    sent, names = body(extra={"response_format": {"type": kind}})
    assert "output_config" not in sent
    assert names == left_out


@pytest.mark.parametrize(("effort", "sent"), [("minimal", "low"), ("high", "high")])
def test_reasoning_effort(effort, sent):
    asked = {"extra": {"reasoning_effort": effort}}
    assert body(**asked, config={"effort": True})[0]["output_config"] == {"effort": sent}
    found, left_out = body(**asked)
    assert "output_config" not in found
    assert left_out == ("reasoning_effort",)


def test_users_tiers_and_fields_of_the_api():
    extra = {"user": "u-1", "service_tier": "default", "cache_control": {"type": "ephemeral"}}
    sent, left_out = body(extra=extra)
    assert sent["metadata"] == {"user_id": "u-1"}
    assert sent["service_tier"] == "standard_only"
    assert sent["cache_control"] == {"type": "ephemeral"}
    assert left_out == ()


def test_what_the_api_lacks_is_left_out_and_named():
    lacking = {"logit_bias": {"1": 2}, "metadata": {"a": "b"}, "service_tier": "flex"}
    extra = {**lacking, "speed": "fast"}
    sent, left_out = body(extra=extra)
    assert set(sent) == {"model", "max_tokens", "messages"}
    assert left_out == ("logit_bias", "metadata", "service_tier", "speed")
    sent, left_out = body(extra=extra, config={"pass_fields": ["speed"]})
    assert sent["speed"] == "fast"
    assert "speed" not in left_out
