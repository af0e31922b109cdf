"""The contract checks that every engine must pass (see ``waypost.engines.base``).

A test defines an `EngineCase` for its engine and runs each function of `CHECKS` on it:

    @pytest.mark.parametrize("check", CHECKS, ids=check_name)
    async def test_contract(check, case):
        await check(case)
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field

from waypost.contracts.errors import (
    EngineConnectionError,
    EngineError,
    EngineTimeoutError,
    engine_error,
)
from waypost.contracts.generation import Answer, Chunk, GenerateRequest
from waypost.engines.base import Engine, collect

_SOON_S = 30.0


@dataclass(frozen=True)
class Failure:
    """One way to make the engine fail.

    Attributes:
        make: Returns an engine, not started, whose next request fails.
        error: Exact class of the error.
        retryable: Expected ``retryable`` of the error.
    """

    make: Callable[[], Engine]
    error: type[EngineError]
    retryable: bool


@dataclass(frozen=True)
class EngineCase:
    """One engine under test.

    Attributes:
        make: Returns an engine that is not started.
        questions: Three or more different messages, the last one not ASCII. Each answer (of
            `tokens` tokens, if set) has more than 12 tokens and takes more than 40 ms.
        tokens: ``max_tokens`` of the answers; None leaves it to the engine.
        working: Returns the number of requests in progress at the engine's backend.
        produced: Returns the number of tokens generated so far at the engine's backend.
        answers_empty: Whether an empty prompt is answered; otherwise it is refused.
        failures: Ways to make the engine fail.
    """

    make: Callable[[], Engine]
    questions: Sequence[str]
    tokens: int | None
    working: Callable[[Engine], int]
    produced: Callable[[Engine], int]
    answers_empty: bool = True
    failures: Sequence[Failure] = field(default_factory=tuple)

    def ask(self, index: int = 0, **fields: object) -> GenerateRequest:
        """Return a greedy chat request for question `index`."""
        data: dict[str, object] = {
            "request_id": f"request-{index}",
            "messages": [{"role": "user", "content": self.questions[index]}],
            "temperature": 0.0,
        }
        if self.tokens is not None:
            data["max_tokens"] = self.tokens
        return GenerateRequest.from_dict(data | fields)

    @asynccontextmanager
    async def started(self) -> AsyncIterator[Engine]:
        """Start an engine and close it after the block."""
        engine = self.make()
        await engine.start()
        try:
            yield engine
        finally:
            await engine.close()


Check = Callable[[EngineCase], Awaitable[None]]


async def check_exactly_the_last_chunk_ends_the_answer(case: EngineCase) -> None:
    """Only the last chunk has a finish reason and the usage; the other chunks are not empty."""
    async with case.started() as engine:
        chunks = [chunk async for chunk in engine.generate(case.ask())]
    assert chunks
    assert chunks[-1].finish_reason in {"stop", "length"}
    assert chunks[-1].usage is not None
    for chunk in chunks[:-1]:
        assert chunk.finish_reason is None
        assert chunk.usage is None
        assert chunk.text or chunk.tool_calls


async def check_chunks_survive_the_border(case: EngineCase) -> None:
    """Chunks and requests survive a round trip as plain dicts."""
    request = case.ask(stop=["never said"], seed=3)
    assert GenerateRequest.from_dict(request.to_dict()) == request
    async with case.started() as engine:
        async for chunk in engine.generate(request):
            assert Chunk.from_dict(chunk.to_dict()) == chunk


async def check_joined_text_is_the_collected_answer(case: EngineCase) -> None:
    """Greedy answers repeat, and the joined chunks equal the answer of `collect`."""
    async with case.started() as engine:
        texts = [chunk.text async for chunk in engine.generate(case.ask())]
        answer = await collect(engine, case.ask())
    assert "".join(texts) == answer.text
    assert answer.text


async def check_the_whole_answer_is_the_joined_chunks(case: EngineCase) -> None:
    """`answer` says what `generate` does, and fails as it does after the close."""
    async with case.started() as engine:
        joined, whole = await collect(engine, case.ask()), await engine.answer(case.ask())
        await engine.close()
        try:
            await engine.answer(case.ask())
        except EngineConnectionError:
            failed = True
        else:
            failed = False
    assert (whole.text, whole.finish_reason) == (joined.text, joined.finish_reason)
    assert whole.usage.output_tokens > 0
    assert failed, "a closed engine answered"


async def check_cancelling_a_whole_answer_stops_the_work(case: EngineCase) -> None:
    """Cancelling `answer` ends the generation."""
    async with case.started() as engine:
        task = asyncio.create_task(engine.answer(case.ask()))
        await asyncio.sleep(0.02)
        task.cancel()
        await asyncio.wait([task])
        await _work_ends(case, engine)


async def check_usage_is_positive(case: EngineCase) -> None:
    """Both token counts are positive; the output count is at most the answer's bytes plus 1."""
    async with case.started() as engine:
        answer = await collect(engine, case.ask())
    assert answer.usage.input_tokens > 0
    assert 0 < answer.usage.output_tokens <= len(answer.text.encode()) + 1


