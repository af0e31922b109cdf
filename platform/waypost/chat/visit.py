"""One visitor of the page: the open talk, and the talks that the browser keeps."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from waypost.chat.asking import Asking
from waypost.chat.client import Pool
from waypost.chat.talk import Talk, View

MOST_NAME = 40
MOST_TALKS = 30
MOST_CHARACTERS = 2_000_000
"""Browsers keep about five million characters for one site."""


@dataclass
class Visit:
    """What the server knows of one open page.

    Attributes:
        talk: The open talk; it is among `talks` once it has a question.
        talks: The talks, the latest first.
        user_id: Whose talks they are: the login, or a random name that this browser keeps.
        pool: What the gateway serves; as of the opening of the page.
        asking: The answers that are being written, if any.
        rated: Turn and side of the thumb whose reason may be given.
    """

    talk: Talk = field(default_factory=Talk)
    talks: list[Talk] = field(default_factory=list)
    user_id: str = ""
    pool: Pool = field(default_factory=Pool)
    asking: Asking | None = None
    rated: tuple[int, int] | None = None

    def read(self, kept: Any, user: str | None) -> None:
        """Take what the browser kept; what cannot be read is left out.

        Args:
            kept: As `kept` returned it.
            user: The login, if there is one.
        """
        found = kept if isinstance(kept, dict) else {}
        name = found.get("user_id")
        if not (isinstance(name, str) and name.startswith("browser-") and len(name) <= MOST_NAME):
            name = f"browser-{secrets.token_hex(8)}"
        self.user_id = user or name
        talks = found.get("talks")
        self.talks = [
            talk
            for one in (talks if isinstance(talks, list) else [])[:MOST_TALKS]
            if (talk := _talk(one)) is not None
        ]
        if self.talks and found.get("open") == self.talks[0].id:
            self.talk = self.talks[0]

    def kept(self) -> dict[str, Any]:
        """Return what the browser is to keep: the latest talks, as many as fit."""
        written: list[dict[str, Any]] = []
        left = MOST_CHARACTERS
        for talk in self.talks[:MOST_TALKS]:
            left -= len(talk.model_dump_json())
            if left < 0 and written:
                break
            written.append(talk.model_dump(mode="json", exclude_none=True))
        user_id = self.user_id if self.user_id.startswith("browser-") else ""
        return {"user_id": user_id, "open": self.talk.id, "talks": written}

    def remember(self) -> None:
        """Put the open talk first among the talks."""
        if self.talk.turns:
            self.talks = [self.talk, *(one for one in self.talks if one.id != self.talk.id)]
            del self.talks[MOST_TALKS:]

    def new(self, view: View, names: Sequence[str]) -> None:
        """Begin a talk."""
        self.rated = None
        self.talk = Talk(view=view, names=list(names))

    def open(self, talk_id: str) -> None:
        """Open an earlier talk."""
        self.rated = None
        self.talk = next((one for one in self.talks if one.id == talk_id), self.talk)

    def delete(self) -> None:
        """Forget the open talk."""
        self.talks = [one for one in self.talks if one.id != self.talk.id]
        self.new(self.talk.view, self.talk.names)

    @property
    def running(self) -> bool:
        """Whether answers are being written."""
        return self.asking is not None

    def stop(self) -> None:
        """Stop the answers that are being written."""
        if self.asking is not None:
            self.asking.stop()


def _talk(data: Any) -> Talk | None:
    try:
        talk = Talk.model_validate(data)
    except ValidationError:
        return None
    for turn in talk.turns:
        for answer in turn.answers:
            answer.end("stopped")  # the page was closed meanwhile
    fits = all(len(turn.answers) == talk.sides for turn in talk.turns)
    return talk if fits and talk.turns and len(talk.names) == talk.sides else None


def draw(pool: Pool) -> list[str]:
    """Draw the two LLMs of a battle; fewer where the pool has fewer that can answer."""
    names = list(pool.ready_llms)
    return secrets.SystemRandom().sample(names, min(2, len(names)))
