"""The environment of training: episodes in the policy's tokens, by the rules of serving.

It knows no trainer, no network and no tokenizer. A `waypost_rl.training.rollout` asks the policy
and the candidates; this module says what their texts do to an episode. Sampled tokens are kept as
they are: the text of an episode is never encoded again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from waypost.contracts.errors import ConfigError, Fault, SchemaError
from waypost.contracts.questions import Question
from waypost_rl.chat import Codec
from waypost_rl.prompt import MAX_SEARCHES, PromptForm, budget_word
from waypost_rl.protocol import INFORMATION_TOKENS, Candidates, Delegate
from waypost_rl.reward import Call
from waypost_rl.rules import Rules, before_stop
from waypost_rl.token_episode import TokenEpisode
from waypost_rl.training.parts import Reply, Sampled


class PromptTooLongError(SchemaError):
    """A question's prompt exceeds the limit of tokens."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of an episode, each at least 1. Tokens are the policy's.

    Attributes:
        max_turns: Maximum searches and malformed actions; after them one last generation may only
            answer, and a search in it is not sent.
        policy_tokens: Maximum tokens of a generation.
        prompt_tokens: Maximum tokens of the prompt.
        information_tokens: Maximum tokens of a reply, estimated as serving does
            (`waypost_rl.rules.estimate_tokens`): a quarter of its bytes.
        response_tokens: Maximum tokens after the prompt, of policy and environment together. An
            episode ends without an answer when the next block and one token do not fit.
    """

    max_turns: int = MAX_SEARCHES
    policy_tokens: int = 1024
    prompt_tokens: int = 2048
    information_tokens: int = INFORMATION_TOKENS
    response_tokens: int = 4096

    def __post_init__(self) -> None:
        if wrong := [
            Fault(f"limits: {name}", f"is {value}; expected at least 1")
            for name in self.__slots__
            if (value := getattr(self, name)) < 1
        ]:
            raise ConfigError(wrong)


@dataclass(frozen=True)
class Environment:
    """Plays episodes; a policy and candidates write their texts.

    Attributes:
        candidates: LLMs that a search may name.
        descriptions: The policy's name of a candidate -> its strengths, in the prompt's order.
        codec: The policy's tokenizer.
        limits: Limits of an episode.
        form: Form of the prompt. Its number of searches is that of ``limits``.
        begin_ids: Tokens before every prompt; see `waypost_rl.chat.Chat`.
        budget: Whether the prompt says how much the candidates may cost, in words of alpha.
        corrective: Whether malformed actions are explained; see `waypost_rl.protocol.observe`.

    Raises:
        SchemaError: A described name is not a candidate.
    """

    candidates: Candidates
    descriptions: Mapping[str, str]
    codec: Codec
    limits: Limits = field(default_factory=Limits)
    form: PromptForm = field(default_factory=PromptForm)
    begin_ids: tuple[int, ...] = ()
    budget: bool = True
    corrective: bool = True

    def __post_init__(self) -> None:
        for spelling in self.descriptions:
            if self.candidates.resolve(spelling) is None:
                raise SchemaError(f"environment: {spelling!r} is described, but is no candidate")

    @property
    def rules(self) -> Rules:
        """The rules of the episodes."""
        return Rules(
            self.candidates,
            self.limits.max_turns,
            self.limits.information_tokens,
            self.corrective,
            self.form.clean,
        )

    def prompt(self, question: Question, alpha: float) -> str:
        """Return the prompt of a question, in its frame.

        Raises:
            SchemaError: See `waypost_rl.prompt.render_prompt`.
        """
        form = replace(self.form, max_searches=self.limits.max_turns)
        budget = budget_word(alpha) if self.budget else None
        return form.text(question.query, self.descriptions, budget)

    def start(self, question: Question, alpha: float = 0.0) -> TokenEpisode:
        """Return the episode of a question before the policy's first generation.

        Args:
            question: What is asked.
            alpha: Weight of cost, in [0, 1).

        Raises:
            PromptTooLongError: The prompt is longer than ``limits.prompt_tokens``.
            ConfigError: ``alpha`` is outside [0, 1).
            SchemaError: See `waypost_rl.prompt.render_prompt`.
        """
        if not 0.0 <= alpha < 1.0:
            raise ConfigError(f"environment: alpha is {alpha:g}; expected 0 <= alpha < 1")
        ids = (*self.begin_ids, *self.codec.encode(self.prompt(question, alpha)))
        if len(ids) > self.limits.prompt_tokens:
            raise PromptTooLongError(
                f"question {question.query_id}: its prompt has {len(ids)} tokens; expected at most "
                f"{self.limits.prompt_tokens}: leave the question out, or raise prompt_tokens"
            )
        return TokenEpisode(question, ids, alpha=alpha)

    def max_tokens(self, episode: TokenEpisode) -> int:
        """Return the maximum tokens of the episode's next generation, at least 1."""
        left = self.limits.response_tokens - len(episode.response_ids)
        return max(1, min(self.limits.policy_tokens, left))

    def generated(self, episode: TokenEpisode, sampled: Sampled) -> TokenEpisode:
        """Return the episode after a generation of the policy.

        It is over, or has a search to send, or contains the environment's text. What the policy
        wrote after its action stays in its tokens, and so does an action without its closing tag.
        The action is what an engine and the router make of the generation.

        Args:
            episode: Not over, without a search to send.
            sampled: The generation.
        """
        text = self.codec.decode(sampled.ids)
        turns = episode.turns + 1
        episode = replace(episode.add("policy", sampled.ids, text), turns=turns)
        served = before_stop(text)
        cut_off = served is None and sampled.reason == "length"
        _, action = self.rules.read(text if served is None else served, cut_off=cut_off)
        follows = self.rules.follow(action, turns, dict(episode.answered))
        full = len(episode.response_ids) >= self.limits.response_tokens
        if follows is None or full:
            return replace(episode, done=True)
        if isinstance(follows, Delegate):
            return replace(episode, pending=follows)
        return self._told(episode, follows)

    def replied(self, episode: TokenEpisode, reply: Reply) -> TokenEpisode:
        """Return the episode after the reply to its search.

        Args:
            episode: With a search to send.
            reply: The reply; one without text gives the word None, and the search may be repeated.

        Raises:
            SchemaError: The episode has no search to send.
        """
        search = episode.pending
        if search is None:
            raise SchemaError("environment: a reply came, but the episode has no search to send")
        failed = reply.text is None
        call = Call(search.candidate, 0 if failed else reply.output_tokens, reply.input_tokens)
        answered = episode.answered
        if reply.text is not None:
            answered = (*answered, (search, reply.text))
        episode = replace(
            episode,
            pending=None,
            calls=(*episode.calls, call),
            answered=answered,
            failed_calls=episode.failed_calls + failed,
        )
        return self._told(episode, self.rules.observation(search, reply.text))

    def _told(self, episode: TokenEpisode, text: str) -> TokenEpisode:
        """Add the environment's text; end the episode where it or a further token does not fit."""
        ids = tuple(self.codec.encode(text)) if text else ()
        if len(episode.response_ids) + len(ids) >= self.limits.response_tokens:
            return replace(episode, done=True)
        return episode.add("environment", ids, text)
