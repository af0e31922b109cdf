"""Read what of a chat is routed on, its place in its session, and the earlier turns of its user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from waypost.contracts.session import MOST_TURNS, RouteOn, Turn
from waypost.serve.gateway.schemas import Extras
from waypost.serve.plan import Plan
from waypost.sessions.conversation import (
    Conversation,
    Place,
    Said,
    derived_id,
    last_turn,
    place_of,
    read_conversation,
    tokens_of,
)
from waypost.sessions.kept_turns import KeptTurns, Key, key_of
from waypost.sessions.retrieval import RETRIEVE, Retrieve, turns_of
from waypost.sessions.token import read_token


class Chats:
    """Reads chats for one plan.

    Args:
        plan: The graph.
        kept: Turns of users; None where none are kept.
    """

    def __init__(self, plan: Plan, kept: KeptTurns | None = None) -> None:
        self._route_on = plan.route_on
        self._retrieval = plan.retrieval
        self._settings = plan.sessions
        self._marks = plan.marks
        self._models = frozenset(model.name for model in plan.models)
        self._kept = kept

    def read(self, said: Sequence[Said], extras: Extras, user_id: str | None) -> Chat:
        """Read a chat.

        Args:
            said: The messages, at least one.
            extras: What the request asks of Waypost.
            user_id: Its user, where known.
        """
        mode = extras.route_on or self._route_on
        whole = mode == "full_context"
        session_id = extras.session_id
        if session_id is None and self._settings is not None and self._settings.from_first_messages:
            session_id = derived_id(said, user_id, self._marks)
        talk = None
        in_session = self._settings is not None and (
            session_id is not None or extras.session_token is not None
        )
        if in_session or mode == "retrieval":  # the only ones that need the turns before
            most = max(
                self._settings.max_turns if self._settings is not None and in_session else 1,
                MOST_TURNS if mode == "retrieval" else 1,
            )
            talk = read_conversation(said, whole=whole, marks=self._marks, most=most)
            now = talk.now
        else:
            now = last_turn(said, whole=whole, marks=self._marks)
        owner = None if self._kept is None else key_of(user_id, extras.session_id)
        found = Chat(mode, now, session_id, None if owner is None else (owner, now.text))
        if in_session and talk is not None:
            found.place = self._place(talk, extras.session_token)
        if mode == "retrieval" and talk is not None:
            found.retrieve = self._retrieve(talk, extras, owner)
        return found

    def _place(self, talk: Conversation, given: str | None) -> Place:
        """Return the place of a chat in its session."""
        assert self._settings is not None  # checked by the caller
        token, note = None, ""
        if given is not None and (token := read_token(given)) is None:
            note = "the session token was ignored: it has another form or version"
        elif token is not None and token.model not in self._models:
            token, note = None, "the session token was ignored: it names no LLM of the pool"
        bonus, most = self._settings.stay_bonus, self._settings.max_turns
        return place_of(talk, bonus, token, note, most=most)

    def _retrieve(self, talk: Conversation, extras: Extras, owner: Key | None) -> Retrieve:
        kept = [] if self._kept is None or owner is None else self._kept.of(owner)
        own = [turn.text for turn in talk.earlier]
        top_k = extras.top_k or self._retrieval.top_k
        return Retrieve(top_k, turns_of([*kept, *own], talk.now.text))


class Chat:
    """A chat as it is routed.

    Attributes:
        mode: What of it is routed on.
        now: The turn that waits for an answer.
        session_id: Id of its session, given or derived; None without one.
        turn: Whose turn is to be kept, and its text; None where none is.
        place: Its place in its session; None without one.
        retrieve: Earlier turns to choose from; None unless that is asked for.
    """

    __slots__ = ("mode", "now", "place", "retrieve", "session_id", "turn")

    def __init__(
        self, mode: RouteOn, now: Turn, session_id: str | None, turn: tuple[Key, str] | None
    ) -> None:
        self.mode, self.now, self.session_id, self.turn = mode, now, session_id, turn
        self.place: Place | None = None
        self.retrieve: Retrieve | None = None

    def query(self) -> dict[str, Any]:
        """Return the text of the query, its tokens, and the turns to choose from."""
        tokens = self.now.input_tokens
        found: dict[str, Any] = {"query": self.now.text}
        if self.retrieve is not None:
            found[RETRIEVE] = self.retrieve.to_dict()
            # the LLM gets the chat, not what it is routed on
            tokens = tokens_of(len(self.now.text)) if tokens is None else tokens
        return found if tokens is None else {**found, "input_tokens": tokens}


def without_retrieval(query: Mapping[str, Any]) -> dict[str, Any]:
    """Return a query without the turns to choose from."""
    return {key: value for key, value in query.items() if key != RETRIEVE}
