"""The steps of a training run: sample a batch, reward it, learn, write what happened."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from waypost.contracts.atomic import replacing_folder, write_text
from waypost_rl import routes
from waypost_rl.episode_reward import EpisodeReward
from waypost_rl.run_file import POLICY, CostBounds, TrainedRun, write_run_file
from waypost_rl.token_episode import TokenEpisode
from waypost_rl.training.checkpoint import Progress, read_checkpoint, write_checkpoint
from waypost_rl.training.config import RunConfig, StopConfig
from waypost_rl.training.logs import RunLog
from waypost_rl.training.parts import Sample
from waypost_rl.training.report import write_report
from waypost_rl.training.rollout import roll_out
from waypost_rl.training.schedule import alphas_of, questions_of, seed_of
from waypost_rl.training.scoring import score
from waypost_rl.training.setup import Parts, build, check_run, seed_everything
from waypost_rl.training.workers import Worker

logger = logging.getLogger(__name__)

RESULT = "result.json"


@dataclass(frozen=True)
class Result:
    """A finished run.

    Attributes:
        steps: Steps done, those of earlier commands included.
        reward: Mean reward of the last steps.
        ended: Why it ended before its last step; empty if it did not.
    """

    steps: int
    reward: float
    ended: str


def train(config: RunConfig, command: str, worker: Worker | None = None) -> Result:
    """Train a policy, or continue its run; return when the run is finished.

    Args:
        config: The run. Its folder is locked by the caller.
        command: Shell command that repeats it, for the report.
        worker: This process among several; None is the only one.

    Raises:
        ConfigError: The config does not fit its data, or the folder holds another run.
        WaypostError: The start policy, the data or the pool cannot be used.
    """
    worker = worker or Worker()
    run = Path(config.out)
    if worker.first:
        check_run(run, config)
    worker.wait()
    parts = build(config, worker)
    try:
        progress = read_checkpoint(run, parts.learner) or Progress()
        if progress.step:
            logger.info("continuing after step %d", progress.step)
            parts.sampler.update()
        if worker.first:
            _describe(run, parts, config, progress)
        progress = _steps(config, parts, progress, worker)
        if worker.first:
            _describe(run, parts, config, progress)
            with replacing_folder(run / POLICY) as partial:
                parts.learner.save_policy(partial)
            write_report(run, command)
    finally:
        parts.close()
    last = progress.rewards[-config.stop.window :]
    result = Result(progress.step, float(np.mean(last)), progress.ended)
    if worker.first:
        write_text(run / RESULT, json.dumps(asdict(result)) + "\n")
    return result


def _steps(config: RunConfig, parts: Parts, progress: Progress, worker: Worker) -> Progress:
    run = Path(config.out)
    log = RunLog(run, progress.step, config.steps) if worker.first else None
    while progress.step < config.steps and not progress.ended:
        begun = time.perf_counter()
        step = progress.step
        seed_everything(seed_of(step, config.seed, worker.rank))
        episodes, rollout_s = _sample(config, parts, step, worker)
        rewards = [
            score(
                episode,
                episode.alpha,
                config.reward,
                parts.environment.candidates,
                parts.prices,
                parts.scale,
            )
            for episode in episodes
        ]
        learned = _learn(config, parts, episodes, rewards) if config.learn else {}
        numbers = _numbers(worker.sum(_sums(episodes, rewards, parts, rollout_s)), parts)
        numbers |= learned | {"step_s": time.perf_counter() - begun}
        progress = replace(
            progress,
            step=step + 1,
            rewards=(*progress.rewards, numbers["reward"]),
            entropies=(*progress.entropies, numbers.get("route_entropy")),
        )
        progress = replace(progress, ended=why_to_end(progress, config.stop))
        if log is not None:
            if step % config.transcripts_every == 0 or step + 1 == config.steps:
                log.transcripts(step + 1, episodes, rewards)
            log.step(step + 1, numbers)
            over = progress.ended or progress.step == config.steps
            if config.learn and (over or progress.step % config.checkpoint_every == 0):
                write_checkpoint(run, progress, parts.learner)
        worker.wait()
    if log is not None:
        log.close()
    return progress


def _sample(
    config: RunConfig, parts: Parts, step: int, worker: Worker
) -> tuple[list[TokenEpisode], float]:
    """Return this worker's episodes of a step, and the seconds they took."""
    batch = config.ppo.batch_size
    places = questions_of(step, batch, len(parts.questions), config.seed)
    alphas = alphas_of(step, batch, config.reward.alphas, config.seed)
    own = worker.share(batch)
    begun = time.perf_counter()
    episodes = parts.runner.run(
        roll_out(
            [(parts.questions[place], alpha) for place, alpha in zip(places, alphas, strict=True)][
                own
            ],
            parts.environment,
            parts.sampler,
            parts.pool,
            seed=seed_of(step, config.seed, worker.rank),
            temperature=config.episode.temperature,
        )
    )
    return episodes, time.perf_counter() - begun


