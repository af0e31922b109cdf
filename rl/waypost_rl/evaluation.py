"""``waypost rl evaluate``: build the parts of a run and measure its subjects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.config import resolve_path
from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.questions import Question
from waypost.weights import resolve
from waypost_rl.evaluating import (
    SINGLE,
    Answers,
    ask_directly,
    choices_of_router,
    lines_of,
    play_policy,
    read_scale,
    rows_of,
    to_json,
)
from waypost_rl.reward import FixedScale
from waypost_rl.training.config import RunConfig
from waypost_rl.training.pools import open_pool
from waypost_rl.training.setup import check_prices, environment_of, read_fitting


@dataclass(frozen=True)
class Subjects:
    """What is measured.

    Attributes:
        policies: Name -> checkpoint; empty is the run's own policy.
        routers: Artifacts of routers.
        singles: Whether each candidate alone is measured.
    """

    policies: Mapping[str, str]
    routers: Sequence[str] = ()
    singles: bool = False


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: JSON-able data, and lines of Markdown."""

    data: dict[str, Any]
    lines: list[str]


def evaluate_run(
    config: RunConfig,
    subjects: Subjects,
    *,
    split: str = "test",
    limit: int | None = None,
    alphas: Sequence[float] | None = None,
    temperature: float = 0.0,
    tell: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Evaluation:
    """Measure subjects on the questions of a split.

    Args:
        config: The run whose candidates, pool, rules and rewards count. Its folder has the cost
            scale, unless the config sets it.
        subjects: What is measured.
        split: Split of the questions.
        limit: Maximum questions.
        alphas: Weights of cost; None takes those of the config.
        temperature: Of the policies' samples; 0 takes the most likely token.
        tell: Called with a subject, episodes done and to do.

    Raises:
        ConfigError: The run has no policy or no cost scale, or a name stands twice.
        WaypostError: Data, pool, policy or router cannot be used.
    """
    run = resolve_path(config.out)
    policies = dict(subjects.policies) or {"policy": str(run / "policy")}
    if not subjects.policies and not (run / "policy").is_dir():
        problem = f"{run} has no policy yet; train it, or name one with --policy NAME=MODEL"
        raise ConfigError([Fault("out", problem)])
    alphas = tuple(alphas or config.reward.alphas)
    wanted = config.questions.model_copy(update={"split": split, "limit": limit})
    config = config.model_copy(update={"questions": wanted, "out": str(run)})
    scale = _scale(config)
    prices = check_prices(config)
    answers: Answers = {}
    with asyncio.Runner() as runner:
        pool = open_pool(config, run, 0)
        questions: list[Question] = []
        for name, model in policies.items():
            folder = Path(model) if Path(model).is_dir() else resolve(model)
            environment = environment_of(config, folder)
            questions = questions or read_fitting(config, environment)
            played = play_policy(
                folder,
                config,
                environment,
                pool,
                questions,
                prices=prices,
                scale=scale,
                alphas=alphas,
                runner=runner,
                temperature=temperature,
                tell=lambda done, total, name=name: tell(name, done, total),  # type: ignore[misc]
            )
            answers |= {(name, alpha): of for alpha, of in played.items()}
        direct = {f"{SINGLE}{name}": [name] * len(questions) for name in config.candidates}
        chosen = direct if subjects.singles else {}
        for artifact in subjects.routers:
            chosen[f"router: {Path(artifact).name}"] = choices_of_router(
                artifact, config, questions
            )
        for name, of in chosen.items():
            found = ask_directly(
                of, config, pool, questions, prices=prices, scale=scale, alphas=alphas,
                runner=runner,
            )  # fmt: skip
            answers |= {(name, alpha): one for alpha, one in found.items()}
        runner.run(pool.close())
    rows = rows_of(answers, tuple(config.candidates), config.seed)
    data = to_json(rows, split=split, questions=len(questions), cost_scale=scale.to_dict())
    return Evaluation(data, lines_of(rows, len(questions)))


def _scale(config: RunConfig) -> FixedScale:
    of = config.reward
    if of.cost_low is not None and of.cost_high is not None:
        return FixedScale(of.cost_low, of.cost_high)
    scale = read_scale(config)
    if scale is None:
        problem = f"{config.out} has no cost_scale.json; train first, or set cost_low and cost_high"
        raise ConfigError([Fault("reward", problem)])
    return scale
