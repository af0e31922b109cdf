"""One turn of Router-R1's protocol: what the policy did, and what it is told in return.

The policy writes ``<think>``, ``<search>NAME:QUERY</search>`` and ``<answer>``; the environment
writes ``<information>``. Generation stops at the first closing search or answer tag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from waypost.contracts.errors import SchemaError, names

TAGS = ("think", "search", "information", "answer")
STOP_STRINGS = ("</search>", "</answer>")
INFORMATION_TOKENS = 600
"""The paper's cap on one information block, in the policy's tokens."""

TokenCounter = Callable[[str], int]
"""Counts tokens as the policy's tokenizer does; never less for a longer prefix of a text."""

ActionFault = Literal[
    "no_action", "no_colon", "unknown_candidate", "empty_query", "placeholder", "repeats_name"
]

TAG_PATTERN = re.compile(rf"<(/?)({'|'.join(TAGS)})>")
_ACTION = re.compile(r"<(search|answer)>(.*?)</\1>", re.DOTALL)
_PLACEHOLDERS = frozenset(
    {"query", "your query", "the query", "sub-query", "subquery", "question", "your question",
     "the question", "text", "content"}
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Delegate:
    """The policy asks a candidate; ``candidate`` is a name of the pool."""

    candidate: str
    query: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The policy ends the episode; ``text`` may be empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A generation without a valid action; ``fault`` says why."""

    fault: ActionFault


Action = Delegate | Answer | Malformed


class Candidates:
    """The models a policy may ask, found by name or alias whatever the case.

    Args:
        names: Names of the pool, in its order.
        aliases: Other spellings -> a name of the pool.

    Raises:
        SchemaError: where there are no names, an alias points outside the pool, or one
            spelling means two models.
    """

    def __init__(self, names: Sequence[str], aliases: Mapping[str, str] | None = None) -> None:
        self.names = tuple(names)
        self._by_key: dict[str, str] = {}
        if not self.names:
            raise SchemaError("Router-R1: the pool of candidates is empty")
        for spelling, name in [(name, name) for name in names] + list((aliases or {}).items()):
            if name not in self.names:
                raise SchemaError(f"Router-R1: alias {spelling!r} names {name!r}, not in the pool")
            if self._by_key.setdefault(_key(spelling), name) != name:
                raise SchemaError(f"Router-R1: {spelling!r} means two candidates")

    def resolve(self, spelling: str) -> str | None:
        """Return the pool's name for a spelling, or None where no candidate is meant."""
        return self._by_key.get(_key(spelling))


def _key(spelling: str) -> str:
    return " ".join(spelling.casefold().split())


def parse_action(generation: str, candidates: Candidates) -> Action:
    """Return the first search or answer of a generation.

    A search is split at its first colon, so that the query may hold further ones.
    """
    match = _ACTION.search(generation)
    if match is None:
        return Malformed("no_action")
    kind, body = match.groups()
    return Answer(body.strip()) if kind == "answer" else parse_search(body, candidates)


def parse_search(body: str, candidates: Candidates) -> Delegate | Malformed:
    """Read what stands between search tags, ``NAME:QUERY``; both sides are trimmed."""
    spelling, colon, query = (part.strip() for part in body.partition(":"))
    if not colon:
        return Malformed("no_colon")
    candidate = candidates.resolve(spelling)
    if candidate is None:
        return Malformed("unknown_candidate")
    if not query:
        return Malformed("empty_query")
    if is_ellipsis(query) or query.strip("<>[]{}()\"' ").lower() in _PLACEHOLDERS:
        return Malformed("placeholder")
    if any(_mentions(query, name) for name in (spelling, candidate)):
        return Malformed("repeats_name")
    return Delegate(candidate, query)


def is_ellipsis(text: str) -> bool:
    """Say whether a text is empty but for blanks and dots."""
    return not text.replace("\u2026", "").replace(".", "").strip()


def _mentions(query: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", query, re.IGNORECASE) is not None


def cut_after_action(generation: str) -> str:
    """Drop what follows the first search or answer block (an engine may overrun its stop)."""
    match = _ACTION.search(generation)
    return generation if match is None else generation[: match.end()]


def observe(
    action: Delegate | Malformed,
    reply: str | None,
    candidates: Candidates,
    count_tokens: TokenCounter,
    *,
    budget: int = INFORMATION_TOKENS,
    corrective: bool = True,
) -> str:
    """Return what the environment writes after an action; it is never trained on.

    Args:
        action: What the policy did.
        reply: The candidate's answer; None where the call failed or none was made.
        candidates: The pool, named in a correction.
        count_tokens: The policy's token counter.
        budget: Most tokens of the reply; the rest is cut off.
        corrective: False is the reference's silent behaviour: an unknown candidate gives the
            word None, any other malformed action an empty text.
    """
    if isinstance(action, Delegate):
        return information(reply, count_tokens, budget)
    if corrective:
        return information(_correction(action.fault, candidates), count_tokens, budget)
    return information(None, count_tokens, budget) if action.fault == "unknown_candidate" else ""


def information(text: str | None, count_tokens: TokenCounter, budget: int) -> str:
    """Return an information block; None, a failed call, becomes the word None.

    Protocol tags inside the text lose their angle brackets: a reply can neither end its block
    nor answer for the policy.
    """
    body = "None" if text is None else cut_to_tokens(defuse(text), count_tokens, budget).strip()
    return f"\n\n<information>{body}</information>\n\n"


def defuse(text: str) -> str:
    """Write protocol tags of a foreign text with square brackets."""
    return TAG_PATTERN.sub(r"[\1\2]", text)


def cut_to_tokens(text: str, count_tokens: TokenCounter, budget: int) -> str:
    """Return the longest prefix of at most ``budget`` tokens; about log2(len) counts."""
    if count_tokens(text) <= budget:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        fits, too_long = (middle, too_long) if count_tokens(text[:middle]) <= budget else (
            fits, middle
        )  # fmt: skip
    return text[:fits]


def _correction(fault: ActionFault, candidates: Candidates) -> str:
    known = names(candidates.names)
    return {
        "no_action": "No action was found. Write NAME:QUERY in search tags, or answer.",
        "no_colon": "A search is a model's name, a colon and a query.",
        "unknown_candidate": f"There is no model of that name. The models are: {known}.",
        "empty_query": "The query after the colon is empty.",
        "placeholder": "The query is a placeholder. Write a real one.",
        "repeats_name": "The query must not repeat the model's name.",
    }[fault]
