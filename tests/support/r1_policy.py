"""Scripted Router-R1 policies and candidates."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from support.skipping_loop import SkippingLoop
from waypost.contracts.errors import EngineServerError
from waypost.contracts.records import Query
from waypost.contracts.steps import Call, CallResult
from waypost.episode import EpisodeLimits, EpisodeResult, run_episode
from waypost.registry import make_trainable
from waypost.testing.synthetic import planted

QUESTION = "Which dish goes with which theorem?"
ASK = "<think>who knows?</think><search>{}:{}</search>"
ANSWER = "<think>clear</think><answer> a roast </answer>"
ALL = EpisodeLimits(max_steps=64)
USD = 0.01


def made(**parameters: Any) -> Any:
    return make_trainable("router_r1", {"policy_llm": "tiny", **parameters})


def trained(**parameters: Any) -> Any:
    return made(**parameters).fit(planted())


class Script:
    """Answers the policy's calls one after another, as an engine would; records all calls."""

    def __init__(
        self, *turns: str, replies: Mapping[str, str] | Callable[[Call], str] = MappingProxyType({})
    ):
        self.turns = list(turns)
        self.replies = replies
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> CallResult:
        self.calls.append(call)
        if call.purpose != "policy":
            says = self.replies
            text = says(call) if callable(says) else says.get(call.prompt, f"{call.model} says")
        else:
            text = self.turns.pop(0)
            if text == "fails":
                raise EngineServerError("down")
            ends = [at for stop in call.stop if (at := text.find(stop)) >= 0]
            text = text[: min(ends)] if ends else text
        return CallResult(call, text, None, 10, 5, USD)

    def of(self, purpose: str) -> list[Call]:
        return [call for call in self.calls if call.purpose == purpose]


def run(
    router: Any, script: Script, limits: EpisodeLimits = ALL, text: str = QUESTION, **of: Any
) -> EpisodeResult:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(run_episode(router, Query(text, **of), script, limits))


def purposes(script: Script) -> list[str]:
    return [call.purpose for call in script.calls]


def seen(script: Script) -> str:
    """Return what the policy read of its own text and of the replies at its last turn."""
    prompt = script.of("policy")[-1].prompt
    return prompt.partition("without repeating it:\n\n")[2]
