"""The vllm engine. Tests of tier `engine` run where vLLM is installed: in the environments that
test_engine_vllm_environments.py starts; a real engine takes 20 to 100 s to start, so that they
share two."""

from __future__ import annotations

import asyncio
import dataclasses
import importlib.util
import json
import logging
import multiprocessing
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing

import jsonschema
import pytest
import pytest_asyncio

from waypost.contracts.errors import (
    ConfigError,
    ContextLengthError,
    EngineOverloadedError,
    EngineRequestError,
    EngineServerError,
    MissingExtraError,
    WeightsError,
)
from waypost.contracts.generation import GenerateRequest
from waypost.engines import _vllm_api as api
from waypost.engines import make_engine
from waypost.engines.base import collect
from waypost.engines.vllm import Config, VllmEngine
from waypost.testing.engine_contract import (
    CHECKS,
    EngineCase,
    Failure,
    check_close_ends_running_requests,
    check_name,
)
from waypost.weights import resolve

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
INSTALLED = importlib.util.find_spec("vllm") is not None
REASON = "vLLM is in environments of its own: test_engine_vllm_environments.py"


def real(test):
    """Mark a test that runs vLLM."""
    for mark in (
        pytest.mark.engine,
        pytest.mark.timeout(300),
        pytest.mark.asyncio(loop_scope="module"),
        pytest.mark.skipif(not INSTALLED, reason=REASON),
    ):
        test = mark(test)
    return test


CONFIG = {
    "model": SMOLLM2,
    "dtype": "float32",  # where an answer alone equals the answer in a batch
    "context_length": 1024,
    "threads": 2,
    "nice": 0,  # other tests compute beside it
    "max_output_tokens": 600,
}
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"enum": [7, 20, None]}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
CHOICE = {"enum": ["yes", "no", 7, None]}
QUESTIONS = (
    "What is the capital of France, and what is it known for?",
    "Tell me about the sea in three sentences.",
    "Count from one to twenty in words.",
    "Привет, мир! 日本語で書いてください。 🦊🌍",
)


# What needs no vLLM


def test_arguments_that_have_a_setting_are_refused_with_its_name():
    given = {"max_model_len": 100, "seed": 1}
    with pytest.raises(ConfigError, match="give context_length for max_model_len"):
        make_engine("vllm", {"model": SMOLLM2, "engine_args": given})


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
async def test_without_vllm_the_error_names_the_extra():
    with pytest.raises(MissingExtraError, match=r"waypost\[router-r1\]"):
        await make_engine("vllm", CONFIG).start()


async def test_an_engine_that_is_not_started_is_not_healthy():
    engine = make_engine("vllm", CONFIG)
    assert not await engine.healthy()
    await engine.close()


# One engine for the contract


class Attached(VllmEngine):
    """An engine of its own over the batch of another: started and closed in no time."""

    def __init__(self, config: Config, other: VllmEngine) -> None:
        self._other = other
        super().__init__(config)

    async def start(self) -> None:
        self._events = self._other._events
        self._formats = self._other._formats
        self._batch = self._other._batch

    async def close(self) -> None:
        self._batch = None

    @property
    def _outbox(self):
        return self._other._outbox

    @_outbox.setter
    def _outbox(self, value):
        """The other's is emptied by the batch."""


def make(**config) -> VllmEngine:
    engine = make_engine("vllm", CONFIG | config)
    assert isinstance(engine, VllmEngine)
    return engine


def ask(text: str, number: int = 0, **fields) -> GenerateRequest:
    messages = [{"role": "user", "content": text}]
    return GenerateRequest(f"r{number}", messages=messages, **({"temperature": 0.0} | fields))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared() -> AsyncIterator[VllmEngine]:
    engine = make(max_batch_size=4, response_format="enforce")
    await engine.start()
    yield engine
    await engine.close()


def case_of(engine: VllmEngine, **config) -> EngineCase:
    def attached(**more) -> Attached:
        return Attached(Config.model_validate(CONFIG | config | more), engine)

    return EngineCase(
        make=attached,
        questions=QUESTIONS,
        tokens=24,
        working=lambda one: engine.running,
        produced=lambda one: engine.output_tokens,
        failures=[Failure(lambda: attached(context_length=16), ContextLengthError, False)],
    )


@real
@pytest.mark.parametrize(
    "check", [c for c in CHECKS if c is not check_close_ends_running_requests], ids=check_name
)
async def test_contract(check, shared):
    await check(case_of(shared))


