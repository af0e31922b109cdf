"""Build the parts of a run from its config."""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from waypost.config import resolve_path
from waypost.contracts.atomic import write_text
from waypost.contracts.errors import ConfigError, Fault, names
from waypost.contracts.questions import Question
from waypost.contracts.records import LLMInfo
from waypost.contracts.tables import read_llms
from waypost.weights import resolve
from waypost_rl.chat import TokenizerCodec, chat_of
from waypost_rl.environment import Environment, Limits
from waypost_rl.prompt import PromptForm, describe
from waypost_rl.protocol import Candidates
from waypost_rl.reward import Call as PricedCall
from waypost_rl.reward import FixedScale, Price, delegation_cost
from waypost_rl.training.config import ReplayedSource, RunConfig
from waypost_rl.training.parts import Ask, DelegatePool, Learner, Sampler
from waypost_rl.training.pools import open_pool
from waypost_rl.training.replayed_pool import read_questions
from waypost_rl.training.rollout import fitting
from waypost_rl.training.workers import Worker

logger = logging.getLogger(__name__)

CONFIG = "config.json"
SCALE = "cost_scale.json"
WARM_START = "warm_start"

_FREE = {"out", "steps", "checkpoint_every", "transcripts_every", "stop", "workers"}
"""Keys that may change when a run is continued."""


@dataclass
class Parts:
    """The parts of a run; the runner holds the event loop in which the pool's connections live."""

    environment: Environment
    sampler: Sampler
    pool: DelegatePool
    questions: Sequence[Question]
    prices: Mapping[str, Price]
    scale: FixedScale
    learner: Learner
    runner: asyncio.Runner

    def close(self) -> None:
        """Free what the parts hold."""
        self.sampler.close()
        with self.runner, suppress(OSError):
            self.runner.run(self.pool.close())


def check_run(run: Path, config: RunConfig) -> None:
    """Write the config into a new run's folder, or compare it with that of the run to continue.

    Raises:
        ConfigError: The folder holds something else, or a run with other settings.
    """
    path = run / CONFIG
    given = config.model_dump(mode="json")
    if not path.is_file():
        if any(one.name != ".lock" for one in run.iterdir()):
            problem = "exists and is not a training run; give the name of a new folder"
            raise ConfigError([Fault(f"out: {run}", problem)])
    else:
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise ConfigError([Fault(str(path), "not the config of a training run")]) from None
        changed = [
            key for key, value in given.items() if key not in _FREE and before.get(key) != value
        ]
        if changed:
            problem = "is not what the run in this folder began with; set out to a new folder"
            raise ConfigError([Fault(key, f"{problem} (out: {run})") for key in changed])
    write_text(path, json.dumps(given, indent=1, ensure_ascii=False) + "\n")


def seed_everything(seed: int) -> None:
    """Set the global random generators of Python, numpy and torch."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def build(config: RunConfig, worker: Worker) -> Parts:
    """Build the parts of a run; the first worker makes the files that all of them read.

    Raises:
        ConfigError: The config does not fit its data or its pool.
        WaypostError: The start policy, the data or the pool cannot be used.
    """
    run = Path(config.out)
    seed_everything(config.seed)
    base = resolve(config.base, progress=logger.info)
    environment = environment_of(config, base)
    pool = open_pool(config, run, worker.rank)
    runner = asyncio.Runner()
    prices = check_prices(config)
    questions = read_fitting(config, environment)
    if worker.first:
        _measure_scale(run, config, pool, prices, questions, runner)
        if config.warm_start is not None and not (run / WARM_START).is_dir():
            _warm_start(run / WARM_START, base, config, environment, pool, questions, runner)
    worker.wait()
    scale = FixedScale.from_dict(json.loads((run / SCALE).read_text(encoding="utf-8")))
    learner = _learner(config, run / WARM_START if config.warm_start else base, worker)
    sampler = _sampler(config, learner)
    return Parts(environment, sampler, pool, questions, prices, scale, learner, runner)


def environment_of(config: RunConfig, base: Path) -> Environment:
    """Return the rules of the episodes of a run, in the tokens of its policy.

    Raises:
        ConfigError, SchemaError, WeightsError: Candidates or tokenizer cannot be used.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    chat = chat_of(tokenizer, config.base)
    of = config.episode
    known = _known(config)
    described = {
        name: one.description or (describe(known[name]) if name in known else "")
        for name, one in config.candidates.items()
    }
    return Environment(
        Candidates(tuple(config.candidates)),
        described,
        TokenizerCodec(tokenizer),
        Limits(
            of.max_turns,
            of.policy_tokens,
            of.prompt_tokens,
            of.information_tokens,
            of.response_tokens,
        ),
        PromptForm(of.prompt, chat.frame, chat.reserved, of.max_turns),
        chat.begin_ids,
        budget=config.reward.budget,
        corrective=of.corrective,
    )


