"""The rules of an episode, the same in training and in serving.

`waypost_rl.environment` plays episodes in tokens for training, `waypost_rl.served_episode` plays
them from the results of calls. Both ask these rules what a generation means and what follows it, so
that a trained policy meets at serving what it met in training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from waypost_rl.prompt import MAX_SEARCHES
from waypost_rl.protocol import (
    INFORMATION_TOKENS,
    STOP_STRINGS,
    Action,
    Answer,
    Candidates,
    Delegate,
    Malformed,
    close_action,
    cut_after_action,
    observe,
    parse_action,
)


def estimate_tokens(text: str) -> int:
    """Estimate the tokens of a text: a quarter of its bytes. A router has no tokenizer."""
    return -(-len(text.encode("utf-8", "surrogatepass")) // 4)


def before_stop(text: str) -> str | None:
    """Return the text before the first stop string, as an engine returns it; None without one."""
    ends = [at for stop in STOP_STRINGS if (at := text.find(stop)) >= 0]
    return text[: min(ends)] if ends else None


def unchanged(text: str) -> str:
    """Return the text."""
    return text


@dataclass(frozen=True, slots=True)
class Rules:
    """What a generation of the policy means, and what the environment does then.

    Attributes:
        candidates: LLMs that a search may name.
        max_turns: Maximum searches and malformed actions; one more generation may only answer.
        information_tokens: Maximum estimated tokens of an information block.
        corrective: See `waypost_rl.protocol.observe`.
        clean: Applied to replies before they enter the transcript.
    """

    candidates: Candidates
    max_turns: int = MAX_SEARCHES
    information_tokens: int = INFORMATION_TOKENS
    corrective: bool = True
    clean: Callable[[str], str] = unchanged

    def read(self, generation: str, *, cut_off: bool) -> tuple[str, Action]:
        """Return a generation up to its action, and the action.

        Args:
            generation: Its text, without the stop string that ended it.
            cut_off: Whether the limit of tokens ended it. Otherwise an action that is still open
                is closed: engines leave the stop string out.
        """
        text = cut_after_action(generation if cut_off else close_action(generation))
        return text, parse_action(text, self.candidates)

    def follow(
        self, action: Action, turns: int, replies: Mapping[Delegate, str]
    ) -> Delegate | str | None:
        """Return what follows an action.

        Args:
            action: The action.
            turns: Generations of the policy so far, that of the action included.
            replies: Searches that were answered before, with their replies.

        Returns:
            The search to send; or the environment's text, which may be empty; or None: the
            policy's part is over.
        """
        if isinstance(action, Answer) or turns > self.max_turns:
            return None
        if isinstance(action, Malformed):
            return self.observation(action, None)
        if action in replies:
            return self.observation(action, replies[action])
        return action

    def observation(self, action: Delegate | Malformed, reply: str | None) -> str:
        """Return the environment's text; a failed call and an unknown name give the word None."""
        unknown = isinstance(action, Malformed) and action.fault == "unknown_candidate"
        return observe(
            action,
            None if reply is None else self.clean(reply),
            self.candidates,
            estimate_tokens,
            budget=self.information_tokens,
            corrective=self.corrective and not unknown,
        )