def _learn(
    config: RunConfig,
    parts: Parts,
    episodes: Sequence[TokenEpisode],
    rewards: Sequence[EpisodeReward],
) -> dict[str, float]:
    scores = [reward.total for reward in rewards]
    if config.reward.route_entropy:
        bonus = routes.entropy_bonus(episodes, config.reward.route_entropy)
        scores = [one + more for one, more in zip(scores, bonus, strict=True)]
    begun = time.perf_counter()
    learned = parts.learner.step(
        [
            Sample(episode.prompt_ids, episode.response_ids, episode.mask, one)
            for episode, one in zip(episodes, scores, strict=True)
        ]
    )
    parts.sampler.update()
    return learned | {"learning_s": time.perf_counter() - begun}


def _sums(
    episodes: Sequence[TokenEpisode],
    rewards: Sequence[EpisodeReward],
    parts: Parts,
    rollout_s: float,
) -> dict[str, float]:
    """Return what is added up over the episodes of all workers; the same keys in every step."""
    names = parts.environment.candidates.names
    counts = dict.fromkeys(names, 0)
    for episode in episodes:
        for call in episode.calls:
            counts[call.candidate] += 1
    return {
        "episodes": float(len(episodes)),
        "reward": sum(one.total for one in rewards),
        "well_formed": sum(one.form == 0.0 for one in rewards),
        "outcome": sum(one.outcome for one in rewards),
        "cost_reward": sum(one.cost for one in rewards),
        "cost_usd": sum(one.cost_usd_millionths for one in rewards) / 1e6,
        "turns": sum(one.turns for one in episodes),
        "failed_calls": sum(one.failed_calls for one in episodes),
        "tokens": sum(one.policy_tokens for one in episodes),
        "response_tokens": sum(len(one.response_ids) for one in episodes),
        "rollout_s": rollout_s,
        "workers": 1.0,
        **{f"route/{name}": float(count) for name, count in counts.items()},
    }


def _numbers(sums: Mapping[str, float], parts: Parts) -> dict[str, Any]:
    """Return the numbers of a step from the sums of all workers."""
    episodes = sums["episodes"]
    calls = {name: sums[f"route/{name}"] for name in parts.environment.candidates.names}
    asked = sum(calls.values())
    each = ("reward", "well_formed", "outcome", "cost_reward", "cost_usd", "turns", "tokens")
    rollout_s = sums["rollout_s"] / sums["workers"]
    return {
        **{name: sums[name] / episodes for name in each},
        "response_tokens": sums["response_tokens"] / episodes,
        "searches": asked / episodes,
        "failed_calls": sums["failed_calls"] / episodes,
        "rollout_s": rollout_s,
        "tokens_per_s": sums["tokens"] / rollout_s if rollout_s > 0 else 0.0,
        "route_entropy": routes.evenness(calls) if asked else None,
        **{f"route/{name}": count / asked if asked else 0.0 for name, count in calls.items()},
    }


def why_to_end(progress: Progress, stop: StopConfig) -> str:
    """Return why a run ends early; empty if it goes on."""
    window = stop.window
    means = [
        float(np.mean(progress.rewards[at - window : at]))
        for at in range(window, len(progress.rewards) + 1)
    ]
    if stop.patience is not None and len(means) > stop.patience:
        best = int(np.argmax(means))
        if len(means) - 1 - best >= stop.patience:
            return f"no better mean reward for {stop.patience} steps"
    known = [one for one in progress.entropies[-window:] if one is not None]
    if stop.route_entropy is not None and len(known) == window:
        mean = float(np.mean(known))
        if mean < stop.route_entropy:
            return f"the entropy of routes fell to {mean:.3f}: nearly all searches go to one LLM"
    return ""


def _describe(run: Path, parts: Parts, config: RunConfig, progress: Progress) -> None:
    """Write run.json: all that serving a policy of this run needs to know."""
    form, of = parts.environment.form, config.episode
    described = TrainedRun(
        base=config.base,
        candidates=dict(parts.environment.descriptions),
        pool_names={
            name: one.pool_name for name, one in config.candidates.items() if one.pool_name
        },
        prompt=form.template,
        frame=form.frame,
        reserved=form.reserved,
        budget=config.reward.budget,
        corrective=of.corrective,
        max_turns=of.max_turns,
        policy_tokens=of.policy_tokens,
        information_tokens=of.information_tokens,
        cost_scale=CostBounds(**parts.scale.to_dict()),
        steps=progress.step,
        ended=progress.ended,
    )
    write_run_file(run, described)
