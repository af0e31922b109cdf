"""What is said on the page: talks of turns, and the answers with all that is known of them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

View = Literal["chat", "side", "battle"]
"""``chat``: one answer; ``side``: two, with names; ``battle``: two, named after the vote."""

Vote = Literal["left", "right", "tie", "both_bad"]
State = Literal["asking", "answered", "stopped", "failed"]

_TITLE = 48


class _Kept(BaseModel):
    # a browser may hold talks of an earlier or a later version
    model_config = ConfigDict(extra="ignore")


class Step(_Kept):
    """One call of an episode; see the progress of docs/serving.md."""

    number: int
    purpose: str
    model: str
    state: str
    seconds: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None


class Answer(_Kept):
    """An answer, and what the gateway told of it.

    Attributes:
        asked: Name that was asked for: ``auto``, a router, or an LLM.
        text: What was said so far; reasoning: what was thought.
        state: What has become of it.
        error: The sentence that says why it failed.
        request_id: For feedback; None before the gateway told it.
        model: The LLM that answers.
        decision: As `Decision.to_dict`, with the fields of ``/v1/route``.
        reason: Why that LLM answers, after failovers.
        failed: LLMs that were asked and did not answer.
        attempts: Number of calls tried.
        steps: The calls of an episode.
        input_tokens: Prompt tokens of all calls; output_tokens: generated ones.
        cost_usd: What it cost; predicted_usd: what was predicted for the LLM that answers.
        dearest_usd: What these tokens cost at the prices of the dearest LLM.
        seconds: From the question to the end; first_token_s: to the first token.
        session_token: To be returned with the next turn.
        rating: 1 for a thumb up, 0 for down.
        rating_reason: The user's reason of the rating.
    """

    asked: str = "auto"
    text: str = ""
    reasoning: str = ""
    state: State = "asking"
    error: str | None = None
    request_id: str | None = None
    model: str | None = None
    decision: dict[str, Any] = Field(default_factory=dict)
    reason: str | None = None
    failed: list[str] = Field(default_factory=list)
    attempts: int = 0
    steps: list[Step] = Field(default_factory=list)
    input_tokens: int | None = None
    output_tokens: int | None = None
    cost_usd: float | None = None
    predicted_usd: float | None = None
    dearest_usd: float | None = None
    seconds: float | None = None
    first_token_s: float | None = None
    session_token: str | None = None
    rating: float | None = None
    rating_reason: str | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Take one event of the gateway's stream."""
        self.model = event.get("model") or self.model
        self.request_id = self.request_id or _request_id(event)
        told = event.get("waypost") or {}
        if "decision" in told:
            self._decided(told["decision"])
        if "step" in told:
            self._stepped(Step.model_validate(told["step"]))
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            self.text += delta.get("content") or delta.get("refusal") or ""
            self.reasoning += delta.get("reasoning_content") or ""
        if event.get("usage"):
            self._counted(event["usage"])

    def _decided(self, decision: Mapping[str, Any]) -> None:
        self.decision = dict(decision)
        self.reason = decision.get("reason")
        costs = decision.get("cost_usd") or {}
        self.predicted_usd = costs.get(self.model or decision.get("model_name"))

    def _stepped(self, step: Step) -> None:
        if step.number == 1 and step.state == "started":
            self.steps.clear()  # an episode whose router was replaced starts again
        known = [one for one in self.steps if one.number != step.number]
        self.steps = sorted([*known, step], key=lambda one: one.number)

    def _counted(self, usage: Mapping[str, Any]) -> None:
        self.input_tokens = usage.get("prompt_tokens")
        self.output_tokens = usage.get("completion_tokens")
        told = usage.get("waypost") or {}
        if "decision" in told:
            self._decided(told["decision"])
        self.model = told.get("model") or self.model
        self.reason = told.get("reason") or self.reason
        self.failed = list(told.get("failed") or ())
        self.attempts = told.get("attempts") or self.attempts
        self.cost_usd = told.get("cost_usd")
        if told.get("predicted_cost_usd") is not None:
            self.predicted_usd = told["predicted_cost_usd"]
        # of an episode no call's tokens are those of one answer: what was predicted stands for it
        same = told.get("same_tokens_usd") or self.decision.get("cost_usd") or {}
        self.dearest_usd = max((usd for usd in same.values() if usd is not None), default=None)
        self.seconds = told.get("seconds", self.seconds)
        self.first_token_s = told.get("first_token_s", self.first_token_s)
        self.session_token = told.get("session_token")

    def end(self, state: State, error: str | None = None) -> None:
        """Set what became of it; only the first end counts."""
        if self.state == "asking":
            self.state, self.error = state, error


