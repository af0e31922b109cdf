"""Read the plan of sub-questions that an LLM wrote, and order its steps in waves."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from waypost.contracts.errors import SchemaError, names
from waypost.contracts.steps import CallResult

_SHOWN = 8
"""Maximum number of faults in the message of a `PlanError`, which stands in a prompt."""
_MOST_CHARACTERS = 100_000
_MOST_STARTS = 200
"""Maximum number of braces from which JSON is read: unclosed ones would take quadratic time."""
_REASONING = re.compile(r"<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True)
class PlanStep:
    """A sub-question.

    Attributes:
        id: Its id, unique in the plan.
        text: The sub-question.
        depends_on: Ids of the steps whose answers it needs.
        model: The LLM that the planner named; None if it named none.
    """

    id: str
    text: str
    depends_on: tuple[str, ...] = ()
    model: str | None = None


@dataclass(frozen=True)
class Plan:
    """A planner's reply.

    Attributes:
        needs_split: Whether the question is to be split.
        steps: The sub-questions; empty if it is not to be split.
    """

    needs_split: bool
    steps: tuple[PlanStep, ...] = ()

    @property
    def splits(self) -> bool:
        """Whether there are at least two sub-questions."""
        return self.needs_split and len(self.steps) > 1


class PlanError(SchemaError):
    """A reply is not a valid plan.

    Attributes:
        faults: Every fault found. They name places, never texts of the reply.
    """

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[PlanError], tuple[tuple[str, ...]]]:
        return type(self), (self.faults,)

    @property
    def summary(self) -> str:
        """The first faults, one a line, for a prompt that asks for a corrected plan."""
        more = len(self.faults) - _SHOWN
        lines = [*self.faults[:_SHOWN], *([f"{more} more faults"] if more > 0 else [])]
        return "\n".join(f"- {line}" for line in lines)


def read_plan(text: str, max_steps: int, models: Collection[str] | None = None) -> Plan:
    """Read a plan: the one JSON object with the key ``needs_split`` in an LLM's reply.

    The object may stand in a code fence, and between words. Reasoning in ``<think>`` tags is
    skipped. A plan that does not split is not checked further.

    Args:
        text: The reply.
        max_steps: Maximum number of steps. A longer plan is refused, not cut off.
        models: Names of which each step must have one as ``model``. None accepts any text, and
            none.

    Raises:
        PlanError: The reply holds no such object or several, or the plan breaks the schema: wrong
            keys or types, too many steps, an empty text, an id given twice, a dependency on the
            step itself or on an unknown one, a cycle, or an LLM that is not in ``models``.
    """
    found = _only_plan(text)
    needs_split, steps = found.get("needs_split"), found.get("steps", [])
    faults = [f"unknown key {key}" for key in _unknown(found, ("needs_split", "steps"))]
    if not isinstance(needs_split, bool):
        faults.append("needs_split: expected true or false")
    elif not needs_split and not faults:
        return Plan(False)
    if not isinstance(steps, list) or not steps:
        raise PlanError([*faults, "steps: expected a list of at least one step"])
    if len(steps) > max_steps:
        raise PlanError([*faults, f"steps: {len(steps)} are too many; at most {max_steps}"])
    read = [_step(one, f"step {i}", models, faults) for i, one in enumerate(steps, 1)]
    if not faults:
        faults += _graph_faults(read)
    if faults:
        raise PlanError(faults)
    return Plan(True, tuple(read))


def _only_plan(text: str) -> Mapping[str, Any]:
    if len(text) > _MOST_CHARACTERS:
        raise PlanError([f"the reply is longer than {_MOST_CHARACTERS} characters"])
    found = [one for one in _objects(_REASONING.sub("", text)) if "needs_split" in one]
    if not found:
        raise PlanError(["the reply holds no JSON object with the key needs_split"])
    if any(one != found[0] for one in found):
        raise PlanError([f"the reply holds {len(found)} different plans; expected one"])
    return found[0]


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Yield the JSON objects in a text that are not part of another."""
    decoder = json.JSONDecoder(strict=False)  # small LLMs break lines within texts
    start = text.find("{")
    for _ in range(_MOST_STARTS):
        if start < 0:
            return
        try:
            found, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            end = start + 1
        else:
            yield found
        start = text.find("{", end)


