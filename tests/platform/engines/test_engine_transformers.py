from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from contextlib import asynccontextmanager

import jsonschema
import pytest
import torch

from waypost.contracts.errors import (
    ContextLengthError,
    EngineConnectionError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    WeightsError,
)
from waypost.contracts.generation import GenerateRequest
from waypost.engines import make_engine
from waypost.engines.base import collect
from waypost.testing.tiny_model import write_tiny_model

pytestmark = pytest.mark.engine  # what generates, even with a tiny model, takes its time

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"


def ask(text: str = "hello there", number: int = 0, **fields) -> GenerateRequest:
    messages = [{"role": "user", "content": text}]
    return GenerateRequest(f"r{number}", messages=messages, **({"temperature": 0.0} | fields))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@asynccontextmanager
async def started(model, **config):
    # "nice": other tests compute beside it
    base = {"device": "cpu", "dtype": "float32", "threads": 1, "nice": 0, "max_output_tokens": 900}
    engine = make_engine("transformers", base | {"model": str(model)} | config)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


async def texts_in_order_of_their_end(engine, *requests) -> list[str]:
    """Start each request when the one before has its first token; return ids as they end."""
    ended: list[str] = []

    async def read(request, first: asyncio.Event) -> None:
        async for _ in engine.generate(request):
            first.set()
        ended.append(request.request_id)

    tasks = []
    for request in requests:
        first = asyncio.Event()
        tasks.append(asyncio.create_task(read(request, first)))
        await first.wait()
    await asyncio.gather(*tasks)
    return ended


# Batching


async def test_a_short_request_overtakes_a_long_one_that_started_before(tiny):
    async with started(tiny) as engine:
        order = await texts_in_order_of_their_end(
            engine, ask("a long one", 1, max_tokens=400), ask("a short one", 2, max_tokens=5)
        )
    assert order == ["r2", "r1"]


async def test_requests_together_share_their_steps(tiny):
    requests = [ask(f"number {n}", n, max_tokens=30) for n in range(8)]
    async with started(tiny) as engine:
        for request in requests:
            await collect(engine, request)
        alone = engine.steps
        await asyncio.gather(*(collect(engine, request) for request in requests))
        together = engine.steps - alone
    assert alone == 8 * 29  # the first token of each comes with its prompt
    assert together < alone / 3


async def test_a_batch_gives_the_greedy_answers_that_generate_gives(tiny):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny)
    tokenizer = AutoTokenizer.from_pretrained(tiny)
    prompts = ["short", "one that is a good deal longer than the others " * 6, "ünïcödé 日本", "x"]
    expected = []
    for prompt in prompts:
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        output = model.generate(ids, max_new_tokens=40, do_sample=False)
        expected.append(tokenizer.decode(output[0, ids.shape[1] :]))
    requests = [
        GenerateRequest(f"r{n}", prompt=prompt, max_tokens=40, temperature=0.0)
        for n, prompt in enumerate(prompts)
    ]
    async with started(tiny, max_batch_size=3, prefill_tokens=16) as engine:
        answers = await asyncio.gather(*(collect(engine, request) for request in requests))
    assert [answer.text for answer in answers] == expected


async def test_what_two_prompts_begin_with_is_read_once(tiny, monkeypatch):
    from waypost.engines._lm_model import LanguageModel

    prompts = ["the same instructions for all: " * 4 + end for end in ("one", "one", "another")]
    requests = [
        GenerateRequest(f"r{n}", prompt=prompt, max_tokens=12, temperature=0.0)
        for n, prompt in enumerate(prompts)
    ]
    alone = []
    for request in requests:
        async with started(tiny) as engine:
            alone.append(await collect(engine, request))
    read: list[int] = []
    forward = LanguageModel.next_logits

    def counting(self, ids, cache):
        read.extend([len(ids[0])] * (len(cache.lengths) == 1))
        return forward(self, ids, cache)

    monkeypatch.setattr(LanguageModel, "next_logits", counting)
    async with started(tiny) as engine:
        answers = [await collect(engine, request) for request in requests]
    assert [answer.text for answer in answers] == [answer.text for answer in alone]
    assert answers[1].usage == answers[0].usage  # what was not read again is counted all the same
    whole = answers[0].usage.input_tokens
    assert read[0] == whole
    rest = [n for n in read[1:] if n > 1]  # a step of the one running request reads 1
    assert len(rest) == 1
    assert rest[0] < whole / 4


async def test_a_request_counts_once_from_its_prompt_to_its_last_token(tiny, monkeypatch):
    from waypost.engines._lm_loop import BatchLoop

    counted: list[int] = []
    accept = BatchLoop._accept

    def counting(self, sequences, logits):
        counted.append(len(self))
        accept(self, sequences, logits)

    monkeypatch.setattr(BatchLoop, "_accept", counting)
    async with started(tiny) as engine:
        await collect(engine, ask(max_tokens=5))
    assert counted == [1] * 5