async def check_max_tokens_ends_with_length(case: EngineCase) -> None:
    """An answer limited to n tokens is a prefix of the whole answer and counts n tokens."""
    async with case.started() as engine:
        whole = await collect(engine, case.ask())
        cut = await collect(engine, case.ask(max_tokens=5))
    assert cut.finish_reason == "length"
    assert cut.usage.output_tokens == 5
    assert whole.text.startswith(cut.text)
    assert len(cut.text) < len(whole.text)


async def check_stop_string_is_no_part_of_the_answer(case: EngineCase) -> None:
    """The answer ends before the first of several stop strings, at any token boundaries."""
    async with case.started() as engine:
        whole = (await collect(engine, case.ask())).text
        middle = len(whole) // 2
        stop = whole[middle : middle + 3]
        later = whole[middle + 4 :]
        request = case.ask(stop=[later, stop] if later else [stop])
        chunks = [chunk async for chunk in engine.generate(request)]
    assert "".join(chunk.text for chunk in chunks) == whole[: whole.find(stop)]
    assert chunks[-1].finish_reason == "stop"


async def check_stop_string_that_never_comes_changes_nothing(case: EngineCase) -> None:
    """Text held back as the possible start of a stop string is returned at the end."""
    async with case.started() as engine:
        whole = await collect(engine, case.ask())
        request = case.ask(stop=[whole.text[-4:] + "\x00"])
        assert (await collect(engine, request)).text == whole.text


async def check_concurrent_requests_do_not_mix(case: EngineCase) -> None:
    """Concurrent requests get the same answers as single ones."""
    numbers = range(len(case.questions))
    async with case.started() as engine:
        alone = [(await collect(engine, case.ask(n))).text for n in numbers]
        together = await asyncio.gather(*(collect(engine, case.ask(n)) for n in numbers))
    assert [answer.text for answer in together] == alone
    assert len(set(alone)) == len(alone)


async def check_closing_the_iterator_stops_the_work(case: EngineCase) -> None:
    """Closing the iterator ends the generation."""
    async with case.started() as engine:
        async with aclosing(engine.generate(case.ask())) as chunks:
            await anext(chunks)
        await _work_ends(case, engine)


async def check_cancelling_the_task_stops_the_work(case: EngineCase) -> None:
    """Cancelling the task (as a client's disconnect does) ends the generation."""
    async with case.started() as engine:
        first = asyncio.Event()
        task = asyncio.create_task(_read(engine, case.ask(), first))
        await asyncio.wait_for(first.wait(), _SOON_S)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await _work_ends(case, engine)


async def check_abort_ends_the_request_as_cancelled(case: EngineCase) -> None:
    """`abort` ends only the given request; unknown ids are ignored."""
    async with case.started() as engine:
        await engine.abort("nobody")
        firsts = [asyncio.Event(), asyncio.Event()]
        tasks = [
            asyncio.create_task(_read(engine, case.ask(n), first)) for n, first in enumerate(firsts)
        ]
        for first in firsts:
            await asyncio.wait_for(first.wait(), _SOON_S)
        await engine.abort("request-0")
        aborted, other = await asyncio.wait_for(asyncio.gather(*tasks), _SOON_S)
        alone = await collect(engine, case.ask(1))
        await _work_ends(case, engine)
    assert aborted.finish_reason == "cancelled"
    assert other.finish_reason != "cancelled"
    assert other.text == alone.text


