"""One turn of Router-R1's protocol: the action of the policy and the environment's reply.

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
"""Maximum length of the reply in an information block, in the policy's tokens, as in the paper."""

TokenCounter = Callable[[str], int]
"""Token counter of the policy's tokenizer. A longer prefix of a text never has fewer tokens."""

ActionFault = Literal[
    "no_action", "no_colon", "unknown_candidate", "empty_query", "placeholder", "repeats_name"
]

TAG_PATTERN = re.compile(rf"<(/?)({'|'.join(TAGS)})>")
_ACTION = re.compile(r"<(search|answer)>(.*?)</\1>", re.DOTALL)
_PLACEHOLDERS = frozenset(
    {"your query", "your-query", "the query", "your question", "the question"}
)
_WORDS = frozenset({"query", "question", "sub-query", "subquery", "text", "content"})
"""Placeholders only in brackets: alone they can be real searches, unlike the prompt's own QUERY."""


@dataclass(frozen=True, slots=True)
class Delegate:
    """A query to a candidate; ``candidate`` is a name of the pool."""

    candidate: str
    query: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The final answer, which ends the episode; ``text`` may be empty."""

    text: str


@dataclass(frozen=True, slots=True)
class Malformed:
    """A generation without a valid action; ``fault`` is the reason."""

    fault: ActionFault


Action = Delegate | Answer | Malformed


class Candidates:
    """The LLMs that the policy may query, looked up by name or alias regardless of case.

    Args:
        names: Names of the pool, in its order.
        aliases: Other spelling -> a name of the pool.

    Raises:
        SchemaError: There are no names, an alias points outside the pool, or one spelling
            stands for two candidates.
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
        """Return the pool's name for a spelling, or None if no candidate matches."""
        return self._by_key.get(_key(spelling))


def _key(spelling: str) -> str:
    return " ".join(spelling.casefold().split())


def parse_action(generation: str, candidates: Candidates) -> Action:
    """Return the first search or answer of a generation.

    A search is split at its first colon, so the query may contain more colons.
    """
    match = _ACTION.search(generation)
    if match is None:
        return Malformed("no_action")
    kind, body = match.groups()
    return Answer(body.strip()) if kind == "answer" else parse_search(body, candidates)


def parse_search(body: str, candidates: Candidates) -> Delegate | Malformed:
    """Parse the text between search tags, ``NAME:QUERY``; both parts are trimmed."""
    spelling, colon, query = (part.strip() for part in body.partition(":"))
    if not colon:
        return Malformed("no_colon")
    candidate = candidates.resolve(spelling)
    if candidate is None:
        return Malformed("unknown_candidate")
    if not query:
        return Malformed("empty_query")
    if is_ellipsis(query) or _is_placeholder(query):
        return Malformed("placeholder")
    if any(_mentions(query, name) for name in (spelling, candidate)):
        return Malformed("repeats_name")
    return Delegate(candidate, query)


def is_ellipsis(text: str) -> bool:
    """Return whether a text consists of whitespace and dots only; an empty text does."""
    return not text.replace("\u2026", "").replace(".", "").strip()


def _is_placeholder(query: str) -> bool:
    bare = query.strip("<>[]{}()\"' ")
    bracketed = query[0] in "<[{(" and query[-1] in ">]})"
    return (
        bare == "QUERY" or bare.lower() in _PLACEHOLDERS or (bracketed and bare.lower() in _WORDS)
    )


def _mentions(query: str, name: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", query, re.IGNORECASE) is not None


def close_action(generation: str) -> str:
    """Add the closing tag of a search or answer that is still open: engines cut the stop string."""
    tags = [m for m in TAG_PATTERN.finditer(generation) if m[2] in {"search", "answer"}]
    return generation if not tags or tags[-1][1] else f"{generation}</{tags[-1][2]}>"


def cut_after_action(generation: str) -> str:
    """Drop the text after the first search or answer block (engines may miss a stop string)."""
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
    """Return the environment's text after an action; the policy is never trained on it.

    Args:
        action: The parsed action.
        reply: The candidate's answer; None if the call failed or no call was made.
        candidates: The pool, listed in a correction.
        count_tokens: The policy's token counter.
        budget: Maximum tokens of the reply; the rest is cut off.
        corrective: Explain a malformed action. False does as the reference code does: an
            unknown candidate gives the word None, any other malformed action an empty text.
    """
    if isinstance(action, Delegate):
        return information(reply, count_tokens, budget)
    if corrective:
        return information(_correction(action.fault, candidates), count_tokens, budget)
    return information(None, count_tokens, budget) if action.fault == "unknown_candidate" else ""


def information(text: str | None, count_tokens: TokenCounter, budget: int) -> str:
    """Return an information block; a ``text`` of None, a failed call, becomes the word None.

    Protocol tags in the text get square brackets (see `defuse`), so a reply can neither end its
    block nor contain an answer block.
    """
    body = "None" if text is None else cut_to_tokens(defuse(text), count_tokens, budget).strip()
    return f"\n\n<information>{body}</information>\n\n"


def defuse(text: str) -> str:
    """Replace the angle brackets of protocol tags in a candidate's text by square brackets."""
    return TAG_PATTERN.sub(r"[\1\2]", text)


def cut_to_tokens(text: str, count_tokens: TokenCounter, budget: int) -> str:
    """Return the longest prefix of at most ``budget`` tokens, with about log2(len) token counts."""
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
