"""Measure what a decision costs by what of the chat is routed on, and by the length of the chat.

Body in, decision out, in this process: a chat is parsed, its turns are compared, and the router
decides. Each question is a new one; the turns before it were routed before, as in a chat that goes
on, so that the encoder's cache has them. ``retrieval, new`` has turns that nobody saw before, as
after a restart. The modes take turns within each round, and ratios are to ``current_only``.

Example: waypost bench modes --turns 4 --turns 64
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from statistics import median
from typing import Any

import numpy as np
from pydantic import DirectoryPath, Field

from waypost.bench import harness
from waypost.bench.harness import Aim, Result, Table, Tell, at_most, figure
from waypost.config import resolve_path
from waypost.contracts.session import MODES, MOST_TURNS
from waypost.loading import manifest_of
from waypost.serve.backends.router_replica import Routers
from waypost.serve.config import AUTO, ServeArgs
from waypost.serve.gateway.requests import Parser
from waypost.serve.plan import Plan, make_plan

STARTER = "serve_configs/starter/artifact"
NEW = "retrieval, new"
WAYS = (*MODES, NEW)
MOST_RATIO = 2.5
"""What a decision by retrieval may take beside one on the last message, where turns are known: two
texts are embedded, the question and what it is routed on."""

_VOCABULARY = 4_000


class Options(harness.Options):
    """Options of ``waypost bench modes``."""

    artifact: DirectoryPath | None = Field(None, description=f"Router.  [default: {STARTER}]")
    turns: tuple[int, ...] = Field(
        (2, 8, 32, 128), description="Earlier turns of the chat, may be repeated."
    )
    words: int = Field(25, ge=1, description="Words of a turn.")
    rounds: int = Field(200, ge=1, description="Decisions of each kind.")
    seed: int = Field(0, ge=0, description="Seed of the words.")


QUICK = {"turns": (2, 8), "rounds": 5}


def run(options: Options, tell: Tell) -> Result:
    """Time the decisions.

    Returns:
        Figures: ``p50_ms`` and ``ratio`` (to ``current_only`` in the same round, median): turns ->
        way -> number.

    Raises:
        ArtifactError, WeightsError: The router or its encoder cannot be loaded.
    """
    plan = _plan(options)
    routers = Routers(plan.router)
    routers.load()
    decide = decision(Parser(plan), routers)
    words = _Words(options)
    took: dict[str, Any] = {}
    ratio: dict[str, Any] = {}
    for turns in options.turns:
        tell(f"{turns} earlier turns")
        rounds = list(_rounds(options.rounds, min(turns, MOST_TURNS), words, decide))
        took[str(turns)] = {way: 1e3 * median(one[way] for one in rounds) for way in WAYS}
        ratio[str(turns)] = {
            way: median(one[way] / one[MODES[0]] for one in rounds) for way in WAYS
        }
    tables = [
        _table("Milliseconds of a decision (median)", took),
        _table("Ratio to current_only in the same round (median)", ratio),
    ]
    known = {turns: one["retrieval"] for turns, one in ratio.items()}
    facts = (
        f"{options.rounds} decisions of each kind by {plan.router_names[0]}, turns of "
        f"{options.words} words. {NEW}: turns that the encoder's cache does not have."
    )
    figures = {"p50_ms": took, "ratio": ratio}
    return Result(tables, facts, aims(known), figures)


def aims(known: dict[str, float]) -> list[Aim]:
    """Return the aim of each length of a chat."""
    return [
        at_most(f"retrieval beside current_only, {turns} earlier turns", value, MOST_RATIO)
        for turns, value in known.items()
    ]


def decision(parser: Parser, routers: Routers) -> Callable[[bytes], None]:
    """Return what decides a body as the gateway and its router do."""

    def decide(raw: bytes) -> None:
        call = parser.route(raw, {}, "bench")
        (reply,) = routers.decide([(call.query, AUTO)])
        assert "decision" in reply

    return decide


def _plan(options: Options) -> Plan:
    folder = resolve_path(STARTER) if options.artifact is None else options.artifact
    names = [llm.name for llm in manifest_of(folder).llms]
    pool = [{"name": name, "engine": "echo", "placement": "inline"} for name in names]
    args = {"artifact": str(folder), "pool": pool, "allow_plugin_code": True}
    return make_plan(ServeArgs.model_validate(args))


class _Words:
    """Makes texts that do not repeat."""

    def __init__(self, options: Options) -> None:
        self._draw = np.random.default_rng(options.seed)
        self._length = options.words

    def text(self) -> str:
        """Return a new text."""
        return " ".join(f"word{n}" for n in self._draw.integers(_VOCABULARY, size=self._length))

    def chat(self, turns: int) -> list[dict[str, str]]:
        """Return answered turns."""
        said = (("user", self.text()) for _ in range(turns))
        return [{"role": role, "content": text} for one in said for role, text in (one, _ANSWER)]


_ANSWER = ("assistant", "An answer of a few words.")


def _rounds(
    count: int, turns: int, words: _Words, decide: Callable[[bytes], None]
) -> Iterator[dict[str, float]]:
    """Yield the seconds of each way, round by round; the first, which warms up, is not yielded."""
    chat = words.chat(turns)
    for number in range(count + 1):
        bodies = {
            way: _body(words.chat(turns) if way == NEW else chat, words.text(), way) for way in WAYS
        }
        ways = WAYS if number % 2 else WAYS[::-1]
        took = {way: harness.seconds(partial(decide, bodies[way])) for way in ways}
        if number:
            yield took


def _body(chat: list[dict[str, str]], question: str, way: str) -> bytes:
    mode = "retrieval" if way == NEW else way
    messages = [*chat, {"role": "user", "content": question}]
    return json.dumps({"messages": messages, "waypost": {"route_on": mode}}).encode()


def _table(title: str, found: dict[str, dict[str, float]]) -> Table:
    rows = [[turns, *(figure(one[way]) for way in WAYS)] for turns, one in found.items()]
    return Table(title, ("earlier turns", *WAYS), rows)
