"""The state of a served episode: transcript and pending search, from the results of its calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from waypost.contracts.steps import ANSWER, CallResult, EpisodeState
from waypost_rl.protocol import (
    Answer,
    Candidates,
    Delegate,
    Malformed,
    close_action,
    cut_after_action,
    observe,
    parse_action,
)
from waypost_rl.transcript import Transcript

POLICY, SEARCH = "policy", "search"
"""Purposes of the calls of an episode, besides `ANSWER`."""


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text: a quarter of its bytes. A router has no tokenizer."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


@dataclass(frozen=True, slots=True)
class Rules:
    """Rules by which results become observations.

    Attributes:
        candidates: LLMs that a search may name.
        information_tokens: Maximum estimated tokens of an information block.
        corrective: See `waypost_rl.protocol.observe`.
        clean: Applied to replies before they enter the transcript.
    """

    candidates: Candidates
    information_tokens: int
    corrective: bool
    clean: Callable[[str], str]


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

    def observe(self, action: Delegate | Malformed, reply: str | None, rules: Rules) -> None:
        """Add the environment's text after an action; an unknown name gets the word None."""
        unknown = isinstance(action, Malformed) and action.fault == "unknown_candidate"
        text = observe(
            action,
            None if reply is None else rules.clean(reply),
            rules.candidates,
            estimate_tokens,
            budget=rules.information_tokens,
            corrective=rules.corrective and not unknown,
        )
        self.transcript = self.transcript.add("environment", text)

    def replied(self, result: CallResult, rules: Rules) -> None:
        """Add the reply to the pending search."""
        if self.pending is None:
            return
        if result.ok:
            self._replies[self.pending] = result.text or ""
        self.observe(self.pending, result.text if result.ok else None, rules)
        self.pending = None

    def wrote(self, result: CallResult, rules: Rules) -> None:
        """Add a generation of the policy; a search that was answered before is answered alike."""
        self.turns += 1
        if not result.ok:
            self.failed = True
            return
        text, most = result.text or "", result.call.max_tokens
        cut_off = most is not None and result.output_tokens >= most
        text = cut_after_action(text if cut_off else close_action(text))
        self.transcript = self.transcript.add("policy", text)
        action = parse_action(text, rules.candidates)
        if isinstance(action, Answer):
            self.answer = action.text or None
            self.failed = self.answer is None
        elif isinstance(action, Malformed):
            self.observe(action, None, rules)
        elif action in self._replies:
            self.observe(action, self._replies[action], rules)
        else:
            self.pending = action


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
