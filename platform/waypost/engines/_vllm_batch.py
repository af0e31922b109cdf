"""The thread in which vLLM's event loop runs.

vLLM schedules, prepares and collects each step on the loop that called it. In a loop of its own
that holds up nobody's stream and no health check.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import multiprocessing
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import ExitStack, aclosing
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

from waypost.contracts.errors import (
    ContextLengthError,
    EngineError,
    EngineRequestError,
    EngineServerError,
)
from waypost.engines import _vllm_api as api
from waypost.engines._lm_batch import LiveSequence, down, full, stand_back
from waypost.engines._lm_guided import Guided
from waypost.engines._lm_prompt import ModelText
from waypost.survivors import Watch

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """How the tokens of one answer are chosen.

    Attributes:
        params: vLLM's SamplingParams.
        guided: Sees whether they follow the answer's format; None where it has none.
    """

    params: Any
    guided: Guided | None = None


Sequence = LiveSequence[Choice]

TELLING_S = 3.0
"""Seconds in which vLLM tells its requests of a process that died. Where the process was killed
while it wrote a result, the queue's lock died with it, and 0.6.3 never tells them."""


class VllmBatch:
    """Runs one AsyncLLMEngine.

    Args:
        model: Tokenizer and settings of its model.
        most: Requests that may run or wait.
        nice: How far it stands back behind other threads, on a CPU.
        flush: Called in the thread: hands what was put out to the readers.

    Attributes:
        model: As given.
        output_tokens: Tokens made since the start.
    """

    def __init__(self, model: ModelText, most: int, nice: int, flush: Callable[[], None]) -> None:
        self.model = model
        self.output_tokens = 0
        self._most = most
        self._nice = nice
        self._flush = flush
        self._flushing = False
        self._lock = threading.Lock()
        self._tasks: dict[Sequence, asyncio.Task[None] | None] = {}  # None: not begun
        self._numbers = count()
        self._stopping = False
        self._dead = False
        self._engine: Any = None
        self._ending = ExitStack()

    def start(self, load: Callable[[], Any]) -> None:
        """Load the engine in the thread and begin. Blocks until it is ready.

        Raises:
            WaypostError: as `load` does.
        """
        ready: Future[None] = Future()

        def body() -> None:
            asyncio.run(self._main(load, ready))
            gc.collect()  # 0.6.3 frees a GPU's memory with the engine, which is in a cycle

        self._thread = threading.Thread(target=body, name="waypost-vllm", daemon=True)
        self._thread.start()
        ready.result()

    @property
    def alive(self) -> bool:
        """Whether it takes requests."""
        return self._engine is not None and not self._stopping and not self._errored

    @property
    def _errored(self) -> bool:
        return self._dead or self._engine.errored

    def __len__(self) -> int:
        return len(self._tasks)

    def submit(self, sequence: Sequence) -> None:
        """Let a request wait for its turn; see `Batch.submit`."""
        with self._lock:
            if not self.alive:
                raise self._down()
            if len(self) >= self._most:
                raise full(self.model.name, len(self))
            self._tasks[sequence] = None
            self._loop.call_soon_threadsafe(self._enter, sequence)

    def cancel(self, sequence: Sequence) -> None:
        """Let a request end, in the engine too."""
        with self._lock:
            sequence.cancelled = True
            if not self._stopping:
                self._loop.call_soon_threadsafe(self._cancel, sequence)

    def check(self) -> Future[bool]:
        """Ask whether the engine's processes live."""
        with self._lock:
            if self._stopping:
                gone: Future[bool] = Future()
                gone.set_result(False)
                return gone
            return asyncio.run_coroutine_threadsafe(self._check(), self._loop)

    def stop(self) -> None:
        """End engine and thread; see `Batch.stop`."""
        with self._lock:
            if not self._stopping:
                self._stopping = True
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()

    # What follows runs in the thread.

    async def _main(self, load: Callable[[], Any], ready: Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        others = set(multiprocessing.active_children())
        # The processes that vLLM computes in do not notice that the one that started them was
        # killed: 0.6.3's wait for ever, and keep the model's memory.
        watch = self._ending.enter_context(Watch())
        try:
            if api.on_cpu():
                stand_back(self._nice)
            self._engine = load()
            watch.mark_no_more()
            started = set(multiprocessing.active_children()) - others
            sentinels = [process.sentinel for process in started]
            for sentinel in sentinels:
                self._loop.add_reader(sentinel, self._die, sentinels)
        except BaseException as error:  # noqa: BLE001 - handed to the caller of start
            self._stopping = True
            for process in set(multiprocessing.active_children()) - others:
                process.kill()  # 0.6.3 leaves them waiting for work
                process.join()
            self._ending.close()
            ready.set_exception(error)
            return
        ready.set_result(None)
        await self._stop.wait()
        for sentinel in sentinels:
            self._loop.remove_reader(sentinel)
        tasks = [task for task in self._tasks.values() if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for sequence in self._tasks:
            sequence.fail(self._down())
        self._tasks.clear()
        self._flush()
        engine, self._engine = self._engine, None
        if self._dead:
            api.let_go(engine)
        api.shut_down(engine)
        self._ending.close()
        del engine  # vLLM keeps an error whose frames reach up to this one

    def _die(self, sentinels: Iterable[int]) -> None:
        """Take no more requests, because a process of the engine has ended."""
        for sentinel in sentinels:
            self._loop.remove_reader(sentinel)
        self._dead = True
        self._loop.call_later(TELLING_S, self._tell_all)

    def _tell_all(self) -> None:
        if self._engine is not None:
            api.let_go(self._engine)
        for task in self._tasks.values():
            if task is not None:
                task.cancel()

    def _enter(self, sequence: Sequence) -> None:
        if not self._stopping:
            task = self._loop.create_task(self._generate(sequence))
            task.add_done_callback(partial(self._leave, sequence))
            self._tasks[sequence] = task

    def _cancel(self, sequence: Sequence) -> None:
        if (task := self._tasks.get(sequence)) is not None:
            task.cancel()

    def _leave(self, sequence: Sequence, task: asyncio.Task[None]) -> None:
        # a callback, because a task that is cancelled before its first step runs nothing
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._log(error)
        if not sequence.finished:
            if self._stopping or self._dead:
                sequence.fail(self._down())
            elif error is not None:
                sequence.fail(self._failure(error))
            else:
                sequence.cancel()
        self._tasks.pop(sequence, None)
        self._flush_soon()

    async def _check(self) -> bool:
        if self._dead:
            return False
        try:
            await self._engine.check_health()
        except Exception as error:  # noqa: BLE001 - each version has its own
            logger.error("%s: vLLM is not healthy: %s", self.model.name, error)
            return False
        return True

    async def _generate(self, sequence: Sequence) -> None:
        number = f"waypost-{next(self._numbers)}"
        prompt = {"prompt_token_ids": sequence.prompt}
        seen, ended = 0, False
        try:
            outputs = self._engine.generate(prompt, sequence.sampling.params, number)
            async with aclosing(outputs):
                async for output in outputs:
                    ended = output.finished
                    tokens = output.outputs[0].token_ids  # all so far
                    self._accept(sequence, tokens[seen:])
                    seen = len(tokens)
                    if sequence.finished:
                        return
        finally:
            # leaving the iterator ends the request in some versions and not in others
            if not ended and not self._errored:
                await self._engine.abort(number)
        self._end(sequence, seen)

    def _accept(self, sequence: Sequence, tokens: Any) -> None:
        guided = sequence.sampling.guided
        for token in map(int, tokens):
            self.output_tokens += 1
            if guided is not None and not guided.take(token):
                sequence.fail(
                    EngineServerError(
                        f"{self.model.name}: the answer does not follow its response_format"
                    )
                )
                break
            sequence.accept(token, self.model.end_ids)
            if guided is not None and guided.complete and not sequence.finished:
                sequence.end("stop")  # only an end token could follow
            if sequence.finished:
                break
        self._flush_soon()

    def _end(self, sequence: Sequence, made: int) -> None:
        """End an answer that vLLM ended before its tokens did."""
        if made:
            sequence.end("length")
        else:
            sequence.fail(
                ContextLengthError(
                    f"{self.model.name}: a prompt of {len(sequence.prompt)} tokens exceeds the "
                    "key-value cache; give it more memory, or lower context_length"
                )
            )

    def _flush_soon(self) -> None:
        # once a turn of the loop, for all requests of a step
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._flushing = False
        self._flush()

    def _log(self, error: BaseException) -> None:
        if api.refuses(error):
            return
        if self._errored:
            logger.error("%s: vLLM died: %s", self.model.name, type(error).__name__)
        else:
            logger.error("%s: vLLM failed on a request", self.model.name, exc_info=error)

    def _failure(self, error: BaseException) -> EngineError:
        if api.refuses(error):
            # only the first line: further ones may repeat what the client sent
            told = (
                f"{self.model.name}: vLLM refuses the request: {str(error).partition(chr(10))[0]}"
            )
            return EngineRequestError(told, retryable=True, status=400)
        if self._errored:
            return self._down()
        return EngineServerError(f"{self.model.name}: vLLM failed ({type(error).__name__})")

    def _down(self) -> EngineError:
        return down(self.model.name, crashed=not self._stopping)