def _request_id(event: Mapping[str, Any]) -> str | None:
    found = event.get("id")
    return found.removeprefix("chatcmpl-") if isinstance(found, str) else None


class Turn(_Kept):
    """A question and its answers: one, or that of the left and that of the right side.

    Attributes:
        discarded: Answers that were asked for again; their dollars were spent all the same.
    """

    question: str
    answers: list[Answer]
    vote: Vote | None = None
    discarded: list[Answer] = Field(default_factory=list)

    @property
    def ended(self) -> bool:
        """Whether no answer is being written."""
        return all(answer.state != "asking" for answer in self.answers)


class Money(_Kept):
    """Dollars of a talk.

    Attributes:
        spent_usd: What was paid.
        dearest_usd: What the same tokens cost at the prices of the dearest LLM.
        unknown: Answers whose price is not known.
    """

    spent_usd: float = 0.0
    dearest_usd: float = 0.0
    unknown: int = 0

    def add(self, answer: Answer) -> None:
        """Count an answer."""
        if answer.cost_usd is None or answer.dearest_usd is None:
            self.unknown += answer.state != "failed"
            return
        self.spent_usd += answer.cost_usd
        self.dearest_usd += answer.dearest_usd


class Talk(_Kept):
    """A talk: its turns, oldest first.

    Attributes:
        id: Id of its session in the gateway.
        view: How its answers are shown.
        names: What each side asks: one name, or two.
        revealed: Whether the names of a battle are shown.
        money: Dollars of all its answers, also of those that were undone.
        at: Seconds since 1970 of its last question.
    """

    id: str = Field(default_factory=lambda: f"talk-{secrets.token_hex(8)}", max_length=100)
    view: View = "chat"
    names: list[str] = Field(default_factory=lambda: ["auto"], min_length=1, max_length=2)
    revealed: bool = False
    turns: list[Turn] = Field(default_factory=list)
    money: Money = Field(default_factory=Money)
    at: float = Field(default_factory=time.time)

    @property
    def title(self) -> str:
        """The beginning of its first question."""
        first = " ".join(self.turns[0].question.split()) if self.turns else "New talk"
        return first if len(first) <= _TITLE else first[: _TITLE - 1] + "…"

    @property
    def blind(self) -> bool:
        """Whether the names of the LLMs are not shown."""
        return self.view == "battle" and not self.revealed

    @property
    def sides(self) -> int:
        """Number of answers to a question."""
        return 1 if self.view == "chat" else 2

    def ask(self, question: str) -> Turn:
        """Add a question, whose answers are then to be asked for."""
        self.at = time.time()
        turn = Turn(question=question, answers=[Answer(asked=name) for name in self.names])
        self.turns.append(turn)
        return turn

    def again(self, index: int, question: str | None = None) -> Turn:
        """Ask a question again, perhaps changed; what was said after it is dropped."""
        del self.turns[index + 1 :]
        turn = self.turns[index]
        self.at = time.time()
        turn.question = turn.question if question is None else question
        turn.discarded += turn.answers
        turn.answers = [Answer(asked=name) for name in self.names]
        turn.vote = None
        return turn

    def undo(self) -> str | None:
        """Take the last question back; return its text."""
        return self.turns.pop().question if self.turns else None

    def messages(self, side: int) -> list[dict[str, str]]:
        """Return what one side has said, with the last question, as messages of OpenAI's API."""
        found: list[dict[str, str]] = []
        for turn in self.turns[:-1]:
            said = turn.answers[min(side, len(turn.answers) - 1)].text
            if said:  # a question without an answer would only confuse the LLM
                found.append({"role": "user", "content": turn.question})
                found.append({"role": "assistant", "content": said})
        return [*found, *({"role": "user", "content": turn.question} for turn in self.turns[-1:])]

    def session_token(self, side: int) -> str | None:
        """Return the session token of the last answer of a side that has one."""
        for turn in reversed(self.turns):
            if side < len(turn.answers) and (token := turn.answers[side].session_token):
                return token
        return None
