"""What refusals of upstreams are about, in the words in which users reported them."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from support.fake_upstream import Reply
from waypost.contracts.errors import (
    ContentFilterError,
    ContextLengthError,
    EngineAuthError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
)
from waypost.contracts.generation import GenerateRequest
from waypost.engines._openai_errors import upstream_error
from waypost.engines.base import collect
from waypost.engines.refusals import TABLE, Refusal, refusal_about

ASK = GenerateRequest("r", messages=[{"role": "user", "content": "hello"}])
RAW = {
    "raw": '{"error": {"message": "Unsupported value: \'x\' does not support 0 with this model."}}'
}

SAID = [
    # row 14
    ("context", 400, "prompt is too long: 205000 tokens > 200000 maximum"),
    ("context", 400, {"type": "exceed_context_size_error", "message": "too much"}),
    ("context", 500, {"code": 500, "type": "exceed_context_size_error", "n_ctx": 256}),
    ("context", 500, {"code": 500, "message": "Context size has been exceeded."}),
    ("context", 400, {"code": "context_length_exceeded", "message": "x"}),
    ("context", 400, "This model's maximum context length is 4097 tokens. However, your messages"),
    ("context", 400, "The input token count (314175) exceeds the maximum number of tokens allowed"),
    ("context", 400, "length of prompt_tokens (163280) must be less than max_seq_len (32768)."),
    ("context", 400, "Range of input length should be [1, 129024]"),
    ("context", 413, "Requested tokens (2285) exceed context window of 2048"),
    # rows 9 and 10
    ("content", 400, {"code": "content_filter", "message": "The response was filtered"}),
    ("content", 400, {"innererror": {"code": "ResponsibleAIPolicyViolation"}}),
    ("content", 400, "Content Exists Risk"),
    ("content", 400, {"code": "data_inspection_failed", "message": "x"}),
    ("content", 400, "<400> InternalError.Algo.DataInspectionFailed: Input text data may contain"),
    ("content", 400, "Output blocked by content filtering policy"),
    ("content", 403, 'openai/gpt-4 requires moderation on OpenAI. Your input was flagged for "x".'),
    # row 12
    (
        "llm",
        400,
        "max_tokens is too large: 32000. This model supports at most 16384 completion",
    ),
    ("llm", 400, "Unsupported value: 'temperature' does not support 0.2 with this model."),
    ("llm", 400, "Unsupported parameter: 'temperature' is not supported with this model."),
    ("llm", 400, {"code": "unsupported_value", "message": "x"}),
    ("llm", 400, "This model does not support tools"),
    ("llm", 400, "registry.ollama.ai/library/gemma3:4b does not support tools"),
    ("llm", 400, "Invalid max_tokens value, the valid range of max_tokens is [1, 8192]"),
    ("llm", 400, "max_tokens: 32000 > 8192, which is the maximum allowed number of output tokens"),
    (
        "llm",
        400,
        "`max_completion_tokens` not valid: integer above maximum value, expected <= 12288",
    ),
    ("llm", 400, {"message": "Param Incorrect", "param": "max_tokens is too large: 1048576."}),
    ("llm", 400, '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser'),
    ("llm", 400, "Conversation roles must alternate user/assistant/user/assistant/..."),
    ("llm", 400, "The model `llama-3.2-11b-vision-preview` has been decommissioned"),
    ("llm", 400, "Model Not Exist"),
    ("llm", 400, {"message": "Provider returned error", "code": 400, "metadata": RAW}),
    ("provider", 400, "This response_format type is unavailable now"),
    ("provider", 422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "reasoning"]}]}),
    ("provider", 422, "Failed to deserialize the JSON body into the target type: messages[1]"),
    (
        "provider",
        400,
        'Invalid JSON payload. Unknown name "reasoning": Cannot find field.',
    ),
    ("provider", 400, "User location is not supported for the API use."),
    ("money", 400, "Your credit balance is too low to access the Anthropic API."),
    ("key", 400, "API key not valid. Please pass a valid API key."),
    ("llm", 400, "Your organization must be verified to stream this model."),
    # the request's own, or no refusal of it
    (None, 400, "messages.0.content: expected a string"),
    (None, 400, "Invalid 'temperature': must be at most 2"),
    (None, 429, "context window quota exceeded, try later"),
    (None, 500, "the model does not support tools"),
    (None, 400, None),
    (None, 400, 7),
]
CLASSES = {
    "context": (ContextLengthError, False),
    "content": (ContentFilterError, True),
    "llm": (EngineRequestError, True),
    "provider": (EngineRequestError, True),
    "key": (EngineAuthError, True),
    "money": (EngineRequestError, True),
}


def error_of(said):
    return {"message": said} if isinstance(said, str) else said


@pytest.mark.parametrize(("about", "status", "said"), SAID)
def test_what_a_refusal_is_about(about, status, said):
    assert refusal_about(status, error_of(said)) == about


@pytest.mark.parametrize(("about", "status", "said"), SAID)
def test_the_error_says_whether_another_llm_is_asked(about, status, said):
    error = upstream_error("m at host", status, error_of(said), ASK)
    expected = {429: (EngineOverloadedError, True), 500: (EngineServerError, True)}
    own = CLASSES.get(about) or expected.get(status, (EngineRequestError, False))
    assert (type(error), error.retryable) == own
    assert error.status == (402 if about == "money" else status)


def test_every_line_of_the_table_has_a_source():
    assert all(line.source for line in TABLE)


def test_lines_of_the_file_come_first():
    own = (Refusal(about="request", wording="no tools"), Refusal(about="llm", codes=("E17",)))
    assert (
        refusal_about(400, {"message": "This model does not support: no tools"}, own) == "request"
    )
    assert refusal_about(400, {"code": "e17"}, own) == "llm"
    assert refusal_about(429, {"type": "E17"}, own) == "llm"
    assert refusal_about(400, {"message": "Content Exists Risk"}, own) == "content"


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"about": "llm"}, "give codes or wording"),
        ({"about": "llm", "wording": "("}, "no regular expression"),
        ({"about": "else", "wording": "x"}, "about"),
        ({"about": "llm", "wording": ""}, "at least 1 character"),
    ],
)
def test_a_wrong_line_is_told(fields, problem):
    with pytest.raises(ValidationError, match=problem):
        Refusal.model_validate(fields)


async def test_a_setting_of_the_engine_adds_lines(upstream, engine):
    one = await engine(refusals=[{"about": "content", "wording": "not here"}], max_retries=0)
    upstream.script(Reply(status=400, body={"error": {"message": "Not here, please"}}))
    with pytest.raises(ContentFilterError):
        await collect(one, ASK)


async def test_an_error_in_a_list_is_read(upstream, engine):
    error = {"code": 400, "message": "The input token count (9) exceeds the maximum", "status": "X"}
    upstream.script(Reply(status=400, body=[{"error": error}]))
    with pytest.raises(ContextLengthError):
        await collect(await engine(max_retries=0), ASK)


async def test_a_filter_that_ends_a_stream_is_one(upstream, engine):
    upstream.script(Reply(stream_error={"code": "content_filter", "message": "filtered"}))
    with pytest.raises(ContentFilterError):
        await collect(await engine(max_retries=0), ASK)
