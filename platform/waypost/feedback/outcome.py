"""What became of one request: the decision, the LLMs that were asked, and the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from waypost.contracts.generation import Usage
from waypost.contracts.records import Decision


@dataclass(frozen=True, slots=True)
class Arm:
    """The part of an experiment that a request is in.

    Attributes:
        experiment: Name of the experiment.
        router: Name of the router that decides, as the Serve file has it.
        shares: Probability of each router of the experiment.
    """

    experiment: str
    router: str
    shares: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class QuestionVector:
    """A question as a router's encoder embedded it.

    Attributes:
        encoder_id: The encoder.
        data: (d,) float32 numbers, little-endian.
    """

    encoder_id: str
    data: bytes


@dataclass(slots=True)  # not frozen: one is made for each request, and that takes thrice as long
class Outcome:
    """One request that was decided.

    Attributes:
        request_id: Its id.
        at: Unix seconds of the end of the answer, or of the decision where there is none.
        query: The query, as `waypost.contracts.records.Query.of` reads it.
        decision: The router's decision.
        decision_s: Seconds of the decision.
        model: The LLM that answered; None where none did.
        attempts: Calls of LLMs.
        failed: LLMs that were asked and did not answer.
        usage: Tokens of the answer; None where they are unknown.
        cost_usd: Dollars of the answer; None where they are unknown.
        seconds: Seconds from the arrival of the request to the end of the answer.
        finish_reason: Why the answer ended; None where it did not, or where several did.
        error: Why there is no answer, or why it broke off; None where all is well.
        arm: The part of an experiment that it is in.
        shadows: Decisions of shadow routers, as `Decision.to_dict`, by the router's name.
        vector: What a personal router learns about the user from; None where nobody would.
    """

    request_id: str
    at: float
    query: Mapping[str, Any]
    decision: Decision
    decision_s: float | None = None
    model: str | None = None
    attempts: int = 0
    failed: Sequence[str] = ()
    usage: Usage | None = None
    cost_usd: float | None = None
    seconds: float | None = None
    finish_reason: str | None = None
    error: str | None = None
    arm: Arm | None = None
    shadows: Mapping[str, Mapping[str, Any]] | None = None
    vector: QuestionVector | None = None

    @property
    def propensity(self) -> float | None:
        """Probability with which the router chose the LLM that answered; None after a failover."""
        chosen = self.model is None or self.model == self.decision.model
        return self.decision.propensity if chosen else None


def query_digest(text: str) -> str:
    """Return the id of a text; equal texts have equal ids in all files."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def plain(text: str | None) -> str | None:
    """Return a text that every file can hold: lone surrogates are replaced."""
    if text is None or text.isascii():
        return text
    return text.encode("utf-8", "replace").decode("utf-8")
