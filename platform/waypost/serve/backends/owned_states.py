"""The states of users whose turns another process owns, on several machines."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import numpy as np

from waypost.contracts.errors import StorageError, WaypostError
from waypost.contracts.user_state import UserHistory, UserState
from waypost.learning.user_states import HOT
from waypost.learning.user_turns import user_digest
from waypost.serve.backends.messages import Reply
from waypost.serve.backends.owner import Ask
from waypost.serve.logs import where_raised

logger = logging.getLogger(__name__)

LOOK_S = 0.5
"""Seconds between two questions to the owner whose turns changed: the age of a known state."""

WAIT_S = 0.5
"""Longest wait of a decision for the owner; then its user is one who is not known."""

REST_S = 5.0
"""Seconds without a question to an owner that did not answer."""

_TRIES = 3


class OwnedStates:
    """The states of users for one router, made of turns that the owner tells.

    There is no task beside: a decision asks for the turns of its user and for what changed since
    the last look, if the user is not known or that look is `LOOK_S` old.

    Args:
        ask: Calls the owner.
        make: See `UserStates`.
        encoder_id: Encoder of the embeddings.
        hot: Users in memory, also those without turns.
    """

    def __init__(
        self,
        ask: Ask,
        make: Callable[[UserHistory], UserState],
        encoder_id: str,
        *,
        hot: int = HOT,
    ) -> None:
        self._ask, self._make, self._encoder_id, self._hot = ask, make, encoder_id, hot
        self._lock = threading.Lock()  # decisions may be made in threads
        self._states: OrderedDict[str, UserState | None] = OrderedDict()
        self._stale: set[str] = set()  # may decide what is decided now, and are asked for next
        self._since: int | None = None
        self._look_at = 0.0
        self._rest_until = 0.0

    def get(self, user_id: str) -> UserState | None:
        """Return a state that is in memory; None for an unknown user."""
        with self._lock:
            if user_id in self._states:
                self._states.move_to_end(user_id)
            return self._states.get(user_id)

    def meet(self, user_ids: Sequence[str]) -> Awaitable[None] | None:
        """Return what to await before decisions for these users; None if there is nothing."""
        now = time.monotonic()
        if now < self._rest_until:
            return None
        users = list(dict.fromkeys(user_ids))
        if now < self._look_at:
            users = [user for user in users if self._unknown(user)]
            if not users:
                return None
        self._look_at = now + LOOK_S
        return self._meet(users)

    def _unknown(self, user_id: str) -> bool:
        return user_id not in self._states or user_id in self._stale

    async def _meet(self, users: list[str]) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                for _ in range(_TRIES):
                    found = await self._ask("read_turns", self._encoder_id, users, self._since)
                    if (error := found.get("error")) is not None:
                        raise StorageError(error["message"])
                    if self._take(found):
                        return
            self._begin_anew()
        # requests are answered, whatever the owner does; what is raised may hold a user's name
        except Exception as error:  # noqa: BLE001
            self._rest_until = time.monotonic() + REST_S
            why = str(error) if isinstance(error, WaypostError) else where_raised(error)
            if isinstance(error, TimeoutError):
                why = f"no answer within {WAIT_S:g} s"
            logger.error("users are not known for %g s: %s", REST_S, why)

    def _begin_anew(self) -> None:
        """Drop all: versions that stay behind what was told are those of another file."""
        with self._lock:
            self._states.clear()
            self._stale.clear()
            self._since = None

    def _take(self, found: Reply) -> bool:
        """Take what the owner told; say whether it is newer than what was told before."""
        made = {user: self._state(told) for user, told in found["histories"].items()}
        with self._lock:
            if self._since is not None and found["version"] < self._since:
                return False
            self._since = found["version"]
            self._stale |= self._states.keys() & set(found["changed"])
            if forgotten := set(found["forgotten"]):
                for user in [one for one in self._states if user_digest(one) in forgotten]:
                    del self._states[user]
            for user, state in made.items():
                self._states[user] = state
                self._states.move_to_end(user)
                self._stale.discard(user)
            while len(self._states) > self._hot:
                self._states.popitem(last=False)
            self._stale &= self._states.keys()
        return True

    def _state(self, told: Reply) -> UserState | None:
        n = len(told["llms"])
        if not n:
            return None
        vectors = np.frombuffer(told["embeddings"], "<f4").reshape(n, -1)
        return self._make(
            UserHistory(
                vectors.astype(np.float32),
                tuple(told["llms"]),
                tuple(told["others"]),
                np.array(told["values"], float),
            )
        )