async def check_request_timeout_is_a_timeout_error(case: EngineCase) -> None:
    """``timeout_s`` ends the call with a retryable EngineTimeoutError and ends the generation."""
    async with case.started() as engine:
        error = await _error(engine, case.ask(timeout_s=0.02))
        await _work_ends(case, engine)
    assert type(error) is EngineTimeoutError
    assert error.retryable


async def check_start_comes_before_use(case: EngineCase) -> None:
    """An engine that is not started refuses requests and is not healthy."""
    engine = case.make()
    assert not await engine.healthy()
    assert type(await _error(engine, case.ask())) is EngineConnectionError
    await engine.close()


async def check_close_ends_running_requests(case: EngineCase) -> None:
    """After `close`, running and later requests raise an EngineConnectionError."""
    engine = case.make()
    await engine.start()
    assert await engine.healthy()
    chunks = engine.generate(case.ask())
    await anext(chunks)
    reading = asyncio.create_task(_rest(chunks))
    await asyncio.sleep(0)
    await engine.close()
    assert type(await asyncio.wait_for(reading, _SOON_S)) is EngineConnectionError
    assert not await engine.healthy()
    assert type(await _error(engine, case.ask())) is EngineConnectionError
    await engine.close()


async def check_unknown_fields_do_no_harm(case: EngineCase) -> None:
    """Unknown fields under ``extra`` do not change the answer."""
    async with case.started() as engine:
        plain = await collect(engine, case.ask())
        extra = await collect(engine, case.ask(extra={"some_new_field": {"deep": [1]}}))
    assert extra.text == plain.text


async def check_empty_prompt(case: EngineCase) -> None:
    """An empty prompt is answered or refused with an error that is not retryable."""
    request = GenerateRequest("empty", prompt="", max_tokens=4, temperature=0.0)
    async with case.started() as engine:
        if case.answers_empty:
            answer = await collect(engine, request)
            assert answer.finish_reason in {"stop", "length"}
        else:
            assert not (await _raised(engine, request)).retryable


async def check_any_script_is_taken(case: EngineCase) -> None:
    """Non-Latin text works, and no chunk contains a part of a character."""
    last = len(case.questions) - 1
    assert not case.questions[last].isascii()
    async with case.started() as engine:
        chunks = [chunk async for chunk in engine.generate(case.ask(last))]
    assert all("\ufffd" not in chunk.text for chunk in chunks)
    assert chunks[-1].usage is not None


async def check_failures_have_their_class(case: EngineCase) -> None:
    """Each failure raises its exact class with ``retryable``, which survives a trip as a dict."""
    for failure in case.failures:
        engine = failure.make()
        await engine.start()
        error = await _raised(engine, case.ask())
        await engine.close()
        assert type(error) is failure.error
        assert error.retryable is failure.retryable
        assert engine_error(error.to_dict()).to_dict() == error.to_dict()


CHECKS: tuple[Check, ...] = tuple(
    function for name, function in sorted(globals().items()) if name.startswith("check_")
)
"""All checks, sorted by name."""


def check_name(check: Check) -> str:
    """Return the name of a check for test ids."""
    return getattr(check, "__name__", "check").removeprefix("check_")


async def _read(engine: Engine, request: GenerateRequest, first: asyncio.Event) -> Answer:
    texts, last = [], Chunk()
    async with aclosing(engine.generate(request)) as chunks:
        async for chunk in chunks:
            first.set()
            texts.append(chunk.text)
            last = chunk
    assert last.finish_reason is not None
    assert last.usage is not None
    return Answer(text="".join(texts), finish_reason=last.finish_reason, usage=last.usage)


async def _rest(chunks: AsyncIterator[Chunk]) -> EngineError | None:
    try:
        async for _ in chunks:
            pass
    except EngineError as error:
        return error
    return None


async def _error(engine: Engine, request: GenerateRequest) -> EngineError | None:
    return await _rest(engine.generate(request))


async def _raised(engine: Engine, request: GenerateRequest) -> EngineError:
    error = await _error(engine, request)
    assert error is not None, "the request succeeded; expected an EngineError"
    return error


async def _work_ends(case: EngineCase, engine: Engine) -> None:
    """Assert that the work ends soon and that no more tokens are generated."""
    async with asyncio.timeout(_SOON_S):
        while case.working(engine):  # noqa: ASYNC110 - another thread or server does the work
            await asyncio.sleep(0.005)
    made = case.produced(engine)
    await asyncio.sleep(0.03)
    assert case.produced(engine) == made
