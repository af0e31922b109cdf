"""Sampling with vLLM 0.6.3 in this process, into which the policy's weights are copied."""

from __future__ import annotations

import copy
import gc
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from waypost.contracts.errors import ContextLengthError, EngineRequestError, WeightsError
from waypost.engines import _vllm_api as api
from waypost.engines._lm_prompt import ModelText
from waypost_rl.protocol import STOP_STRINGS
from waypost_rl.training.parts import Sampled
from waypost_rl.training.stops import Stops

Number = Literal["float32", "bfloat16", "float16"]


class VllmSampler:
    """A `Sampler` on an engine of vLLM that holds a copy of the policy.

    The engine starts without weights of its own and takes them from the policy, now and at each
    `update`; adapters of PEFT are merged into the copy. Prefixes are cached on a GPU; vLLM 0.6.3
    caches none on a CPU, so there each turn reads its context anew.

    Args:
        policy: A causal model of transformers, as `waypost_rl.training.parts.Learner.policy`.
        tokenizer: Its tokenizer.
        stop: Texts that end a generation.
        end_ids: Tokens that end a generation; None takes those of model and tokenizer.
        context_length: Maximum tokens of a row; the model's own context bounds it.
        max_batch_size: Rows that generate together.
        dtype: Numbers the engine computes with; None takes the policy's.
        gpu_memory_utilization: Part of a GPU's memory for weights and cache, in (0, 1].
        kv_cache_gib: GiB of the cache on a CPU, rounded up. The first sampler of a process decides.
        seed: Of the engine; each request has a seed of its own.
        name: What messages call the model.

    Raises:
        MissingExtraError: vLLM is not installed.
        WeightsError: vLLM does not run the model.
    """

    def __init__(
        self,
        policy: Any,
        tokenizer: Any,
        *,
        stop: Sequence[str] = STOP_STRINGS,
        end_ids: Collection[int] | None = None,
        context_length: int = 4096,
        max_batch_size: int = 64,
        dtype: Number | None = None,
        gpu_memory_utilization: float = 0.4,
        kv_cache_gib: float = 1.0,
        seed: int = 0,
        name: str = "policy",
    ) -> None:
        api.prepare(api.Config(model=name, kv_cache_gib=max(1, math.ceil(kv_cache_gib))))
        text = ModelText(tokenizer, policy.config, policy.generation_config, name)
        self._name = name
        self._policy = policy
        self._end_ids = sorted(text.end_ids if end_ids is None else end_ids)
        self._stop = [one for one in stop if one]
        self._stops = Stops(tokenizer, self._stop, self._end_ids)
        self._context = min(context_length, text.context_length)
        self._contexts: list[list[int]] = []
        self._folder = TemporaryDirectory(prefix="waypost-policy-")
        config = copy.deepcopy(policy.config)
        config.architectures = [type(policy).__name__]
        config.save_pretrained(self._folder.name)
        tokenizer.save_pretrained(self._folder.name)
        arguments = {
            "dtype": dtype or str(policy.dtype).removeprefix("torch."),
            "max_model_len": self._context,
            "max_num_seqs": max_batch_size,
            "seed": seed,
        }
        if not api.on_cpu():
            arguments["gpu_memory_utilization"] = gpu_memory_utilization
            arguments["enable_prefix_caching"] = True
        self._alone = not torch.distributed.is_initialized()
        self._engine = self._start(arguments)
        self.update()

    def begin(self, rows: int, *, seed: int, temperature: float = 1.0) -> None:
        """See `Sampler.begin`."""
        self._contexts = [[] for _ in range(rows)]
        self._turns = [0] * rows
        self._seed = seed
        self._temperature = temperature

    def turn(
        self, added: Mapping[int, Sequence[int]], max_tokens: Mapping[int, int]
    ) -> dict[int, Sampled]:
        """See `Sampler.turn`.

        Raises:
            ContextLengthError: A row would exceed the context.
            EngineRequestError: A row is unknown, or has no token.
        """
        rows = sorted(added)
        for row in rows:
            self._check(row, len(added[row]), max_tokens[row])
        for row in rows:
            self._contexts[row] += added[row]
        prompts = [{"prompt_token_ids": list(self._contexts[row])} for row in rows]
        how = [self._sampling(row, max_tokens[row]) for row in rows]
        outputs = self._engine.generate(prompts, how, use_tqdm=False)
        sampled = {}
        for row, output in zip(rows, outputs, strict=True):
            sampled[row] = self._cut(output.outputs[0])
            self._contexts[row] += sampled[row].ids
            self._turns[row] += 1
        return sampled

    @torch.no_grad()
    def update(self) -> None:
        """Copy the policy's weights into the engine; begin a new batch afterwards.

        Raises:
            WeightsError: The engine has no place for one of them.
        """
        executor = self._engine.llm_engine.model_executor
        try:
            executor.driver_worker.model_runner.model.load_weights(plain_weights(self._policy))
        except (KeyError, ValueError, AssertionError) as error:
            raise WeightsError(
                f"{self._name}: vLLM cannot take over the policy's weights: {error!r}"
            ) from error
        self._forget()
        self._contexts = []

    def close(self) -> None:
        """End the engine and free its memory."""
        if self._engine is None:
            return
        self._engine = None
        self._free()

    def _free(self) -> None:
        from vllm.distributed import destroy_distributed_environment, destroy_model_parallel

        destroy_model_parallel()
        if self._alone:  # else the process group is the trainer's
            destroy_distributed_environment()
        gc.collect()  # the engine is in a cycle
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self._folder.cleanup()

    def _start(self, arguments: dict[str, Any]) -> Any:
        from vllm import LLM

        try:
            return LLM(self._folder.name, load_format="dummy", enforce_eager=True, **arguments)
        except Exception as error:
            # vLLM raises errors of many libraries
            self._free()
            raise WeightsError(f"{self._name}: vLLM does not run the policy: {error}") from error

    def _check(self, row: int, added: int, limit: int) -> None:
        if not 0 <= row < len(self._contexts):
            raise EngineRequestError(
                f"{self._name}: row {row} of a batch of {len(self._contexts)}; call begin with the "
                "number of rows, also after update"
            )
        before = len(self._contexts[row])
        if before + added < 1 or limit < 1:
            raise EngineRequestError(
                f"{self._name}: row {row} has {before + added} tokens and a limit of {limit}; "
                "expected at least 1 each"
            )
        if before + added + limit > self._context:
            raise ContextLengthError(
                f"{self._name}: {before} tokens, {added} more and {limit} to sample exceed the "
                f"context of {self._context}"
            )

    def _sampling(self, row: int, limit: int) -> Any:
        from vllm import SamplingParams

        seed = np.random.SeedSequence((self._seed, row, self._turns[row])).generate_state(1)[0]
        return SamplingParams(
            temperature=self._temperature,
            seed=int(seed),
            max_tokens=limit,
            stop=self._stop,
            stop_token_ids=self._end_ids,
            ignore_eos=True,  # the end tokens are given
            skip_special_tokens=False,  # one of them may be a stop
            spaces_between_special_tokens=False,
        )

    def _cut(self, output: Any) -> Sampled:
        ids = tuple(map(int, output.token_ids))
        for count in range(1, len(ids) + 1):
            reason = self._stops.reason(ids[:count])
            if reason is not None:
                return Sampled(ids[:count], reason)
        return Sampled(ids, "stop" if output.finish_reason == "stop" else "length")

    def _forget(self) -> None:
        """Drop cached prefixes, whose states are those of earlier weights."""
        engine = self._engine.llm_engine
        config = engine.cache_config
        for scheduler in engine.scheduler:  # vLLM 0.6.3 has no call for it
            scheduler.block_manager = type(scheduler.block_manager)(
                block_size=config.block_size,
                num_gpu_blocks=config.num_gpu_blocks,
                num_cpu_blocks=config.num_cpu_blocks,
                sliding_window=config.sliding_window,
                enable_caching=config.enable_prefix_caching,
            )


def plain_weights(model: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield a model's weights by the names they have without adapters, tied ones once.

    Args:
        model: Of transformers; layers may be wrapped by the adapters of PEFT, which are added to
            the weights one layer at a time. The model itself is not changed.
    """
    adapted = {
        name: module for name, module in model.named_modules() if hasattr(module, "base_layer")
    }
    for name, weight in model.named_parameters():
        layer, _, rest = name.partition(".base_layer.")
        if rest:
            yield f"{layer}.{rest}", _merged(adapted[layer], weight, rest)
        elif not any(name.startswith(f"{one}.") for one in adapted):
            yield name, weight.data


def _merged(layer: Any, weight: Tensor, name: str) -> Tensor:
    if name != "weight" or layer.disable_adapters or layer.merged:
        return weight.data
    merged = weight.data.clone()
    for adapter in layer.active_adapters:
        if adapter in layer.scaling:
            merged += layer.get_delta_weight(adapter).to(merged.dtype)
    return merged
