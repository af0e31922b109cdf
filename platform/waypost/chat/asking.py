"""Asking the gateway: one answer or two at the same time, and stopping them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from waypost.chat.client import GatewayClient
from waypost.chat.talk import Answer, Talk
from waypost.contracts.errors import WaypostError
from waypost.secrets import Secret

SHOW_EVERY_S = 0.06
"""Least time between two pictures of a stream: more often nobody can see."""


PAUSE = 2.0
"""Least pause between two pictures, in times of the last one's own time."""


@dataclass(frozen=True)
class Wishes:
    """How questions are asked.

    Attributes:
        lam: Cost weight.
        route_on: ``current_only``, ``full_context`` or ``retrieval``.
        top_k: Earlier turns that ``retrieval`` takes.
        user_id: Whose turns and feedback they are.
        key: The client's key.
    """

    lam: float | None = None
    route_on: str | None = None
    top_k: int | None = None
    user_id: str | None = None
    key: Secret | None = None


def routing_fields(wishes: Wishes, talk: Talk, side: int) -> dict[str, Any]:
    """Return what stands under ``waypost`` of a request."""
    # each side of a comparison is a conversation of its own
    session = talk.id if talk.view == "chat" else f"{talk.id}-{'ab'[side]}"
    fields = {
        "lambda": wishes.lam,
        "route_on": wishes.route_on,
        "top_k": wishes.top_k if wishes.route_on == "retrieval" else None,
        "user_id": wishes.user_id,
        "session_id": session,
        "session_token": talk.session_token(side),
    }
    return {name: value for name, value in fields.items() if value is not None}


def body_of(wishes: Wishes, talk: Talk, side: int) -> dict[str, Any]:
    """Return the body of a request for the answer of a side."""
    return {
        "model": talk.turns[-1].answers[side].asked,
        "messages": talk.messages(side),
        "stream": True,
        "stream_options": {"include_usage": True},
        "waypost": {**routing_fields(wishes, talk, side), "explain": True, "progress": True},
    }


class Asking:
    """The answers of one turn while they are written.

    Attributes:
        answers: Those that are filled.
        begun: Whether `pictures` was called.

    Args:
        client: The gateway.
        answers: Answers to fill, one for each body.
        bodies: What to send for each.
        key: The client's key.
    """

    def __init__(
        self,
        client: GatewayClient,
        answers: Sequence[Answer],
        bodies: Sequence[Mapping[str, Any]],
        key: Secret | None = None,
    ) -> None:
        self._client, self._key = client, key
        self.answers = tuple(answers)
        self._work = list(zip(answers, bodies, strict=True))
        self.begun = False
        self._changed = asyncio.Event()
        self._stopped = asyncio.Event()

    def stop(self) -> None:
        """End all answers now; the LLMs stop, too."""
        self._stopped.set()
        self._changed.set()

    async def pictures(self) -> AsyncGenerator[None, None]:
        """Yield whenever something is new to be shown, and a last time at the end.

        Closing the generator stops the answers. It waits the longer between two pictures, the
        longer they take: where many users stream, each sees fewer.
        """
        self.begun = True
        tasks = [asyncio.create_task(self._fill(*work)) for work in self._work]
        try:
            while not (self._stopped.is_set() or all(task.done() for task in tasks)):
                await self._changed.wait()
                self._changed.clear()
                begin = time.perf_counter()
                yield
                if not self._stopped.is_set():
                    took = time.perf_counter() - begin
                    await asyncio.sleep(max(SHOW_EVERY_S, PAUSE * took))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for answer, _ in self._work:
                answer.end("stopped")
        yield

    async def _fill(self, answer: Answer, body: Mapping[str, Any]) -> None:
        begin = time.perf_counter()
        try:
            async with aclosing(self._client.stream(body, self._key)) as events:
                async for event in _noted(events, self._changed):
                    answer.take(event)
                    if answer.first_token_s is None and answer.text:
                        answer.first_token_s = time.perf_counter() - begin
            answer.end("answered")
        except WaypostError as error:
            answer.end("failed", str(error))
        finally:
            if answer.seconds is None:
                answer.seconds = time.perf_counter() - begin
            self._changed.set()


async def _noted(
    events: AsyncGenerator[dict[str, Any], None], changed: asyncio.Event
) -> AsyncIterator[dict[str, Any]]:
    async for event in events:
        yield event
        changed.set()
