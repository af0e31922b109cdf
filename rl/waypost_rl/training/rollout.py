"""Play a batch of episodes between the policy and the candidates, all rows in step."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence

from waypost.contracts.questions import Question
from waypost_rl.environment import Environment, PromptTooLongError
from waypost_rl.token_episode import TokenEpisode
from waypost_rl.training.parts import Ask, DelegatePool, Reply, Sampler

logger = logging.getLogger(__name__)


def fitting(
    questions: Iterable[Question], environment: Environment, alpha: float = 0.0
) -> tuple[list[Question], int]:
    """Return the questions whose prompt is within the limit, and the number of those left out.

    A run calls it once, so that its batches keep their size.
    """
    kept, left_out = [], 0
    for question in questions:
        try:
            environment.start(question, alpha)
        except PromptTooLongError:
            left_out += 1
        else:
            kept.append(question)
    return kept, left_out


async def roll_out(
    questions: Sequence[tuple[Question, float]],
    environment: Environment,
    sampler: Sampler,
    pool: DelegatePool,
    *,
    seed: int,
    temperature: float = 1.0,
) -> list[TokenEpisode]:
    """Play one episode for each question; the batch ends with its longest episode.

    In each round the policy writes for all rows that are not over, then all their searches are
    sent at once. A round takes as long as its slowest reply, which is at most the pool's time-out.

    Args:
        questions: Questions, each with its weight of cost alpha in [0, 1). A question can stand
            several times.
        environment: Rules and limits.
        sampler: The policy.
        pool: The candidates.
        seed: Of the sampling. The same seed, policy and replies give the same episodes.
        temperature: Of the sampling; 0 takes the most likely token.

    Returns:
        The finished episodes in the order of the questions. Questions whose prompt is too long are
        left out with a warning; see `fitting`.
    """
    episodes: list[TokenEpisode] = []
    for question, alpha in questions:
        try:
            episodes.append(environment.start(question, alpha))
        except PromptTooLongError as error:
            logger.warning("left out of the batch: %s", error)
    if not episodes:
        return []
    sampler.begin(len(episodes), seed=seed, temperature=temperature)
    added = {row: episode.prompt_ids for row, episode in enumerate(episodes)}
    while added:
        limits = {row: environment.max_tokens(episodes[row]) for row in added}
        for row, sampled in sampler.turn(added, limits).items():
            episodes[row] = environment.generated(episodes[row], sampled)
        asking = [row for row in added if episodes[row].pending is not None]
        replies = await asyncio.gather(*(_ask(episodes[row], pool) for row in asking))
        for row, reply in zip(asking, replies, strict=True):
            episodes[row] = environment.replied(episodes[row], reply)
        added = {row: episodes[row].told_ids for row in added if not episodes[row].done}
    return episodes


async def _ask(episode: TokenEpisode, pool: DelegatePool) -> Reply:
    search = episode.pending
    assert search is not None  # only rows with a search ask
    return await pool.ask(Ask(search.candidate, search.query, episode.question))
