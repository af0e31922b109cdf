"""The reward of an episode by the config of a run."""

from __future__ import annotations

from collections.abc import Mapping

from waypost_rl.episode_reward import EpisodeReward, RewardSettings, score_episode
from waypost_rl.protocol import Candidates
from waypost_rl.reward import CostScale, Price
from waypost_rl.token_episode import TokenEpisode
from waypost_rl.training.config import RewardConfig


def score(
    episode: TokenEpisode,
    alpha: float,
    settings: RewardConfig,
    candidates: Candidates,
    prices: Mapping[str, Price],
    scale: CostScale,
) -> EpisodeReward:
    """Return the reward of a finished episode.

    Args:
        episode: The episode.
        alpha: Weight of cost, in [0, 1).
        settings: Of the reward.
        candidates: The pool.
        prices: Price of each candidate.
        scale: Of the cost reward.
    """
    question = episode.question
    return score_episode(
        episode.transcript,
        question.ground_truth,
        episode.calls,
        candidates,
        prices,
        scale,
        RewardSettings(
            alpha=alpha,
            outcome=question.metric if settings.outcome == "metric" else settings.outcome,
            rule=settings.rule,
            exactly_one_colon=settings.exactly_one_colon,
            include_input=settings.include_input,
        ),
        choices=question.choices,
        query=question.query,
    )