@real
async def test_it_answers(shared):
    answer = await collect(shared, ask("What is the capital of France?", max_tokens=40))
    assert "Paris" in answer.text
    assert answer.finish_reason == "stop"
    assert answer.usage.input_tokens > 30  # the template's own words count
    assert await shared.healthy()


@real
async def test_a_short_request_overtakes_a_long_one_that_started_before(shared):
    async with aclosing(shared.generate(ask("Tell me a long story.", 1, max_tokens=400))) as long:
        await anext(long)
        short = await collect(shared, ask("Say hello.", 2, max_tokens=4))
        assert short.usage.output_tokens <= 4
        rest = [chunk async for chunk in long]
    assert rest[-1].finish_reason in {"stop", "length"}
    assert len(rest) > 4


@real
async def test_a_seed_repeats_and_another_gives_another_answer(shared):
    def drawn(seed: int):
        fields = {"temperature": 1.2, "top_p": 0.95, "seed": seed, "max_tokens": 16}
        return collect(shared, ask("Tell me about the sea.", seed, **fields))

    once, again, other = await drawn(7), await drawn(7), await drawn(8)
    assert once.text == again.text != other.text


@real
async def test_sampling_out_of_range_is_a_request_error(shared):
    with pytest.raises(EngineRequestError, match="top_p"):
        await collect(shared, ask("hello", top_p=1.5, temperature=1.0))


def asked(schema, number: int = 0, text: str = "Who is the queen?", **fields) -> GenerateRequest:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    form = {"type": "json_object"} if schema is None else form
    return ask(text, number, **({"extra": {"response_format": form}} | fields))


@real
async def test_answers_follow_their_schemas_beside_one_that_is_free(shared):
    fields = {"temperature": 1.3, "max_tokens": 60}
    free, *answers = await asyncio.gather(
        collect(shared, ask("Count to nine.", 9, max_tokens=20)),
        *(collect(shared, asked(PERSON, i, seed=i, **fields)) for i in range(2)),
        collect(shared, asked(CHOICE, 3)),
    )
    for schema, answer in zip((PERSON, PERSON, CHOICE), answers, strict=True):
        assert answer.finish_reason == "stop"
        jsonschema.validate(json.loads(answer.text), schema)
    assert answers[0].text != answers[1].text
    assert free.text == (await collect(shared, ask("Count to nine.", 9, max_tokens=20))).text
    chunks = [chunk async for chunk in shared.generate(asked(PERSON, 4, max_tokens=60))]
    texts = [chunk.text for chunk in chunks if chunk.text]
    assert len(texts) > 5
    jsonschema.validate(json.loads("".join(texts)), PERSON)


@real
async def test_an_object_of_any_form_that_the_limit_cuts_off_says_so(shared):
    answer = await collect(shared, asked(None, max_tokens=4))
    assert (answer.finish_reason, answer.usage.output_tokens) == ("length", 4)
    assert answer.text.startswith("{")


@real
@pytest.mark.parametrize(
    ("schema", "told", "another_may"),
    [
        ({"not": {"type": "string"}}, "Unimplemented keys", True),
        ({"type": "nonsense"}, "response_format.json_schema.schema: Invalid type", False),
    ],
    ids=str,
)
async def test_a_schema_that_cannot_be_kept_is_a_request_error(shared, schema, told, another_may):
    with pytest.raises(EngineRequestError, match=told) as caught:
        await collect(shared, asked(schema))
    assert (caught.value.status, caught.value.retryable) == (400, another_may)
    assert await shared.healthy()


@real
async def test_a_schema_deeper_than_vllm_takes_is_a_request_error(shared):
    deep: dict = {"enum": [1]}
    for _ in range(40):
        deep = {"type": "array", "prefixItems": [deep], "minItems": 1}
    if api._own_formats() is None:  # 0.6.3 sees no schema
        assert (await collect(shared, asked(deep, max_tokens=3))).text.startswith("[[")
        return
    with pytest.raises(EngineRequestError, match="nested too deeply") as caught:
        await collect(shared, asked(deep, max_tokens=3))
    assert (caught.value.status, caught.value.retryable) == (400, True)
    assert await shared.healthy()


@real
async def test_formats_are_refused_where_the_setting_says_so(shared):
    refusing = Attached(Config.model_validate(CONFIG), shared)
    await refusing.start()
    with pytest.raises(EngineRequestError, match="set response_format: enforce"):
        await collect(refusing, asked(CHOICE))


@real
async def test_an_answer_that_leaves_its_schema_is_an_error(shared, monkeypatch):
    sampling = api.sampling
    monkeypatch.setattr(api, "sampling", lambda wanted, ends, formats: sampling(wanted, ends, None))
    with pytest.raises(EngineServerError, match="does not follow its response_format"):
        await collect(shared, asked(CHOICE, text="Say hello."))


