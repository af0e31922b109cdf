"""Thumbs, their reasons, and the votes of comparisons: what goes to ``/v1/feedback``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from waypost.chat import render
from waypost.chat.client import GatewayClient
from waypost.chat.layout import NOTHING, Parts, Update
from waypost.chat.talk import Turn, Vote
from waypost.chat.visit import Visit
from waypost.contracts.errors import WaypostError
from waypost.secrets import Secret


class Voting:
    """Handlers of thumbs and votes.

    Args:
        parts: The components.
        client: The gateway.
        picture: Returns all that follows from a visit, with a notice.
        key_of: Returns the key of a request.
    """

    def __init__(
        self,
        parts: Parts,
        client: GatewayClient,
        picture: Callable[[Visit, str | None], Update],
        key_of: Callable[[gr.Request], Secret | None],
    ) -> None:
        self._parts, self._client = parts, client
        self._picture, self._key_of = picture, key_of

    async def like(self, visit: Visit, request: gr.Request, data: gr.LikeData) -> Update:
        """Send a thumb for an answer."""
        return await self._rate(visit, request, data, 0)

    async def like_right(self, visit: Visit, request: gr.Request, data: gr.LikeData) -> Update:
        """Send a thumb for an answer of the right side."""
        return await self._rate(visit, request, data, 1)

    async def _rate(
        self, visit: Visit, request: gr.Request, data: gr.LikeData, side: int
    ) -> Update:
        index = turn_at(visit, data.index, side)
        if index is None:
            return NOTHING
        answer = visit.talk.turns[index].answers[side]
        answer.rating, answer.rating_reason = (1.0 if data.liked is True else 0.0), None
        visit.rated = index, side
        problem = await self._send_rating(visit, request)
        return {**self._picture(visit, problem), self._parts.why: ""}

    async def give_reason(self, visit: Visit, why: str, request: gr.Request) -> Update:
        """Send the reason of the last thumb."""
        if visit.rated is None or not why.strip():
            return NOTHING
        index, side = visit.rated
        visit.talk.turns[index].answers[side].rating_reason = why.strip()
        problem = await self._send_rating(visit, request)
        if problem is None:
            visit.rated = None
        return self._picture(visit, problem)

    async def _send_rating(self, visit: Visit, request: gr.Request) -> str | None:
        """Send a rating; return what went wrong."""
        assert visit.rated is not None
        index, side = visit.rated
        answer = visit.talk.turns[index].answers[side]
        body = {"request_id": answer.request_id, "rating": answer.rating}
        return await self._feed_back(visit, request, body, answer.rating_reason)

    async def _feed_back(
        self, visit: Visit, request: gr.Request, body: dict[str, Any], reason: str | None = None
    ) -> str | None:
        more = {"reason": reason, "user_id": visit.user_id or None, "source": "user"}
        event = {**body, **{name: value for name, value in more.items() if value is not None}}
        if event["request_id"] is None:
            return "This answer cannot be rated: the gateway gave it no id."
        try:
            await self._client.rate(event, self._key_of(request))
        except WaypostError as error:
            return f"Not kept: {error}"
        return None

    def vote(self, vote: Vote) -> Any:
        """Return the handler of a vote."""

        async def run(visit: Visit, request: gr.Request) -> Update:
            talk = visit.talk
            last = talk.turns[-1] if talk.turns else None
            if last is None or not may_vote(visit, last):
                return NOTHING
            last.vote, talk.revealed = vote, True
            left, right = last.answers
            body = {
                "request_id": left.request_id,
                "other_request_id": right.request_id,
                "preference": vote,
            }
            return self._picture(visit, await self._feed_back(visit, request, body))

        return run


def may_vote(visit: Visit, turn: Turn | None) -> bool:
    """Return whether a turn may be voted on now."""
    if turn is None or visit.running or visit.talk.sides == 1 or turn.vote is not None:
        return False
    revealed = visit.talk.view == "battle" and visit.talk.revealed  # a seen name is no blind vote
    return not revealed and all(answer.text and answer.request_id for answer in turn.answers)


def turn_at(visit: Visit, index: Any, side: int = 0) -> int | None:
    """Return the turn of a message of the chatbot; None where there is none."""
    place = index[0] if isinstance(index, list | tuple) else index
    turns = render.shown(visit.talk, side).turns
    return turns[place] if isinstance(place, int) and 0 <= place < len(turns) else None
