"""Check a run without its GPU: config, data, candidates, prompts, pool."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from waypost.config import resolve_path
from waypost.contracts.errors import ConfigError, Fault, WaypostError
from waypost.weights import resolve
from waypost_rl.training.config import HandleSource, HttpSource, RunConfig
from waypost_rl.training.pools import check_source
from waypost_rl.training.setup import check_prices, environment_of, read_fitting

_PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "vllm")


def dry_run(config: RunConfig) -> list[str]:
    """Check all of a run that needs no GPU; return a line for each part.

    Raises:
        ConfigError: What is wrong, all of it at once.
    """
    faults: list[Fault] = []
    lines = [_packages()]
    for check in (_prices, _questions, _pool, _size):
        try:
            lines += check(config)
        except ConfigError as error:
            faults += error.faults
        except WaypostError as error:
            faults.append(Fault(check.__name__.strip("_"), str(error)))
    if faults:
        raise ConfigError(faults)
    return lines


def _packages() -> str:
    found = []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} missing")
    return "packages: " + ", ".join(found)


def _prices(config: RunConfig) -> list[str]:
    prices = check_prices(config)
    shown = ", ".join(f"{name} {price.output:g}" for name, price in prices.items())
    return [f"candidates, USD per million generated tokens: {shown}"]


def _questions(config: RunConfig) -> list[str]:
    base = resolve(config.base)
    environment = environment_of(config, base)
    questions = read_fitting(config, environment)
    alpha = config.reward.alphas[0]
    lengths = [len(environment.start(one, alpha).prompt_ids) for one in questions]
    middle, longest = np.percentile(lengths, [50, 100])
    return [
        f"start policy: {base}",
        f"questions: {len(questions)}, prompts of {middle:.0f} tokens (median), at most "
        f"{longest:.0f}",
        f"an episode: at most {longest + config.episode.response_tokens:.0f} tokens",
        f"steps: {config.steps} of {config.ppo.batch_size} episodes, "
        f"{config.steps * config.ppo.batch_size / len(questions):.2f} passes over the questions",
    ]


def _pool(config: RunConfig) -> list[str]:
    source = config.pool
    check_source(config)
    if isinstance(source, HttpSource):
        key = source.api_key_env
        if key is not None and not os.environ.get(key):
            raise ConfigError([Fault("pool.api_key_env", f"{key} is not set")])
        return [f"pool: {source.base_url} (not called)"]
    if isinstance(source, HandleSource):
        return [f"pool: the Serve application {source.app} (not called)"]
    return [f"pool: recorded answers in {resolve_path(source.data)}"]


def _size(config: RunConfig) -> list[str]:
    """Estimate memory of weights, gradients and Adam, from the config of the start policy."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.modeling_utils import no_init_weights

    with torch.device("meta"), no_init_weights():
        model = AutoModelForCausalLM.from_config(
            AutoConfig.from_pretrained(resolve(config.base), local_files_only=True)
        )
    size = model.num_parameters()
    # float32: weights; for all weights gradients, two moments of Adam and the reference besides
    each = 4 if config.ppo.lora else 4 * 5
    return [
        f"parameters: {size / 1e6:.0f} million; at least {size * each / 2**30:.1f} GiB a worker "
        f"beside activations, {config.workers.count} workers"
    ]
