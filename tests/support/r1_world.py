"""A small world for Router-R1's training: a codec, a scripted policy, scripted candidates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from waypost.contracts.questions import Question
from waypost_rl.environment import Environment
from waypost_rl.protocol import STOP_STRINGS, Candidates
from waypost_rl.training.parts import Ask, Reply, Sampled

POOL = Candidates(["cook", "prover"], {"the kitchen": "cook"})
DESCRIPTIONS = {"cook": "7B", "prover": "70B"}
END = 1 << 50
"""The end token, a special token of `PairCodec`."""
_PAIR = 1 << 40


class PairCodec:
    """A token for every two characters; a single character is a token, too.

    What is sampled character by character is encoded otherwise: ``encode(decode(ids)) != ids``.
    """

    def encode(self, text: str) -> list[int]:
        pairs = [text[at : at + 2] for at in range(0, len(text), 2)]
        return [
            ord(pair) if len(pair) == 1 else _PAIR + (ord(pair[0]) << 20) + ord(pair[1])
            for pair in pairs
        ]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self._text(one) for one in ids if one != END)

    def _text(self, token: int) -> str:
        if token < _PAIR:
            return chr(token)
        return chr((token - _PAIR) >> 20) + chr((token - _PAIR) & 0xFFFFF)


def sampled(text: str, most: int = 10_000) -> Sampled:
    """Return a text as a sampler returns it: character by character up to a stop string."""
    ends = [at + len(stop) for stop in STOP_STRINGS if (at := text.find(stop)) >= 0]
    if ends and min(ends) <= most:
        return Sampled(tuple(map(ord, text[: min(ends)])), "stop")
    ids = (*map(ord, text), END)
    return Sampled(ids, "end") if len(ids) <= most else Sampled(ids[:most], "length")


class ScriptedSampler:
    """Writes given texts, row by row; keeps each row's context.

    Attributes:
        contexts: Tokens of each row, of prompt, policy and environment.
        rounds: The rows of each round.
    """

    def __init__(self, *scripts: Sequence[str]) -> None:
        self.scripts = [list(script) for script in scripts]
        self.contexts: list[list[int]] = []
        self.rounds: list[list[int]] = []
        self.begun: dict[str, Any] = {}

    def begin(self, rows: int, *, seed: int, temperature: float = 1.0) -> None:
        assert rows == len(self.scripts)
        self.begun = {"seed": seed, "temperature": temperature}
        self.contexts = [[] for _ in range(rows)]

    def turn(
        self, added: Mapping[int, Sequence[int]], max_tokens: Mapping[int, int]
    ) -> dict[int, Sampled]:
        assert set(added) == set(max_tokens)
        self.rounds.append(sorted(added))
        found = {}
        for row, ids in added.items():
            assert self.contexts[row] or ids
            found[row] = sampled(self.scripts[row].pop(0), max_tokens[row])
            self.contexts[row] += [*ids, *found[row].ids]
        return found

    def update(self) -> None:
        return

    def close(self) -> None:
        return


class ScriptedPool:
    """Says what a function makes of each query; keeps the queries.

    Args:
        says: Reply to a query; default names the candidate.
        pause: Awaited before each reply.
    """

    def __init__(
        self,
        says: Callable[[Ask], Reply] | None = None,
        pause: Callable[[Ask], Any] | None = None,
    ) -> None:
        self.says = says or (lambda ask: Reply(f"{ask.candidate} says", 10, 5))
        self.pause = pause
        self.asks: list[Ask] = []

    def settings_of(self, candidate: str) -> dict[str, Any]:
        return {"model": candidate}

    async def ask(self, ask: Ask) -> Reply:
        self.asks.append(ask)
        if self.pause is not None:
            await self.pause(ask)
        return self.says(ask)

    async def close(self) -> None:
        await asyncio.sleep(0)


def question(text: str = "Which dish goes with which theorem?", key: str = "q1") -> Question:
    return Question(
        query_id=key,
        task_name="made",
        query=text,
        ground_truth="a roast",
        metric="exact_match",
        max_tokens=64,
    )


def environment(descriptions: Mapping[str, str] | None = None, **settings: Any) -> Environment:
    return Environment(POOL, descriptions or DESCRIPTIONS, PairCodec(), **settings)