def _unknown(found: Mapping[str, Any], known: Sequence[str]) -> list[str]:
    return [json.dumps(key)[:40] for key in found if key not in known]


def _step(step: Any, where: str, models: Collection[str] | None, faults: list[str]) -> PlanStep:
    """Read a step and append what is wrong with it."""
    if not isinstance(step, dict):
        faults.append(f"{where}: expected an object with id, text and depends_on")
        return PlanStep("", "")
    known = ("id", "text", "depends_on", "model")
    faults += [f"{where}: unknown key {key}" for key in _unknown(step, known)]
    id_, text, needs = step.get("id"), step.get("text"), step.get("depends_on", [])
    if not _is_id(id_):
        faults.append(f"{where}: id: expected a number or a short text")
    if not _is_text(text):
        faults.append(f"{where}: text: expected a question that is not empty")
    if not isinstance(needs, list) or not all(map(_is_id, needs)):
        faults.append(f"{where}: depends_on: expected a list of ids of other steps")
        needs = []
    model = step.get("model")
    if models is None and not (model is None or isinstance(model, str)):
        faults.append(f"{where}: model: expected the name of a model")
    if models is not None and not (isinstance(model, str) and model in models):
        faults.append(f"{where}: model: expected one of {names(sorted(models))}")
    return PlanStep(str(id_), str(text), tuple(dict.fromkeys(map(str, needs))), model)


def _is_id(value: Any) -> bool:
    if isinstance(value, str):
        return 0 < len(value) <= 40
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: Any) -> bool:
    if not isinstance(value, str) or not value.strip():
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no engine takes
        return False
    return True


def _graph_faults(steps: Sequence[PlanStep]) -> list[str]:
    ids = [step.id for step in steps]
    faults = [f"step {i}: its id is given twice" for i, id_ in enumerate(ids, 1) if _twice(ids, i)]
    for i, step in enumerate(steps, 1):
        if step.id in step.depends_on:
            faults.append(f"step {i}: depends on itself")
        if any(one not in ids for one in step.depends_on):
            faults.append(f"step {i}: depends on a step that is not there")
    if faults:
        return faults
    settled: set[str] = set()
    while free := {s.id for s in steps if set(s.depends_on) <= settled} - settled:
        settled |= free
    left = [str(i) for i, step in enumerate(steps, 1) if step.id not in settled]
    return [f"steps {names(left)}: depend on each other in a circle"] if left else []


def _twice(ids: Sequence[str], number: int) -> bool:
    return ids[number - 1] in ids[: number - 1]


@dataclass(frozen=True)
class PlanResults:
    """The results of a plan's calls so far.

    Attributes:
        plan: The plan.
        tries: The results of each step, by id, in order; a step is tried at most twice.
        max_parallel: Maximum number of steps in a wave.
    """

    plan: Plan
    tries: Mapping[str, tuple[CallResult, ...]]
    max_parallel: int

    @classmethod
    def of(
        cls, plan: Plan, waves: Sequence[Sequence[CallResult]], max_parallel: int
    ) -> PlanResults:
        """Assign the results of the waves to the steps, by position.

        The steps of a wave depend on plan and results only, so that this needs no record of them.
        """
        now = cls(plan, {step.id: () for step in plan.steps}, max_parallel)
        for wave in waves:
            tried = dict(now.tries)
            for step, result in zip(now.ready(), wave, strict=False):
                tried[step.id] = (*tried[step.id], result)
            now = cls(plan, tried, max_parallel)
        return now

    def ready(self) -> tuple[PlanStep, ...]:
        """Return the steps of the next wave, in the order of the plan; empty at the end."""
        settled = {id_ for id_, tries in self.tries.items() if len(tries) > 1 or self.said(id_)}
        ready = (
            step
            for step in self.plan.steps
            if step.id not in settled and set(step.depends_on) <= settled
        )
        return tuple(ready)[: self.max_parallel]

    def said(self, step: str) -> str | None:
        """Return the answer to a step, or None; a blank text is no answer."""
        texts = [result.text for result in self.tries[step] if result.ok and result.text]
        return next((text for text in texts if text.strip()), None)

    @property
    def answered(self) -> bool:
        """Whether any step has an answer."""
        return any(self.said(step.id) for step in self.plan.steps)
