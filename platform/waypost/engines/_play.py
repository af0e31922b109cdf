"""How an engine without a model answers: a script of pieces, played at its pace."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass

from waypost.contracts.errors import EngineError
from waypost.contracts.generation import Chunk, FinishReason, GenerateRequest, Usage
from waypost.engines._calls import Calls, Cancelled
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