async def test_a_crash_at_the_first_token_is_told_to_its_request(tiny, monkeypatch, caplog):
    from waypost.engines._lm_loop import BatchLoop

    def crash(self, sequences, logits):
        raise RuntimeError("no token")

    monkeypatch.setattr(BatchLoop, "_accept", crash)
    with caplog.at_level(logging.CRITICAL, "waypost"):
        async with started(tiny) as engine, asyncio.timeout(60):
            with pytest.raises(EngineServerError):
                await collect(engine, ask())


MIXED = {"layer_types": ["sliding_attention", "full_attention"] * 2}


@pytest.mark.parametrize(
    ("config", "model", "facts", "length"),
    [
        ("Gemma3TextConfig", "Gemma3ForCausalLM", MIXED, 30),
        ("Qwen2Config", "Qwen2ForCausalLM", MIXED | {"use_sliding_window": True}, 30),
        # one window for all layers: the engine's context ends with it
        ("MistralConfig", "MistralForCausalLM", {}, 3),
    ],
)
async def test_sliding_windows_give_what_generate_gives(
    tiny, tmp_path, config, model, facts, length
):
    import transformers

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 1, "sliding_window": 8}
    tokens = {"vocab_size": 257, "eos_token_id": 256, "pad_token_id": 256, "bos_token_id": None}
    torch.manual_seed(0)
    settings = sizes | heads | tokens | facts | {"initializer_range": 0.5}
    net = getattr(transformers, model)(getattr(transformers, config)(**settings)).eval()
    net.save_pretrained(tmp_path)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tiny)
    tokenizer.save_pretrained(tmp_path)
    prompts = ["a prompt longer than the window", "of eight"] if facts else ["abc", "d"]
    requests = [
        GenerateRequest(str(n), prompt=prompt, max_tokens=length, temperature=0.0)
        for n, prompt in enumerate(prompts)
    ]
    async with started(tmp_path, prefill_tokens=10) as engine:
        answers = await asyncio.gather(*(collect(engine, request) for request in requests))
    for prompt, answer in zip(prompts, answers, strict=True):
        ids = tokenizer(prompt, return_tensors="pt").input_ids
        output = net.generate(ids, max_new_tokens=length, do_sample=False)
        new = output[0, ids.shape[1] :]
        assert answer.text == tokenizer.decode(new, skip_special_tokens=True)


async def test_one_request_more_than_may_wait_is_refused(tiny):
    async with started(tiny, max_batch_size=1, max_waiting=1) as engine:
        running = engine.generate(ask("first", 1, max_tokens=900))
        await anext(running)
        waiting = asyncio.create_task(collect(engine, ask("second", 2, max_tokens=3)))
        while engine.running < 2:
            await asyncio.sleep(0.001)
        with pytest.raises(EngineOverloadedError, match="2 requests run or wait"):
            await collect(engine, ask("third", 3))
        await running.aclose()
        assert (await waiting).usage.output_tokens == 3


async def test_a_request_that_waits_can_be_cancelled(tiny):
    async with started(tiny, max_batch_size=1) as engine:
        running = engine.generate(ask("first", 1, max_tokens=900))
        await anext(running)
        waiting = asyncio.create_task(collect(engine, ask("second", 2)))
        while engine.running < 2:
            await asyncio.sleep(0.001)
        await engine.abort("r2")
        answer = await waiting
        await running.aclose()
    assert (answer.text, answer.finish_reason) == ("", "cancelled")


async def test_a_crash_fails_every_request_and_the_health(tiny, monkeypatch, caplog):
    async with started(tiny, max_batch_size=2) as engine:
        chunks = [engine.generate(ask(f"number {n}", n, max_tokens=900)) for n in range(2)]
        for stream in chunks:
            await anext(stream)
        waiting = asyncio.create_task(collect(engine, ask("third", 3)))
        while engine.running < 3:
            await asyncio.sleep(0.001)

        def crash(*_: object) -> None:
            raise RuntimeError("out of memory")

        with caplog.at_level(logging.CRITICAL, "waypost"):
            monkeypatch.setattr(engine._batch.model, "next_logits", crash)
            for stream in chunks:
                with pytest.raises(EngineServerError, match="crashed"):
                    _ = [chunk async for chunk in stream]
            with pytest.raises(EngineServerError, match="crashed"):
                await waiting
        assert not await engine.healthy()
        with pytest.raises(EngineServerError, match="restart"):
            await collect(engine, ask())


# Limits and prompts


async def test_max_tokens_defaults_to_what_fits_and_is_bounded(tiny):
    async with started(tiny, context_length=50, max_output_tokens=30) as engine:
        prompt = "x" * 35
        request = GenerateRequest("r", prompt=prompt, temperature=0.0)
        answer = await collect(engine, request)
        assert (answer.usage.input_tokens, answer.usage.output_tokens) == (35, 15)
        assert answer.finish_reason == "length"
        bounded = await collect(engine, GenerateRequest("r", prompt="x", max_tokens=40))
        assert bounded.usage.output_tokens == 30


