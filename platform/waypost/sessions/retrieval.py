"""Route on a query together with the earlier turns that are most like it.

The query carries the earlier turns; whoever has the router's encoder chooses among them (by the
cosine of their vectors). So a decision stays a function of its query, wherever it is made.
LLMRouter's retrieval mode, with its fixed three of one process's history, is the model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import SchemaError
from waypost.contracts.session import MOST_TOP_K, MOST_TURNS, TOP_K

TURN_CHARACTERS = 2_000
"""Characters of a turn that are compared, kept, and routed on."""

RETRIEVE = "retrieve"
"""Key of a query that has `Retrieve.to_dict`."""


@dataclass(frozen=True, slots=True)
class Retrieve:
    """Earlier turns to choose from.

    Attributes:
        top_k: Most turns that are chosen, 1 to `MOST_TOP_K`.
        turns: Their texts, oldest first, at most `MOST_TURNS`.
    """

    top_k: int = TOP_K
    turns: tuple[str, ...] = ()

    @classmethod
    def of(cls, given: Any) -> Retrieve:
        """Read a mapping with ``turns`` and, optionally, ``top_k``.

        Raises:
            SchemaError: it has another form.
        """
        if not isinstance(given, Mapping) or not {"turns"} <= set(given) <= {"turns", "top_k"}:
            raise SchemaError("retrieve: expected a mapping with turns, and top_k")
        turns, top_k = given["turns"], given.get("top_k", TOP_K)
        texts = isinstance(turns, list | tuple) and all(isinstance(one, str) for one in turns)
        if not texts or len(turns) > MOST_TURNS:
            raise SchemaError(f"retrieve: turns: expected a list of at most {MOST_TURNS} texts")
        if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= MOST_TOP_K:
            raise SchemaError(f"retrieve: top_k: expected a whole number from 1 to {MOST_TOP_K}")
        return cls(top_k, tuple(turns))

    def to_dict(self) -> dict[str, Any]:
        """Return the mapping that `of` reads."""
        return {"top_k": self.top_k, "turns": list(self.turns)}


def turns_of(texts: Iterable[str], now: str) -> tuple[str, ...]:
    """Return what of some texts can be an earlier turn: no empty one, none twice, not the query's.

    Args:
        texts: Earlier turns, oldest first; of equal ones the latest counts.
        now: The text of the query.
    """
    kept: dict[str, None] = {}
    for text in texts:
        cut = text[:TURN_CHARACTERS]
        if cut.strip() and cut != now[:TURN_CHARACTERS]:
            kept.pop(cut, None)
            kept[cut] = None
    return tuple(kept)[-MOST_TURNS:]


@dataclass(frozen=True, slots=True)
class Retrieved:
    """What a query was routed on.

    Attributes:
        text: The chosen turns, oldest first, and the query's own text, each on a line of its own.
        turns: Number of chosen turns.
        of: Number of turns to choose from.
        similarity: Cosine of each chosen turn with the query, -1 to 1, in the order of `text`.
    """

    text: str
    turns: int
    of: int
    similarity: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {**asdict(self), "similarity": list(self.similarity)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Retrieved:
        """Rebuild it from `to_dict`."""
        return cls(data["text"], data["turns"], data["of"], tuple(data["similarity"]))

    def told(self) -> dict[str, Any]:
        """Return what a client is told.

        Neither the texts nor how like they are: who names another user could ask for what that
        user said.
        """
        return {"turns": self.turns, "of": self.of}


def retrieve(text: str, given: Retrieve, encoder: Encoder) -> Retrieved:
    """Choose the earlier turns that are most like a text.

    Args:
        text: The query.
        given: The turns to choose from.
        encoder: Embeds the turns and the text; a cache makes earlier turns cheap.
    """
    if not given.turns:
        return Retrieved(text, 0, 0, ())
    rows = encoder.encode([text[:TURN_CHARACTERS], *given.turns])
    likeness = rows[1:] @ rows[0]
    # the latest first among equals
    best = np.lexsort((-np.arange(len(likeness)), -likeness))[: given.top_k]
    places = sorted(best.tolist())
    chosen = [given.turns[place] for place in places]
    found = tuple(float(likeness[place]) for place in places)
    return Retrieved("\n".join([*chosen, text]), len(chosen), len(given.turns), found)


def retrieve_all(
    queries: Sequence[dict[str, Any]], encoder: Encoder | None
) -> tuple[Sequence[dict[str, Any]], list[Retrieved | None]]:
    """Replace the texts of queries that carry earlier turns by what they are routed on.

    Args:
        queries: Queries as plain data; those without `RETRIEVE` stay as they are.
        encoder: The router's; None where it has none.

    Raises:
        SchemaError: a query carries turns, and there is no encoder, or the form is wrong.
    """
    plain: list[dict[str, Any]] = []
    found: list[Retrieved | None] = []
    for query in queries:
        if RETRIEVE not in query:
            plain.append(query)
            found.append(None)
            continue
        if encoder is None:
            raise SchemaError(
                "route_on: retrieval: this router has no encoder, which compares the earlier "
                "turns; take current_only or full_context, or another router"
            )
        one = retrieve(query["query"], Retrieve.of(query[RETRIEVE]), encoder)
        rest = {key: value for key, value in query.items() if key != RETRIEVE}
        plain.append({**rest, "query": one.text})
        found.append(one)
    return plain, found
