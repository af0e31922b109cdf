"""The reward of a finished episode: the parts of `reward` applied to a transcript."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from waypost_rl.format_rules import FormatFault, final_answer, format_faults
from waypost_rl.protocol import Candidates
from waypost_rl.reward import (
    Call,
    CostScale,
    Price,
    Rule,
    delegation_cost,
    outcome_reward,
    total_reward,
)
from waypost_rl.transcript import Transcript


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """Settings of the reward; the defaults are the reference code's.

    Attributes:
        alpha: Weight of cost, in [0, 1).
        outcome: Name of the scorer of answers (`waypost.scorers`).
        rule: Formula that combines outcome and cost, see `reward.total_reward`.
        exactly_one_colon: Require exactly one colon in a search, as the reference code does.
        include_input: Count the candidates' input tokens as well.
    """

    alpha: float = 0.0
    outcome: str = "exact_match"
    rule: Rule = "reference"
    exactly_one_colon: bool = False
    include_input: bool = False


@dataclass(frozen=True, slots=True)
class EpisodeReward:
    """The parts of one episode's reward.

    Attributes:
        total: Reward for training, placed on the policy's last token; -1, or in [0, 1].
        form: -1 if a format rule is broken, else 0.
        outcome: In [0, 1], also if a format rule is broken.
        cost_usd_millionths: Cost of the calls to the candidates, in millionths of a US dollar.
        cost: Cost reward in [0, 1]; high is cheap.
        faults: The broken format rules.
    """

    total: float
    form: float
    outcome: float
    cost_usd_millionths: float
    cost: float
    faults: tuple[FormatFault, ...]


def score_episode(
    transcript: Transcript,
    gold: str | Sequence[str],
    calls: Sequence[Call],
    candidates: Candidates,
    prices: Mapping[str, Price],
    scale: CostScale,
    settings: RewardSettings | None = None,
    *,
    choices: Sequence[Mapping[str, str]] | None = None,
    query: str | None = None,
) -> EpisodeReward:
    """Score one episode.

    Args:
        transcript: The episode after the prompt.
        gold: Accepted answers.
        calls: Calls that reached a candidate.
        candidates: The pool.
        prices: Price of each candidate.
        scale: Of the cost reward.
        settings: Of the reward; default the reference code's.
        choices: Options of a multiple-choice question.
        query: The question, which some scorers read.

    Raises:
        SchemaError: A queried candidate has no price.
        ConfigError: ``alpha`` is outside [0, 1).
    """
    settings = settings or RewardSettings()
    faults = format_faults(transcript, candidates, exactly_one_colon=settings.exactly_one_colon)
    outcome = outcome_reward(final_answer(transcript), gold, settings.outcome, choices, query)
    spent = delegation_cost(calls, prices, include_input=settings.include_input)
    cost = scale.reward(spent)
    return EpisodeReward(
        total=total_reward(not faults, outcome, cost, settings.alpha, settings.rule),
        form=-1.0 if faults else 0.0,
        outcome=outcome,
        cost_usd_millionths=spent,
        cost=cost,
        faults=faults,
    )
