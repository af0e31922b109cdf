"""How an engine without a model answers: a script of pieces, played at its pace."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from waypost.contracts.errors import EngineConnectionError, EngineError, EngineTimeoutError
from waypost.contracts.generation import Chunk, FinishReason, GenerateRequest, Usage
from waypost.engines._stops import StopFilter


@dataclass(frozen=True, slots=True)
class Script:
    """What one request is answered with.

    Attributes:
        pieces: The answer, one piece a token.
        input_tokens: What the usage says of the prompt.
        output_tokens: What the usage says of the whole answer; None counts the pieces.
        delay_s: Wait before the first piece.
        token_s: Wait before each piece.
        error: Raised after `error_after` pieces.
        error_after: 0 fails before the first token.
    """

    pieces: Sequence[str]
    input_tokens: int = 0
    output_tokens: int | None = None
    delay_s: float = 0.0
    token_s: float = 0.0
    error: EngineError | None = None
    error_after: int = 0


class Call:
    """One request in progress; its waits end early when it is cancelled or must fail."""

    def __init__(self, request: GenerateRequest) -> None:
        self.request_id = request.request_id
        self._loop = asyncio.get_running_loop()
        timeout_s = request.timeout_s
        self._deadline = None if timeout_s is None else self._loop.time() + timeout_s
        self._cancelled = False
        self._error: EngineError | None = None
        self._sleeper: asyncio.Future[None] | None = None

    async def wait(self, seconds: float) -> bool:
        """Sleep; return True where the request was cancelled meanwhile.

        Raises:
            EngineTimeoutError: when the request's own time is over.
            EngineError: the one given to `end`.
        """
        if self._deadline is not None:
            seconds = min(seconds, self._deadline - self._loop.time())
        if seconds > 0 and not self._cancelled and self._error is None:
            self._sleeper = self._loop.create_future()
            timer = self._loop.call_later(seconds, self._wake)
            try:
                await self._sleeper
            finally:
                timer.cancel()
                self._sleeper = None
        if self._error is not None:
            raise self._error
        late = self._deadline is not None and self._loop.time() >= self._deadline
        if late and not self._cancelled:
            raise EngineTimeoutError("the request's time is over; raise timeout_s")
        return self._cancelled

    def end(self, error: EngineError | None = None) -> None:
        """End the request: by `error`, or as cancelled."""
        self._cancelled, self._error = True, error
        self._wake()

    def _wake(self) -> None:
        if self._sleeper is not None and not self._sleeper.done():
            self._sleeper.set_result(None)


class Calls:
    """The requests an engine is working on.

    Attributes:
        open: False before the engine's start and after its close.
        output_tokens: Tokens made since the start, over all requests.
    """

    def __init__(self, engine: str) -> None:
        self.open = False
        self.output_tokens = 0
        self._engine = engine
        self._running: set[Call] = set()

    def __len__(self) -> int:
        return len(self._running)

    @contextmanager
    def enter(self, request: GenerateRequest) -> Iterator[Call]:
        """Count a request as running for the length of the block.

        Raises:
            EngineConnectionError: where the engine is not open.
        """
        if not self.open:
            raise EngineConnectionError(f"the {self._engine} engine is not started, or closed")
        call = Call(request)
        self._running.add(call)
        try:
            yield call
        finally:
            self._running.discard(call)

    def abort(self, request_id: str) -> None:
        """Cancel the request of that id, if it runs."""
        for call in self._running:
            if call.request_id == request_id:
                call.end()

    def close(self) -> None:
        """Fail what runs and take nothing more."""
        self.open = False
        for call in self._running:
            call.end(EngineConnectionError(f"the {self._engine} engine was closed"))


async def play(
    calls: Calls, request: GenerateRequest, write: Callable[[GenerateRequest], Script]
) -> AsyncGenerator[Chunk, None]:
    """Answer a request by the script that `write` gives for it.

    Raises:
        EngineError: of the script, of `write`, of a time-out or of the engine's close.
    """
    with calls.enter(request) as call:
        script = write(request)
        stops, played = StopFilter(request.stop), 0
        reason: FinishReason = "stop"
        cancelled = await call.wait(script.delay_s)
        for piece in script.pieces:
            if cancelled or stops.stopped:
                break
            if script.error is not None and played >= script.error_after:
                raise script.error
            if request.max_tokens is not None and played >= request.max_tokens:
                reason = "length"
                break
            if cancelled := await call.wait(script.token_s):
                break
            played += 1
            calls.output_tokens += 1
            if text := stops.push(piece):
                yield Chunk(text=text)
        else:
            if script.error is not None and not cancelled:
                raise script.error
        if cancelled:
            reason = "cancelled"
        elif not stops.stopped and (held := stops.flush()):
            yield Chunk(text=held)
        yield _last(script, played, reason)


def _last(script: Script, played: int, reason: FinishReason) -> Chunk:
    whole = played == len(script.pieces) and script.output_tokens is not None
    output_tokens = script.output_tokens if whole else played
    return Chunk(finish_reason=reason, usage=Usage(script.input_tokens, output_tokens or 0))