def hold_lock_of_results(engine: VllmEngine) -> None:
    """Hold what a process of 0.6.3 holds while it writes a result, and keeps where it dies then."""
    executor = getattr(getattr(engine._batch._engine, "engine", None), "model_executor", None)
    if (monitor := getattr(executor, "worker_monitor", None)) is not None:
        assert monitor.result_handler.result_queue._wlock.acquire(timeout=60)


@real
async def test_its_processes_end_when_one_is_killed_and_every_request_is_told(shared, caplog):
    stream = shared.generate(ask("Tell me a long story.", max_tokens=500))
    await anext(stream)
    hold_lock_of_results(shared)
    with caplog.at_level(logging.CRITICAL, "waypost"):
        for process in multiprocessing.active_children():
            os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(EngineServerError, match="restart"):
            _ = [chunk async for chunk in stream]
        assert not await shared.healthy()
        with pytest.raises(EngineServerError, match="restart"):
            await collect(shared, ask("hello"))


# One engine with one place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def single(shared) -> AsyncIterator[VllmEngine]:
    await shared.close()
    engine = make(max_batch_size=1, max_waiting=1)
    await engine.start()
    yield engine
    await engine.close()


@real
async def test_abort_frees_the_place_in_the_engine(single):
    long = asyncio.create_task(collect(single, ask("Tell a long story.", 1, max_tokens=600)))
    while single.output_tokens < 3:
        await asyncio.sleep(0.01)
    waiting = single.generate(ask("Say hello.", 2, max_tokens=2))
    await single.abort("r1")
    async with asyncio.timeout(10):  # the long one would take half a minute
        assert [chunk async for chunk in waiting][-1].usage.output_tokens <= 2
        assert (await long).finish_reason == "cancelled"


@real
async def test_one_request_more_than_may_wait_is_refused_and_a_waiting_one_can_go(single):
    running = single.generate(ask("Tell a long story.", 1, max_tokens=600))
    await anext(running)
    waiting = asyncio.create_task(collect(single, ask("Say hello.", 2, max_tokens=3)))
    while single.running < 2:
        await asyncio.sleep(0.001)
    with pytest.raises(EngineOverloadedError, match="2 requests run or wait"):
        await collect(single, ask("Say hello.", 3))
    await single.abort("r2")
    assert (await waiting).text == ""
    await running.aclose()


@real
async def test_close_ends_running_requests_and_its_processes(single, monkeypatch):
    async def started_already() -> None:
        """The check starts what it makes."""

    monkeypatch.setattr(single, "start", started_already)
    assert multiprocessing.active_children()
    case = case_of(single)
    await check_close_ends_running_requests(dataclasses.replace(case, make=lambda: single))
    assert multiprocessing.active_children() == []


# Models that do not load


@real
async def test_a_folder_that_is_no_model_is_a_weights_error(tmp_path):
    shutil.copytree(resolve(SMOLLM2), tmp_path, dirs_exist_ok=True)
    (tmp_path / "config.json").write_text('{"model_type": "no_such"}')
    with pytest.raises(WeightsError, match="is not a model"):
        await make(model=str(tmp_path)).start()


@real
async def test_weights_cut_short_are_a_weights_error_and_leave_no_process(tmp_path, monkeypatch):
    let_go_of, executors = api._let_go_of, []

    def let_go_of_a_locked_queue(executor):
        """As where the process is killed while it still holds the lock of what it told."""
        if (monitor := getattr(executor, "worker_monitor", None)) is not None:
            executors.append(executor)
            assert monitor.result_handler.result_queue._wlock.acquire(timeout=60)
        let_go_of(executor)

    monkeypatch.setattr(api, "_let_go_of", let_go_of_a_locked_queue)
    model = tmp_path / "model"
    shutil.copytree(resolve(SMOLLM2), model)
    weights = model / "model.safetensors"
    os.truncate(weights, weights.stat().st_size // 2)
    with pytest.raises(WeightsError, match="does not start"):
        await make(model=str(model)).start()
    assert multiprocessing.active_children() == []
    # the end of this process, which waits for queues, is seen by test_engine_vllm_environments.py
    for executor in executors:
        assert executor.worker_monitor.result_handler.result_queue._joincancelled


@real
async def test_an_argument_that_this_vllm_does_not_have_is_a_config_error():
    with pytest.raises(ConfigError, match=r"engine_args\.no_such: vLLM 0\.\d+"):
        await make(engine_args={"no_such": 1}).start()
