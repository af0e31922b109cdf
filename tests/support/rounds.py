"""Plans, scripted LLMs and episodes for tests of multi-round routers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from support.skipping_loop import SkippingLoop
from waypost.contracts.errors import EngineServerError
from waypost.contracts.records import Query
from waypost.contracts.step_router import Call, CallResult, EpisodeState
from waypost.encoders import make_encoder
from waypost.episode import EpisodeLimits, EpisodeResult, run_episode
from waypost.registry import make_trainable
from waypost.testing.synthetic import ENCODER_ID, planted

NAMES = ("knnmultiroundrouter", "llmmultiroundrouter")
COOKING, ALGEBRA = "simmer garlic butter oven dough", "matrix kernel prime ring vector"
PRICE = {"cook": 0.01, "prover": 0.02, "tiny": 0.001}


def new(name: str, **parameters: Any) -> Any:
    router = make_trainable(name, parameters)
    router.encoder = make_encoder(ENCODER_ID)
    return router


def trained(name: str, **parameters: Any) -> Any:
    return new(name, **parameters).fit(planted())


def plan_of(*steps: tuple[str, list[Any]] | dict[str, Any], model: str | None = "tiny") -> str:
    """Return a plan whose steps have the ids 1, 2, ...; pairs are a text and what it depends on."""
    whole = []
    for i, step in enumerate(steps, 1):
        if isinstance(step, tuple):
            step = {"id": i, "text": step[0], "depends_on": step[1], "model": model}
        whole.append(step)
    return json.dumps({"needs_split": True, "steps": whole})


TWO = plan_of((COOKING, []), (ALGEBRA, []))
CHAIN = plan_of((COOKING, []), (ALGEBRA, [1]))
WHOLE = '{"needs_split": false, "steps": []}'

Says = Callable[[Call], str]


class Script:
    """Answers calls: a plan, and what `says` returns for the others; records all of them."""

    def __init__(self, *plans: str, says: Says = lambda call: f"{call.model} on {call.purpose}"):
        self.plans = list(plans)
        self.says = says
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> CallResult:
        self.calls.append(call)
        planning = call.purpose in ("plan", "repair")
        text = self.plans.pop(0) if planning and self.plans else self.says(call)
        return CallResult(call, text, None, 10, 5, PRICE[call.model])

    def of(self, purpose: str) -> list[Call]:
        return [call for call in self.calls if call.purpose == purpose]


def fails(*broken: tuple[str, str]) -> Says:
    """Fail the calls of these pairs of purpose and LLM."""

    def says(call: Call) -> str:
        if (call.purpose, call.model) in broken:
            raise EngineServerError(f"{call.model} is down")
        return f"{call.model} on {call.purpose}"

    return says


def run(
    router: Any,
    script: Any,
    text: str = "a question",
    limits: EpisodeLimits | None = None,
    **of: Any,
) -> EpisodeResult:
    with asyncio.Runner(loop_factory=SkippingLoop) as runner:
        return runner.run(run_episode(router, Query(text, **of), script, limits))


def shape(result: EpisodeResult) -> list[tuple[str, int]]:
    return [(step[0].call.purpose, len(step)) for step in result.steps]


def first(router: Any, text: str = "a question", **of: Any) -> Call:
    return router.step(EpisodeState(Query(text, **of))).calls[0]


def step(id_: Any, text: Any = "t", **more: Any) -> dict[str, Any]:
    return {"id": id_, "text": text, "depends_on": []} | more


BAD = {
    "no plan": ("I would split it.", "no JSON object"),
    "cut off": (TWO[:-20], "no JSON object"),
    "two plans": (f"{WHOLE} or {TWO}", "2 different plans"),
    "no boolean": (TWO.replace("true", '"yes"'), "needs_split: expected true or false"),
    "unknown key": (json.dumps({**json.loads(TWO), "why": 1}), 'unknown key "why"'),
    "no steps": ('{"needs_split": true, "steps": []}', "at least one step"),
    "no list": ('{"needs_split": true, "steps": {"1": "x"}}', "expected a list"),
    "too many": (plan_of(*[("x", [])] * 200), "200 are too many; at most 4"),
    "no object": (
        plan_of(step(1), step(2)).replace('{"id": 1', '[1], {"id": 1'),
        "step 1: expected",
    ),
    "key of a step": (plan_of(step(1, cost=3), step(2)), 'step 1: unknown key "cost"'),
    "empty text": (plan_of(step(1, " "), step(2)), "step 1: text"),
    "no text": (plan_of(step(1), {"id": 2, "depends_on": []}), "step 2: text"),
    "half a pair": (plan_of(step(1, "\ud800"), step(2)), "step 1: text"),
    "no id": (plan_of(step(None), step(True)), "step 2: id"),
    "same id": (plan_of(step(1), step("1")), "step 2: its id is given twice"),
    "unknown id": (
        plan_of(step(1), step(2, depends_on=[7])),
        "step 2: depends on a step that",
    ),
    "itself": (plan_of(step(1, depends_on=[1]), step(2)), "step 1: depends on itself"),
    "circle": (
        plan_of(step(1, depends_on=[2]), step(2, depends_on=[1]), step(3)),
        "steps 1, 2: depend on each other",
    ),
    "no list of ids": (plan_of(step(1), step(2, depends_on="1")), "step 2: depends_on"),
    "model of a step": (plan_of(step(1, model=3), step(2)), "step 1: model"),
    "deep": ('{"needs_split": ' + "[" * 50_000, "no JSON object"),
    "braces": ('{"a":' * 20_000, "no JSON object"),
    "long": ("x" * 200_000 + TWO, "longer than"),
}