@pytest.mark.parametrize(("prompt", "max_tokens"), [("x" * 50, None), ("x" * 40, 11)])
async def test_what_does_not_fit_the_context_is_refused(tiny, prompt, max_tokens):
    async with started(tiny, context_length=50) as engine:
        with pytest.raises(ContextLengthError, match="context of 50"):
            await collect(engine, GenerateRequest("r", prompt=prompt, max_tokens=max_tokens))


async def test_max_tokens_below_one_is_refused(tiny):
    async with started(tiny) as engine:
        with pytest.raises(EngineRequestError, match="at least 1"):
            await collect(engine, ask(max_tokens=0))


async def test_messages_go_through_the_chat_template_and_prompts_do_not(tiny):
    async with started(tiny) as engine:
        chat = await collect(engine, ask("hi", max_tokens=8))
        same = GenerateRequest(
            "r", prompt="<|user|>hi\n<|assistant|>", max_tokens=8, temperature=0.0
        )
        assert await collect(engine, same) == chat


async def test_messages_that_the_template_refuses_are_a_request_error(tiny, tmp_path):
    model = write_tiny_model(tmp_path)
    (tmp_path / "chat_template.jinja").write_text("{{ raise_exception(messages[0]['content']) }}")
    async with started(model) as engine:
        with pytest.raises(EngineRequestError, match="chat template refuses") as caught:
            await collect(engine, ask("very private words"))
    assert "private" not in str(caught.value)
    assert caught.value.__context__ is None


async def test_a_folder_that_is_no_model_is_a_weights_error(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(WeightsError):
        async with started(tmp_path):
            pass


async def test_close_frees_the_thread(tiny):
    import threading

    before = threading.active_count()
    async with started(tiny) as engine:
        await collect(engine, ask(max_tokens=2))
        assert "waypost-generate" in {thread.name for thread in threading.enumerate()}
    assert "waypost-generate" not in {thread.name for thread in threading.enumerate()}
    assert threading.active_count() <= before + 2  # asyncio keeps its worker threads
    with pytest.raises(EngineConnectionError):
        await collect(engine, ask())


# Sampling


async def test_a_seed_repeats_whatever_else_is_in_the_batch(tiny):
    async with started(tiny) as engine:
        request = ask("hello", temperature=1.5, top_p=0.95, seed=7, max_tokens=20)
        alone = await collect(engine, request)
        others = [ask(f"other {n}", n + 1, temperature=1.5, max_tokens=20) for n in range(3)]
        together = await asyncio.gather(*(collect(engine, r) for r in [*others, request]))
        assert together[-1].text == alone.text
        another = await collect(engine, ask("hello", temperature=1.5, seed=8, max_tokens=20))
        assert another.text != alone.text


async def test_smollm2_answers_and_a_batch_equals_its_requests_alone():
    # float32: in bfloat16 two nearly equal logits may change places with the batch's size
    questions = ["What is the capital of France?", "What is 2+3?", "Who wrote Hamlet?", "Hi"]
    requests = [ask(text, n, max_tokens=40) for n, text in enumerate(questions)]
    async with started(SMOLLM2) as engine:
        alone = [(await collect(engine, request)).text for request in requests]
        together = await asyncio.gather(*(collect(engine, request) for request in requests))
    assert [answer.text for answer in together] == alone
    assert "Paris" in alone[0]
    assert together[0].finish_reason == "stop"
    assert together[0].usage.input_tokens > 30  # the template's own words count


async def test_smollm2_follows_a_schema_beside_a_free_answer():
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}, "people": {"type": "integer"}},
        "required": ["city", "people"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    asked = "Name the capital of France and how many people live there, as JSON."
    requests = [
        ask(asked, 1, max_tokens=40, extra={"response_format": form}),
        ask(asked, 2, max_tokens=12),
        ask(asked, 3, max_tokens=40, temperature=1.5, seed=1, extra={"response_format": form}),
    ]
    async with started(SMOLLM2, response_format="enforce") as engine:
        first, free, third = await asyncio.gather(*(collect(engine, one) for one in requests))
    assert free.finish_reason == "length"
    assert "Paris" in first.text
    for answer in (first, third):
        jsonschema.validate(json.loads(answer.text), schema)


@pytest.mark.skipif(sys.platform != "linux", reason="priorities of threads are Linux's")
async def test_the_threads_that_compute_stand_back_and_the_event_loop_does_not(tiny):
    before = os.getpriority(os.PRIO_PROCESS, 0)
    async with started(tiny, nice=3) as engine:
        await collect(engine, ask(max_tokens=2))
        named = {
            t.name: os.getpriority(os.PRIO_PROCESS, t.native_id) for t in threading.enumerate()
        }
    assert named["waypost-generate"] == before + 3
    assert named["MainThread"] == before
