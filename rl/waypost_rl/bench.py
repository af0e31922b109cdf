"""Time rollouts and PPO steps of Router-R1's training beside plain `generate`.

All ways sample from the same model, prompts and inserted tokens; nothing ends early. PPO steps are
measured where TRL 0.11 is installed (`make env-router-r1-cpu`).

Example: waypost bench rl --quick; waypost bench rl --model Qwen/Qwen2.5-1.5B-Instruct --alone 1
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from pydantic import Field

from waypost.bench import harness
from waypost.bench.harness import Aim, Result, Table, Tell, at_least, at_most, spread, with_range
from waypost.config import PATIENT_THREADS, set_default_environment
from waypost.contracts.errors import WeightsError
from waypost.report.numbers import UNKNOWN, percent
from waypost.weights import resolve

CACHED = "cached sampler"
SHARED = "cached sampler, prompts that begin alike"
BATCHED = "generate, all prompts at once, each turn read anew"
ALONE = "generate, one prompt at a time, each turn read anew"

_ALIKE = 0.75
"""Part of a prompt that is the same for all rows, in that row of the table."""

QUICK = {"prompts": 3, "prompt_tokens": 40, "new_tokens": 4, "information_tokens": 10, "alone": 1,
         "rounds": 1, "episodes": 2, "episode_tokens": 32}  # fmt: skip


class Options(harness.Options):
    """Options of ``waypost bench rl``."""

    model: str = Field("HuggingFaceTB/SmolLM2-135M-Instruct", description="Folder or hub name.")
    prompts: int = Field(16, ge=1, description="Prompts of a batch.")
    prompt_tokens: int = Field(400, ge=2, description="Tokens of each prompt.")
    turns: int = Field(3, ge=1, description="Generations of a prompt.")
    new_tokens: int = Field(64, ge=1, description="Tokens of each generation.")
    information_tokens: int = Field(200, ge=1, description="Tokens inserted between two of them.")
    alone: int = Field(2, ge=1, description="Prompts that are generated one at a time.")
    rounds: int = Field(3, ge=1, description="Repetitions of every way, in turn.")
    episodes: int = Field(8, ge=1, description="Episodes of a PPO step.")
    episode_tokens: int = Field(256, ge=8, description="Tokens of each episode.")
    ppo: bool = Field(True, description="Whether PPO steps are measured.")


Ids = list[list[int]]
Way = Callable[[Ids, Sequence[Ids]], int]
"""Takes prompts and, for each turn after the first, what is inserted; returns tokens sampled."""


def run(options: Options, tell: Tell) -> Result:
    """Measure rollouts, and PPO steps in processes of their own.

    Returns:
        Figures: ``rollouts`` (way -> `spread` over the rounds of ``tokens_per_s`` and
        ``cpu_s_per_1k``, CPU seconds of all threads per 1,000 tokens) and ``ppo`` (``full`` and
        ``lora`` -> ``seconds``, ``outside`` (part of the step that is no model computation),
        ``peak_mb``).

    Raises:
        WeightsError: The model is not available.
        BenchError: A PPO step fails.
    """
    set_default_environment(PATIENT_THREADS)
    path = str(resolve(options.model))
    rollouts = _rollouts(path, options, tell)
    ppo: dict[str, dict[str, float]] = {}
    if options.ppo and find_spec("trl") and find_spec("peft"):
        from waypost_rl import bench_ppo

        for lora in (True, False):
            tell(f"PPO, {'adapters' if lora else 'all weights'}")
            ppo["lora" if lora else "full"] = bench_ppo.measure(
                path, options.episodes, options.episode_tokens, lora
            )
    return _result(options, rollouts, ppo)


def _rollouts(path: str, options: Options, tell: Tell) -> dict[str, dict[str, Any]]:
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    try:
        model = transformers.AutoModelForCausalLM.from_pretrained(path).float().eval()
        tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsError(f"{options.model}: {path} does not load: {error}") from error
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    model.generation_config.eos_token_id = None  # nothing ends early
    ways = _ways(model, tokenizer, options)
    with torch.no_grad():
        model(torch.tensor([[1, 2]], device=model.device))  # what is done once is not measured
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    for at in range(options.rounds):
        for name, (rows, alike, way) in ways.items():
            tell(f"round {at + 1} of {options.rounds}: {name}")
            prompts, inserted = _texts(options, rows, alike, len(tokenizer), at)
            gc.collect()
            wall, cpu = time.perf_counter(), time.process_time()
            tokens = way(prompts, inserted)
            found[name].append(
                (tokens / (time.perf_counter() - wall), 1e3 * (time.process_time() - cpu) / tokens)
            )
    return {
        name: {
            "tokens_per_s": spread([rate for rate, _ in each]),
            "cpu_s_per_1k": spread([cpu for _, cpu in each]),
        }
        for name, each in found.items()
    }


def _ways(model: Any, tokenizer: Any, options: Options) -> dict[str, tuple[int, float, Way]]:
    """Return name -> rows, part of the prompts that is the same, and the way itself."""
    import torch

    from waypost_rl.training.cached_sampler import CachedSampler

    sampler = CachedSampler(model, tokenizer, stop=(), end_ids=())
    new = options.new_tokens

    def cached(prompts: Ids, inserted: Sequence[Ids]) -> int:
        sampler.begin(len(prompts), seed=0)
        limits = dict.fromkeys(range(len(prompts)), new)
        made = 0
        for added in (prompts, *inserted):
            made += sum(
                len(one.ids) for one in sampler.turn(dict(enumerate(added)), limits).values()
            )
        sampler.update()
        return made

    def batched(prompts: Ids, inserted: Sequence[Ids]) -> int:
        torch.manual_seed(0)
        contexts: Ids = [[] for _ in prompts]
        for added in (prompts, *inserted):
            contexts = [one + more for one, more in zip(contexts, added, strict=True)]
            ids = torch.tensor(contexts, device=model.device)
            contexts = model.generate(
                ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, top_p=1.0,
                temperature=1.0, max_new_tokens=new, pad_token_id=0,
            ).tolist()  # fmt: skip
        return len(prompts) * new * (1 + len(inserted))

    def alone(prompts: Ids, inserted: Sequence[Ids]) -> int:
        return sum(
            batched([prompt], [[added[row]] for added in inserted])
            for row, prompt in enumerate(prompts)
        )

    rows = options.prompts
    return {
        CACHED: (rows, 0.0, cached),
        SHARED: (rows, _ALIKE, cached),
        BATCHED: (rows, 0.0, batched),
        ALONE: (min(rows, options.alone), 0.0, alone),
    }


def _texts(
    options: Options, rows: int, alike: float, vocabulary: int, seed: int
) -> tuple[Ids, list[Ids]]:
    rng = np.random.default_rng(seed)

    def text(count: int) -> list[int]:
        ids: list[int] = rng.integers(vocabulary // 50, vocabulary, size=count).tolist()
        return ids

    first = text(int(alike * options.prompt_tokens))
    prompts = [first + text(options.prompt_tokens - len(first)) for _ in range(rows)]
    more = options.turns - 1
    return prompts, [[text(options.information_tokens) for _ in range(rows)] for _ in range(more)]


def _result(
    options: Options,
    rollouts: Mapping[str, Mapping[str, Any]],
    ppo: Mapping[str, Mapping[str, float]],
) -> Result:
    ours = rollouts[CACHED]["tokens_per_s"]["median"]
    over = {name: ours / one["tokens_per_s"]["median"] for name, one in rollouts.items()}
    rows = [
        [
            name,
            with_range(one["tokens_per_s"]),
            with_range(one["cpu_s_per_1k"]),
            harness.figure(over[name]),
        ]
        for name, one in rollouts.items()
    ]
    title = (
        f"Rollouts of {options.prompts} prompts of {options.prompt_tokens} tokens, {options.turns} "
        f"turns of {options.new_tokens} new tokens with {options.information_tokens} between"
    )
    heads = ("way", "tokens/s", "CPU s/1,000 tokens", "cached sampler over it")
    steps = [
        ["adapters (LoRA)" if kind == "lora" else "all weights", harness.figure(one["seconds"]),
         percent(one["outside"]), f"{one['peak_mb']:,.0f}"]
        for kind, one in ppo.items()
    ]  # fmt: skip
    steps = steps or [["needs TRL 0.11: make env-router-r1-cpu", UNKNOWN, UNKNOWN, UNKNOWN]]
    tables = [Table(title, heads, rows)]
    if options.ppo:
        of = f"A PPO step on {options.episodes} episodes of {options.episode_tokens} tokens"
        heads = ("trained", "s", "outside of the model", "peak MB")
        tables.append(Table(of, heads, steps))
    facts = (
        f"{options.model} in float32; tokens/s are sampled tokens, medians of {options.rounds} "
        f"rounds with their range. One prompt at a time was measured on {options.alone}."
    )
    figures = {
        "rollouts": {name: dict(one) for name, one in rollouts.items()},
        "ppo": {kind: dict(one) for kind, one in ppo.items()},
    }
    return Result(tables, facts, _aims(over, ppo), figures)


def _aims(over: Mapping[str, float], ppo: Mapping[str, Mapping[str, float]]) -> list[Aim]:
    outside = max((one["outside"] for one in ppo.values()), default=None)
    return [
        at_least(f"{CACHED} over {ALONE}", over[ALONE], 5),
        at_least(f"{CACHED} over {BATCHED}", over[BATCHED], 2),
        at_most("part of a PPO step outside of the model", outside, 0.15),
    ]
