"""Measure policies on held-out questions, beside single LLMs and routers, at several alphas.

All subjects answer the same questions against the same pool, so their differences are paired.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from waypost.config import resolve_path
from waypost.contracts.errors import ConfigError, Fault, SchemaError, names
from waypost.contracts.questions import Question
from waypost.loading import load_router
from waypost.metrics.intervals import Bootstrap, interval
from waypost.report.numbers import fixed, table, with_interval
from waypost_rl.environment import Environment
from waypost_rl.format_rules import final_answer
from waypost_rl.reward import (
    Call,
    FixedScale,
    Price,
    delegation_cost,
    outcome_reward,
    total_reward,
)
from waypost_rl.routes import evenness
from waypost_rl.token_episode import TokenEpisode
from waypost_rl.training.config import RunConfig
from waypost_rl.training.parts import Ask, DelegatePool, Reply
from waypost_rl.training.rollout import roll_out
from waypost_rl.training.schedule import seed_of
from waypost_rl.training.scoring import score

SINGLE = "single: "
"""Begins the name of a subject that asks one LLM the question itself."""


@dataclass(frozen=True)
class Answered:
    """What one subject made of one question at one alpha.

    Attributes:
        reward: Total reward.
        outcome: Score by the question's metric, or the run's, in [0, 1].
        exact_match: Exact match with an accepted answer, 0 or 1.
        f1: Token F1 with the best accepted answer, in [0, 1].
        well_formed: Whether no format rule is broken; always for a single LLM.
        cost_usd: Dollars of the candidates' answers.
        turns: Generations of the policy; 0 without one.
        asked: The candidates asked, in order.
    """

    reward: float
    outcome: float
    exact_match: float
    f1: float
    well_formed: bool
    cost_usd: float
    turns: int
    asked: tuple[str, ...]


Answers = dict[tuple[str, float], list[Answered]]
"""(subject, alpha) -> its answers, in the order of the questions."""


def play_policy(
    folder: Path,
    config: RunConfig,
    environment: Environment,
    pool: DelegatePool,
    questions: Sequence[Question],
    *,
    prices: Mapping[str, Price],
    scale: FixedScale,
    alphas: Sequence[float],
    runner: asyncio.Runner,
    tell: Callable[[int, int], None] = lambda done, total: None,
    temperature: float = 0.0,
    batch: int = 32,
) -> dict[float, list[Answered]]:
    """Let a policy answer questions; return alpha -> its answers.

    A policy whose prompts have no budget does not know alpha: it plays once, and each alpha weighs
    the same episodes.

    Args:
        folder: Plain checkpoint of the policy.
        config: Of the run: its rules and rewards.
        environment: Rules of the episodes.
        pool: The candidates.
        questions: What is asked.
        prices: Price of each candidate.
        scale: Of the cost reward.
        alphas: Weights of cost.
        runner: Event loop of the pool.
        tell: Called with episodes done and to do.
        temperature: Of the samples; 0 takes the most likely token.
        batch: Episodes played together.

    Raises:
        WeightsError: The checkpoint does not load.
    """
    from waypost_rl.training.plain_policy import load_policy

    sampler = load_policy(folder)
    played: dict[float, list[TokenEpisode]] = {}
    told = alphas if config.reward.budget else alphas[:1]
    for number, alpha in enumerate(told):
        episodes: list[TokenEpisode] = []
        for at in range(0, len(questions), batch):
            rows = [(one, alpha) for one in questions[at : at + batch]]
            seed = seed_of(at, config.seed)
            episodes += runner.run(
                roll_out(rows, environment, sampler, pool, seed=seed, temperature=temperature)
            )
            tell(number * len(questions) + len(episodes), len(told) * len(questions))
        played[alpha] = episodes
    sampler.close()
    return {
        alpha: [
            _of_episode(episode, alpha, config, environment, prices, scale)
            for episode in played.get(alpha, played[told[0]])
        ]
        for alpha in alphas
    }


def _of_episode(
    episode: TokenEpisode,
    alpha: float,
    config: RunConfig,
    environment: Environment,
    prices: Mapping[str, Price],
    scale: FixedScale,
) -> Answered:
    reward = score(episode, alpha, config.reward, environment.candidates, prices, scale)
    answer, gold = final_answer(episode.transcript), episode.question.ground_truth
    return Answered(
        reward=reward.total,
        outcome=reward.outcome,
        exact_match=outcome_reward(answer, gold, "exact_match"),
        f1=outcome_reward(answer, gold, "f1"),
        well_formed=reward.form == 0.0,
        cost_usd=reward.cost_usd_millionths / 1e6,
        turns=episode.turns,
        asked=tuple(call.candidate for call in episode.calls),
    )


def ask_directly(
    chosen: Sequence[str],
    config: RunConfig,
    pool: DelegatePool,
    questions: Sequence[Question],
    *,
    prices: Mapping[str, Price],
    scale: FixedScale,
    alphas: Sequence[float],
    runner: asyncio.Runner,
) -> dict[float, list[Answered]]:
    """Ask one candidate each question itself; return alpha -> the answers.

    Args:
        chosen: The candidate of each question.
        config: Of the run.
        pool: The candidates.
        questions: What is asked.
        prices: Price of each candidate.
        scale: Of the cost reward.
        alphas: Weights of cost.
        runner: Event loop of the pool.
    """

    async def ask_all() -> list[Reply]:
        asks = [Ask(name, one.query, one) for name, one in zip(chosen, questions, strict=True)]
        return list(await asyncio.gather(*(pool.ask(ask) for ask in asks)))

    replies = runner.run(ask_all())
    found: dict[float, list[Answered]] = {alpha: [] for alpha in alphas}
    for name, question, reply in zip(chosen, questions, replies, strict=True):
        calls = [Call(name, reply.output_tokens, reply.input_tokens)]
        spent = delegation_cost(calls, prices, include_input=config.reward.include_input)
        of, gold = config.reward, question.ground_truth
        metric = question.metric if of.outcome == "metric" else of.outcome
        outcome = outcome_reward(reply.text, gold, metric, question.choices, question.query)
        for alpha in alphas:
            total = total_reward(True, outcome, scale.reward(spent), alpha, of.rule)
            found[alpha].append(
                Answered(
                    reward=total,
                    outcome=outcome,
                    exact_match=outcome_reward(reply.text, gold, "exact_match"),
                    f1=outcome_reward(reply.text, gold, "f1"),
                    well_formed=True,
                    cost_usd=spent / 1e6,
                    turns=0,
                    asked=(name,),
                )
            )
    return found


def choices_of_router(artifact: str, config: RunConfig, questions: Sequence[Question]) -> list[str]:
    """Return the candidate that a trained router chooses for each question, at lambda 0.

    Raises:
        ConfigError: The router chooses an LLM that is no candidate.
        WaypostError: The artifact cannot be read.
    """
    router = load_router(artifact)
    own = {one.pool_name or name: name for name, one in config.candidates.items()}
    decisions = router.route_batch([one.query for one in questions])
    chosen = [next((m for m in one.ranking if m in own), None) for one in decisions]
    if any(one is None for one in chosen):
        problem = f"knows none of the candidates {names(tuple(own))}"
        raise ConfigError([Fault(f"--router {artifact}", problem)])
    return [own[str(one)] for one in chosen]


@dataclass(frozen=True)
class Row:
    """Means of one subject at one alpha; ``delta`` compares its reward with the first subject."""

    subject: str
    alpha: float
    reward: float
    reward_low: float
    reward_high: float
    delta: float
    delta_low: float
    delta_high: float
    outcome: float
    exact_match: float
    f1: float
    well_formed: float
    cost_usd: float
    turns: float
    searches: float
    evenness: float
    shares: dict[str, float]


def rows_of(answers: Answers, candidates: Sequence[str], seed: int = 0) -> list[Row]:
    """Return the means of every subject, with 95 % intervals of bootstrap over the questions.

    Raises:
        SchemaError: There is no answer.
    """
    if not answers or not all(answers.values()):
        raise SchemaError("evaluate: there is no answer to measure")
    first = next(iter(answers))[0]
    rewards = {key: np.array([one.reward for one in of]) for key, of in answers.items()}
    bootstrap = Bootstrap(len(next(iter(rewards.values()))), seed=seed)
    found = []
    for (subject, alpha), of in answers.items():
        own = rewards[subject, alpha]
        delta = own - rewards[first, alpha]
        low, high = interval(bootstrap.means(own)[:, 0])
        delta_low, delta_high = interval(bootstrap.means(delta)[:, 0])
        counts = Counter(name for one in of for name in one.asked)
        total = max(1, counts.total())
        found.append(
            Row(
                subject, alpha, float(own.mean()), low, high,
                float(delta.mean()), delta_low, delta_high,
                _mean(of, "outcome"), _mean(of, "exact_match"), _mean(of, "f1"),
                _mean(of, "well_formed"), _mean(of, "cost_usd"), _mean(of, "turns"),
                counts.total() / len(of),
                evenness({name: counts[name] for name in candidates}),
                {name: counts[name] / total for name in candidates},
            )
        )  # fmt: skip
    return found


def _mean(of: Sequence[Answered], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in of]))


def lines_of(rows: Sequence[Row], questions: int) -> list[str]:
    """Return the Markdown tables of an evaluation: quality and cost, then whom each asked."""
    first = rows[0].subject
    heads = ["", "alpha", "reward", f"beside {first}", "outcome", "EM", "F1", "well formed",
             "USD per 1,000", "turns", "searches"]  # fmt: skip
    body, asked = [], []
    for row in rows:
        shown = asdict(row)
        other = row.subject != first
        body.append(
            [row.subject, f"{row.alpha:g}",
             with_interval(shown, "reward", "reward_low", "reward_high"),
             with_interval(shown, "delta", "delta_low", "delta_high", sign=True) if other else "",
             fixed(row.outcome), fixed(row.exact_match), fixed(row.f1), fixed(row.well_formed),
             f"{row.cost_usd * 1000:.4g}", f"{row.turns:.2f}", f"{row.searches:.2f}"]
        )  # fmt: skip
        if not row.subject.startswith(SINGLE):
            shares = [fixed(share, 2) for share in row.shares.values()]
            asked.append([row.subject, f"{row.alpha:g}", *shares, fixed(row.evenness, 2)])
    candidates = list(rows[0].shares)
    return [
        f"{questions} questions; 95 % intervals by bootstrap over the questions, paired.",
        "",
        *table(heads, body),
        "",
        "Share of the searches by candidate, and evenness (entropy / maximum):",
        "",
        *table(["", "alpha", *candidates, "evenness"], asked),
    ]


def read_scale(config: RunConfig) -> FixedScale | None:
    """Return the cost scale of a run's folder; None if the run has not begun."""
    path = resolve_path(config.out) / "cost_scale.json"
    if not path.is_file():
        return None
    return FixedScale.from_dict(json.loads(path.read_text(encoding="utf-8")))


def to_json(rows: Sequence[Row], **facts: Any) -> dict[str, Any]:
    """Return the JSON-able result of an evaluation."""
    return {"format": 1, **facts, "rows": [asdict(row) for row in rows]}
