"""Records of an episode: calls, their results, and the actions of a step router.

They are sent between processes as plain dicts (`to_dict` / `from_dict`): the router may run in
another process than the loop that calls the LLMs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self, TypeAlias, TypeVar

from waypost.contracts.errors import SchemaError
from waypost.contracts.records import Query

ANSWER = "answer"
"""Purpose of a call whose answer may become the answer of the episode."""

PURPOSES = (ANSWER, "verify", "plan", "repair", "step", "merge", "policy", "search")
"""Purposes that metrics count apart; a router may name others."""


@dataclass(frozen=True, slots=True)
class Call:
    """One LLM call that a step router asks for.

    Attributes:
        model: Name of the LLM.
        prompt: The prompt, sent as one user message unless `raw`.
        max_tokens: Most tokens of the answer; None is the engine's default.
        temperature: 0 is greedy.
        seed: Seed of sampling; None leaves it to the engine.
        purpose: Purpose of the call, named by the router: one of `PURPOSES`, or another.
        final: Whether an answer to this call ends the episode, so that it can be streamed to the
            client. The router is asked again only where the call fails.
        stop: Strings that end the answer; they are not part of it.
        raw: Whether the LLM continues the prompt as plain text, without a chat template.
    """

    model: str
    prompt: str
    max_tokens: int | None = None
    temperature: float = 0.0
    seed: int | None = None
    purpose: str = ANSWER
    final: bool = False
    stop: tuple[str, ...] = ()
    raw: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Call:
        """Rebuild a call.

        Raises:
            SchemaError: on a missing or an unknown key.
        """
        return _build(cls, data, stop=tuple)


@dataclass(frozen=True, slots=True)
class CallResult:
    """The result of a call.

    Attributes:
        call: The call.
        text: The answer; None where there is none.
        error: Why there is none; None where there is one.
        input_tokens: Prompt tokens used.
        output_tokens: Generated tokens.
        cost_usd: Dollars; None where unknown.
        cancelled: Whether it was cancelled: its step was settled without it, or a cap was reached.
    """

    call: Call
    text: str | None
    error: str | None = None
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: float | None = None
    cancelled: bool = False

    @property
    def ok(self) -> bool:
        """Whether there is an answer."""
        return self.text is not None and self.error is None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> CallResult:
        """Rebuild a result.

        Raises:
            SchemaError: on a missing or an unknown key.
        """
        return _build(cls, data, call=Call.from_dict)


@dataclass(frozen=True, slots=True)
class Vote:
    """Rule by which the answers so far settle a step of n calls, so that the rest is cancelled.

    The router's next action depends only on the number of answers that match. The vote is settled
    as soon as every number that is still possible has the same outcome. ``Vote("", (0, 1, 1))`` is
    a race of two calls: the first answer settles it.

    Attributes:
        pattern: Regular expression, searched in an answer. A failed call does not match.
        outcomes: n + 1 values: the outcome of 0, 1, ... n matching answers.
    """

    pattern: str
    outcomes: tuple[int, ...]

    def matches(self, result: CallResult) -> bool:
        """Return whether a result matches."""
        return result.text is not None and re.search(self.pattern, result.text) is not None

    def outcome(self, results: Sequence[CallResult | None]) -> int | None:
        """Return the outcome, or None while the vote is open.

        Args:
            results: One for each call. None and a cancelled result count as not known.
        """
        known = [result for result in results if result is not None and not result.cancelled]
        low = sum(self.matches(result) for result in known)
        possible = set(self.outcomes[low : low + len(results) - len(known) + 1])
        return possible.pop() if len(possible) == 1 else None


@dataclass(frozen=True, slots=True)
class Delegate:
    """Make these calls at the same time.

    Attributes:
        calls: At least one.
        vote: Ends the step before all calls are done; None waits for all.
    """

    calls: tuple[Call, ...]
    vote: Vote | None = None

    def __post_init__(self) -> None:
        if not self.calls:
            raise SchemaError("Delegate: asks nobody; give at least one call")
        if len(self.calls) > 1 and any(call.final for call in self.calls):
            raise SchemaError("Delegate: a final call stands alone: there is one answer")
        if self.vote is not None and len(self.vote.outcomes) != len(self.calls) + 1:
            raise SchemaError(
                f"Delegate: a vote of {len(self.calls)} calls has {len(self.calls) + 1} outcomes; "
                f"got {len(self.vote.outcomes)}"
            )


@dataclass(frozen=True, slots=True)
class FinalAnswer:
    """End the episode.

    Attributes:
        text: The answer; None where no LLM gave one.
        model: The LLM whose answer it is; None where it is the router's own.
    """

    text: str | None
    model: str | None = None


Action: TypeAlias = "Delegate | FinalAnswer"


def action_to_dict(action: Action) -> dict[str, Any]:
    """Return plain data: the action's fields, and its kind under ``action``."""
    kind = "answer" if isinstance(action, FinalAnswer) else "delegate"
    return {"action": kind, **asdict(action)}


def action_from_dict(data: Mapping[str, Any]) -> Action:
    """Rebuild an action.

    Raises:
        SchemaError: the data is not an action.
    """
    rest = {key: value for key, value in data.items() if key != "action"}
    if data.get("action") == "answer":
        return _build(FinalAnswer, rest)
    if data.get("action") != "delegate":
        raise SchemaError(f"action: {data.get('action')!r}; expected 'delegate' or 'answer'")
    return _build(Delegate, rest, calls=_calls, vote=_vote)


@dataclass(frozen=True)
class EpisodeState:
    """The input of a step router: the query and the results of every step so far."""

    query: Query
    steps: tuple[tuple[CallResult, ...], ...] = field(default=())

    def after(self, results: Sequence[CallResult]) -> Self:
        """Return the state with one more step."""
        return replace(self, steps=(*self.steps, tuple(results)))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "query": asdict(self.query),
            "steps": [[result.to_dict() for result in step] for step in self.steps],
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> EpisodeState:
        """Rebuild a state.

        Raises:
            SchemaError: on a missing or an unknown key.
        """
        return _build(cls, data, query=_query, steps=_steps)


_T = TypeVar("_T")


def _build(cls: type[_T], data: Mapping[str, Any], **read: Any) -> _T:
    known = {f.name for f in fields(cls)}  # type: ignore[arg-type]
    if not isinstance(data, Mapping) or set(data) - known:
        raise SchemaError(f"{cls.__name__}: expected a mapping of {', '.join(sorted(known))}")
    try:
        return cls(**{key: read[key](v) if key in read else v for key, v in data.items()})
    except TypeError as error:
        raise SchemaError(f"{cls.__name__}: {error}") from None


def _calls(data: Sequence[Mapping[str, Any]]) -> tuple[Call, ...]:
    return tuple(Call.from_dict(one) for one in data)


def _vote(data: Mapping[str, Any] | None) -> Vote | None:
    return None if data is None else _build(Vote, data, outcomes=tuple)


def _steps(data: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[tuple[CallResult, ...], ...]:
    return tuple(tuple(CallResult.from_dict(one) for one in step) for step in data)


def _query(data: Mapping[str, Any]) -> Query:
    return _build(Query, data, allowed_models=lambda names: None if names is None else tuple(names))
