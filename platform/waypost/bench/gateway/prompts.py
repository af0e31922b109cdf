"""Questions that are all different, so that no memory of texts or of vectors flatters a router."""

from __future__ import annotations

import random
from collections.abc import Iterator

_KINDS = (
    "What is {a} times {b}, minus the number of {things} in {place}?",
    "Write a Python function that counts the {things} of {place} and adds {a} to every {b}th.",
    "Explain to a newcomer why the {things} of {place} were counted {a} times in the year {b}.",
    "A train leaves {place} at {a} with {b} {things}. How many {things} arrive, and when?",
    "Which of the {things} that {place} is known for is the oldest: the {a}th or the {b}th?",
    "Summarise in two sentences what happened to the {b} {things} near {place} after day {a}.",
)
_PLACES = ("Lisbon", "Oslo", "Nairobi", "Kyoto", "Lima", "Riga", "Cork", "Perth", "Quito", "Turin")
_THINGS = ("bridges", "lamps", "orchards", "libraries", "ferries", "clocks", "wells", "markets")


def prompts(seed: int) -> Iterator[str]:
    """Yield questions without end, no two alike; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311 - no secret
    count = 0
    while True:
        count += 1
        kind = rng.choice(_KINDS)
        yield f"({count}) " + kind.format(
            a=rng.randrange(2, 10_000),
            b=rng.randrange(2, 10_000),
            things=rng.choice(_THINGS),
            place=rng.choice(_PLACES),
        )


def chat(model: str, prompt: str, *, stream: bool) -> bytes:
    """Return the body of a chat of one turn; neither argument needs escaping in JSON."""
    return b'{"model":"%s","messages":[{"role":"user","content":"%s"}],"stream":%s}' % (
        model.encode(),
        prompt.encode(),
        b"true" if stream else b"false",
    )