def _known(config: RunConfig) -> dict[str, LLMInfo]:
    """Return what a replayed pool's data says of the candidates, by their names in the prompt."""
    if not isinstance(config.pool, ReplayedSource):
        return {}
    known = {llm.name: llm for llm in read_llms(resolve_path(config.pool.data) / "llms.json")}
    pooled = {name: one.pool_name or name for name, one in config.candidates.items()}
    missing = [name for name, own in pooled.items() if own not in known]
    if missing:
        have = names(tuple(known))
        raise ConfigError(
            [Fault(f"candidates.{name}", f"the data has no such LLM; it has {have}")
             for name in missing]
        )  # fmt: skip
    return {name: known[own] for name, own in pooled.items()}


def check_prices(config: RunConfig) -> dict[str, Price]:
    """Return the price of each candidate, of the config or of the replayed data.

    Raises:
        ConfigError: A candidate has no price.
    """
    known = _known(config)
    prices, faults = {}, []
    for name, one in config.candidates.items():
        output, given = one.output_price, one.input_price
        if output is None and name in known:
            output, given = known[name].output_price, known[name].input_price
        if output is None:
            faults.append(Fault(f"candidates.{name}.output_price", "is not set (USD per million)"))
        else:
            prices[name] = Price(output, given or 0.0)
    if faults:
        raise ConfigError(faults)
    return prices


def read_fitting(config: RunConfig, environment: Environment) -> list[Question]:
    """Return the questions of a run whose prompts fit.

    Raises:
        ConfigError: None is left.
        SchemaError: They cannot be read.
    """
    of = config.questions
    found = read_questions(
        resolve_path(of.data),
        of.split,
        limit=of.limit,
        max_characters=of.max_characters,
        seed=config.seed,
    )
    kept, left_out = fitting(found, environment, config.reward.alphas[0])
    if left_out:
        logger.info("%d of %d questions are left out: their prompts are longer than "
                    "episode.prompt_tokens", left_out, len(found))  # fmt: skip
    if not kept:
        problem = "no question is left: none was found, or all prompts are too long"
        raise ConfigError([Fault("questions", problem)])
    return kept


def _measure_scale(
    run: Path,
    config: RunConfig,
    pool: DelegatePool,
    prices: Mapping[str, Price],
    questions: Sequence[Question],
    runner: asyncio.Runner,
) -> None:
    """Write the cost scale of a run: percentiles of the costs of single calls to each candidate."""
    path, of = run / SCALE, config.reward
    if path.is_file():
        return
    if of.cost_low is not None and of.cost_high is not None:
        scale = FixedScale(of.cost_low, of.cost_high)
    else:
        asks = [
            Ask(name, question.query, question)
            for question in questions[: of.warmup]
            for name in config.candidates
        ]

        async def ask_all() -> list[float]:
            replies = await asyncio.gather(*(pool.ask(ask) for ask in asks))
            return [
                delegation_cost(
                    [PricedCall(ask.candidate, reply.output_tokens, reply.input_tokens)],
                    prices,
                    include_input=of.include_input,
                )
                for ask, reply in zip(asks, replies, strict=True)
                if reply.text is not None
            ]

        costs = runner.run(ask_all())
        if not costs:
            problem = "no candidate answered any question; check it, or set reward.cost_low/high"
            raise ConfigError([Fault("pool", problem)])
        scale = FixedScale.measure(costs)
    write_text(path, json.dumps(scale.to_dict()) + "\n")


def _warm_start(
    out: Path,
    base: Path,
    config: RunConfig,
    environment: Environment,
    pool: DelegatePool,
    questions: Sequence[Question],
    runner: asyncio.Runner,
) -> None:
    from waypost_rl.training.warm_start import synthesize, warm_start

    settings = config.warm_start
    if settings is None:
        return
    logger.info("warm start: %d synthetic episodes", settings.episodes)
    making = synthesize(
        questions, environment, pool, environment.codec.encode, settings, config.seed,
        config.reward.alphas,
    )  # fmt: skip
    warm_start(base, out, runner.run(making), settings, config.seed,
               bf16=config.ppo.mixed_precision == "bf16")  # fmt: skip


def _learner(config: RunConfig, base: Path, worker: Worker) -> Learner:
    from waypost_rl.training.trl_compat import PPOLearner

    return PPOLearner(base, config.ppo, seed=config.seed, workers=worker.count)


def _sampler(config: RunConfig, learner: Learner) -> Sampler:
    if config.sampler.kind == "vllm":
        from waypost_rl.training.vllm_sampler import VllmSampler

        return VllmSampler(
            learner.policy,
            learner.tokenizer,
            context_length=config.episode.prompt_tokens + config.episode.response_tokens,
            gpu_memory_utilization=config.sampler.gpu_memory_utilization,
            kv_cache_gib=config.sampler.kv_cache_gib,
            seed=config.seed,
        )
    from waypost_rl.training.cached_sampler import CachedSampler

    return CachedSampler(learner.policy, learner.tokenizer)
