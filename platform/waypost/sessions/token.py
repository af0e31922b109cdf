"""The session token: which turn an answer was, and which LLM gave it.

A client that returns it makes replicas agree after a failover. It is no secret and not signed: a
client that changes it changes its own session only, and can name an LLM of the pool anyway.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass

MOST_CHARACTERS = 1_200
"""Most characters of a token: names of LLMs have at most 200 characters, of up to 4 bytes each."""

MOST_TURN = 999_999

_FORM = re.compile(r"1\.([1-9][0-9]{0,5})\.([A-Za-z0-9_-]{1,1100})")


@dataclass(frozen=True, slots=True)
class Token:
    """A token that was read: number of the answered turn, from 1, and the LLM that answered."""

    turn: int
    model: str


def write_token(turn: int, model: str) -> str:
    """Return the token of an answer, in ASCII: ``1.TURN.NAME``, the name in URL-safe base64."""
    name = urlsafe_b64encode(model.encode("utf-8", "surrogatepass")).rstrip(b"=").decode()
    return f"1.{min(turn, MOST_TURN)}.{name}"


def read_token(text: str) -> Token | None:
    """Return what a token says; None where it has another form, or a later version."""
    if len(text) > MOST_CHARACTERS or (match := _FORM.fullmatch(text.strip())) is None:
        return None
    turn, name = match.groups()
    try:
        model = urlsafe_b64decode(name + "=" * (-len(name) % 4)).decode("utf-8", "surrogatepass")
    except ValueError:
        return None
    return Token(int(turn), model)
