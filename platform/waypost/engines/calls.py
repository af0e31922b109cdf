"""What an engine is written with: running requests that end early, stop strings, message texts.

An engine of another distribution may use all of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from waypost.contracts.errors import EngineConnectionError, EngineError, EngineTimeoutError
from waypost.contracts.generation import Chunk, FinishReason, GenerateRequest, Usage

ResultT = TypeVar("ResultT")

_PIECE = re.compile(r"\s*\S{1,16}|\s+")
_FINE = 8_192
_BLOCK = 1_024


class Cancelled(Exception):  # noqa: N818 - no failure: the answer ends with this finish reason
    """The request was aborted. Does not leave the engine."""


class Call:
    """One request in progress.

    Attributes:
        deadline: When its whole time is over, on the event loop's clock; None for never.
    """

    def __init__(self, request: GenerateRequest, limit_s: float | None) -> None:
        self.request_id = request.request_id
        self._loop = asyncio.get_running_loop()
        limits = [limit for limit in (request.timeout_s, limit_s) if limit is not None]
        self.deadline = self._loop.time() + min(limits) if limits else None
        self._scope: asyncio.Timeout | None = None
        self._end: Exception | None = None

    async def result(
        self, work: Awaitable[ResultT], within_s: float | None = None, late: str = ""
    ) -> ResultT:
        """Await something for as long as the request lives.

        Args:
            work: What to await; cancelled when the request ends.
            within_s: Seconds it may take; the request's deadline holds besides.
            late: What the time-out says when `within_s` is over.

        Raises:
            EngineTimeoutError: when the time is over.
            Cancelled: when the request was aborted.
            EngineError: the one given to `end`.
        """
        limits = [] if self.deadline is None else [self.deadline]
        if within_s is not None:
            limits.append(self._loop.time() + within_s)
        until = min(limits) if limits else None
        try:
            async with asyncio.timeout_at(until) as scope:
                self._scope = scope
                if self._end is not None:
                    scope.reschedule(self._loop.time())
                result = await work
        except TimeoutError:
            if not scope.expired():
                raise  # the work's own
        else:
            return result
        finally:
            self._scope = None
        self.check()
        raise EngineTimeoutError(late or "the request's time is over; raise timeout_s")

    async def sleep(self, seconds: float) -> None:
        """Wait, or look only whether the request goes on where there is nothing to wait."""
        if seconds > 0:
            await self.result(asyncio.sleep(seconds))
        self.check()

    def check(self) -> None:
        """Raise what ends the request, if something does."""
        if self._end is not None:
            raise self._end
        if self.deadline is not None and self._loop.time() >= self.deadline:
            raise EngineTimeoutError("the request's time is over; raise timeout_s")

    def end(self, why: EngineError | Cancelled) -> None:
        """End the request, also in the middle of what it awaits."""
        self._end = why
        if self._scope is not None and not self._scope.expired():
            self._scope.reschedule(self._loop.time())


class Calls:
    """The requests that run now.

    Attributes:
        open: False before the engine's start and after its close.
        output_tokens: Tokens made or passed on since the start, over all requests.
    """

    def __init__(self, engine: str) -> None:
        self.open = False
        self.output_tokens = 0
        self._engine = engine
        self._running: set[Call] = set()

    def __len__(self) -> int:
        return len(self._running)

    @contextmanager
    def enter(self, request: GenerateRequest, limit_s: float | None = None) -> Iterator[Call]:
        """Count a request as running for the length of the block.

        Args:
            request: Its ``timeout_s`` and `limit_s` bound the whole call; the shorter holds.
            limit_s: The engine's own limit.

        Raises:
            EngineConnectionError: where the engine is not open.
        """
        if not self.open:
            raise EngineConnectionError(f"the {self._engine} engine is not started, or closed")
        call = Call(request, limit_s)
        self._running.add(call)
        try:
            yield call
        finally:
            self._running.discard(call)

    def abort(self, request_id: str) -> None:
        """Cancel the request of that id, if it runs."""
        for call in self._running:
            if call.request_id == request_id:
                call.end(Cancelled())

    def close(self) -> None:
        """Fail what runs and take nothing more."""
        self.open = False
        for call in self._running:
            call.end(EngineConnectionError(f"the {self._engine} engine was closed"))


class StopFilter:
    """Lets text through up to the first stop string, and never a part of one.

    Text that may be the beginning of a stop string is held back until the next piece decides.
    Empty stop strings are ignored.

    Attributes:
        stopped: True once a stop string was found; everything later is dropped.
    """

    def __init__(self, stops: Iterable[str] = ()) -> None:
        self.stopped = False
        self._stops = tuple(stop for stop in stops if stop)
        self._held = ""

    def push(self, text: str) -> str:
        """Take the next piece; return what may be shown now."""
        if not self._stops:
            return text
        if self.stopped:
            return ""
        text, self._held = self._held + text, ""
        found = [at for stop in self._stops if (at := text.find(stop)) >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        if keep:
            text, self._held = text[:-keep], text[-keep:]
        return text

    def flush(self) -> str:
        """Return what was held back, at the end of an answer that no stop string ended."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Return the length of the longest end of `text` that begins `stop` (but is not all of it)."""
    longest = min(len(text), len(stop) - 1)
    return next((size for size in range(longest, 0, -1) if text.endswith(stop[:size])), 0)


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
        end = len(script.pieces) if script.error is None else script.error_after
        limit = end if request.max_tokens is None else min(end, request.max_tokens)
        reason: FinishReason = "stop" if limit == len(script.pieces) else "length"
        try:
            await call.sleep(script.delay_s)
            while played < limit and not stops.stopped:
                await call.sleep(script.token_s)
                text = stops.push(script.pieces[played])
                played += 1
                calls.output_tokens += 1
                if text:
                    yield Chunk(text=text)
            if script.error is not None and played == end and not stops.stopped:
                raise script.error
            if stops.stopped:
                reason = "stop"
            elif held := stops.flush():
                yield Chunk(text=held)
        except Cancelled:
            reason = "cancelled"
        yield _last(script, played, reason)


def _last(script: Script, played: int, reason: FinishReason) -> Chunk:
    whole = played == len(script.pieces) and script.output_tokens is not None
    output_tokens = script.output_tokens if whole else played
    return Chunk(finish_reason=reason, usage=Usage(script.input_tokens, output_tokens or 0))


def content_text(content: Any) -> str:
    """Return the text of a message's content: a string, a list of parts, or nothing."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text") for part in content if isinstance(part, dict))
        return "".join(text for text in parts if isinstance(text, str))
    return ""


def prompt_text(request: GenerateRequest) -> str:
    """Return everything the request says, messages joined by newlines."""
    if request.messages is None:
        return request.prompt or ""
    return "\n".join(content_text(message.get("content")) for message in request.messages)


def last_user_text(request: GenerateRequest) -> str:
    """Return the last message of the user, or the prompt; empty where there is neither."""
    for message in reversed(request.messages or []):
        if message.get("role") == "user":
            return content_text(message.get("content"))
    return request.prompt or ""


def pieces(text: str) -> list[str]:
    """Cut a text into words with the space before them; joined they are the text.

    They stand for tokens where there is no tokenizer. A word of more than 16 characters is cut,
    so that text in a script without spaces has pieces too. What follows the first 8,192 characters
    is cut into blocks of 1,024: playing a million words of one prompt would hold up everybody.
    """
    found: list[str] = _PIECE.findall(text[:_FINE])
    found.extend(text[at : at + _BLOCK] for at in range(_FINE, len(text), _BLOCK))
    return found
