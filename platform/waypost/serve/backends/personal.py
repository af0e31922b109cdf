"""Decide for the user who asks, with the state that a personal router makes of the user's turns."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from waypost.contracts.errors import StorageError
from waypost.contracts.records import Query
from waypost.contracts.router import MetaRouter, ScoreRouter, TrainableRouter
from waypost.contracts.user_state import PersonalRouter, UserState
from waypost.feedback.outcome import plain
from waypost.learning.user_states import UserStates
from waypost.learning.user_turns import turns_path
from waypost.serve.backends.messages import Reply
from waypost.serve.backends.owned_states import OwnedStates
from waypost.serve.backends.owner import Ask

logger = logging.getLogger(__name__)


class PersonalStates:
    """The states of users, for each personal router of a node that has an encoder.

    Args:
        turns: Folder of the users' turns, which the gateways fill; or what asks their owner; None
            knows no user.
        routers: The node's routers by name.
        earlier: Of an earlier plan; the states of unchanged routers stay in memory.

    Raises:
        ConfigError: A file of turns is none.
        StorageError: The folder cannot be made.
    """

    def __init__(
        self,
        turns: str | Ask | None,
        routers: Mapping[str, TrainableRouter],
        earlier: PersonalStates | None = None,
    ) -> None:
        self._pairs: list[tuple[MetaRouter, UserStates | OwnedStates]] = []
        self._encoders: set[str] = set()
        if turns is None:
            return
        for router in routers.values():
            encoder = router.encoder
            if encoder is None or not isinstance(router, PersonalRouter):
                continue
            states = None if earlier is None else earlier._of(router)
            if states is None:
                states = _open(turns, router, encoder.id)
            self._pairs.append((router, states))
            self._encoders.add(encoder.id)

    def _of(self, router: MetaRouter) -> UserStates | OwnedStates | None:
        return next((states for one, states in self._pairs if one is router), None)

    def meet(self, router: MetaRouter, queries: Sequence[dict[str, Any]]) -> Awaitable[None] | None:
        """Return what to await before `decide`; None if nothing, as where turns lie in a folder."""
        states = self._of(router) if self._pairs else None
        if not isinstance(states, OwnedStates):
            return None
        named = [plain(query.get("user_id")) for query in queries]
        users = [user for user in named if user is not None]
        return states.meet(users) if users else None

    def decide(self, router: MetaRouter, queries: Sequence[dict[str, Any]]) -> list[Reply]:
        """Decide queries with the states of their users.

        Where a user is known by name, and a personal router has the encoder of this router, the
        reply has the question's vector, for what the user will say of the answer.

        Raises:
            WaypostError: See `ScoreRouter.decide`.
        """
        encoder = router.encoder if isinstance(router, ScoreRouter) else None
        if encoder is None or encoder.id not in self._encoders:
            return [{"decision": made.to_dict()} for made in router.route_batch(queries)]
        assert isinstance(router, ScoreRouter)
        parsed = [Query.of(query) for query in queries]
        states = self._of(router)
        state_of = None if states is None else cache(partial(_state, states))
        decisions, rows = router.route_for(parsed, state_of)
        replies: list[Reply] = []
        for i, made in enumerate(decisions):
            reply: Reply = {"decision": made.to_dict()}
            if rows is not None and parsed[i].user_id is not None:
                reply["vector"] = [encoder.id, rows[i].astype("<f4").tobytes()]
            replies.append(reply)
        return replies


def _open(turns: str | Ask, router: PersonalRouter, encoder_id: str) -> UserStates | OwnedStates:
    if not isinstance(turns, str):
        return OwnedStates(turns, router.user_state, encoder_id)
    try:
        Path(turns).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{turns}: cannot be made: {error.strerror or error}") from None
    return UserStates(turns_path(Path(turns), encoder_id), router.user_state, encoder_id)


def _state(states: UserStates | OwnedStates, user_id: str | None) -> UserState | None:
    user_id = plain(user_id)  # as feedback names the user
    if user_id is None:
        return None
    try:
        return states.get(user_id)
    except StorageError as error:  # the request is answered, as for a user who is not known
        logger.error("%s", error)
        return None
