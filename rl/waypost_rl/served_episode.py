"""The state of a served episode: transcript and pending search, from the results of its calls."""

from __future__ import annotations

from dataclasses import dataclass, field

from waypost.contracts.steps import ANSWER, CallResult, EpisodeState
from waypost_rl.protocol import Answer, Delegate
from waypost_rl.rules import Rules
from waypost_rl.transcript import Transcript

POLICY, SEARCH = "policy", "search"
"""Purposes of the calls of an episode, besides `ANSWER`."""


@dataclass(slots=True)
class Played:
    """An episode, played from its results.

    Attributes:
        transcript: The text after the prompt.
        turns: Generations of the policy.
        pending: The search to send next; None if the policy writes next.
        answer: Text of the answer block; None without one that has text.
        failed: Whether a call of the policy failed.
        finals: Results of the calls of LLMs that answer instead of the policy.
    """

    transcript: Transcript = field(default_factory=Transcript)
    turns: int = 0
    pending: Delegate | None = None
    answer: str | None = None
    failed: bool = False
    finals: list[CallResult] = field(default_factory=list)
    _replies: dict[Delegate, str] = field(default_factory=dict)

    def replied(self, result: CallResult, rules: Rules) -> None:
        """Add the reply to the pending search."""
        if self.pending is None:
            return
        reply = result.text if result.ok else None
        if reply is not None:
            self._replies[self.pending] = reply
        text = rules.observation(self.pending, reply)
        self.transcript = self.transcript.add("environment", text)
        self.pending = None

    def wrote(self, result: CallResult, rules: Rules) -> None:
        """Add a generation of the policy."""
        self.turns += 1
        if not result.ok:
            self.failed = True
            return
        most = result.call.max_tokens
        cut_off = most is not None and result.output_tokens >= most
        text, action = rules.read(result.text or "", cut_off=cut_off)
        self.transcript = self.transcript.add("policy", text)
        if isinstance(action, Answer):
            self.answer = action.text or None
            self.failed = self.answer is None
        follows = rules.follow(action, self.turns, self._replies)
        if isinstance(follows, Delegate):
            self.pending = follows
        elif follows is not None:
            self.transcript = self.transcript.add("environment", follows)


def play(state: EpisodeState, rules: Rules) -> Played:
    """Play an episode from its results. Pure."""
    played = Played()
    for results in state.steps:
        for result in results:
            if result.call.purpose == POLICY:
                played.wrote(result, rules)
            elif result.call.purpose == SEARCH:
                played.replied(result, rules)
            elif result.call.purpose == ANSWER:
                played.finals.append(result)
    return played
