"""The `vllm` engine: an AsyncLLMEngine of vLLM inside this process.

Uses only what vLLM 0.6.3 and 0.32 have in common (`_vllm_api`), so that the pinned environment
of Router-R1 and today's release both serve. Importing this module imports neither.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, field_validator

from waypost.contracts.errors import EngineRequestError
from waypost.engines._lm_engine import LocalConfig, LocalEngine, Wanted

if TYPE_CHECKING:
    from waypost.engines._vllm_batch import VllmBatch

_HEALTH_S = 10.0

_OURS = {
    "model": "model",
    "tokenizer": "model",
    "dtype": "dtype",
    "max_model_len": "context_length",
    "max_num_seqs": "max_batch_size",
    "tensor_parallel_size": "tensor_parallel_size",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "enforce_eager": "enforce_eager",
}
"""Arguments of vLLM that a setting of ours gives, and that setting."""


class Config(LocalConfig):
    """Settings of the `vllm` engine."""

    max_batch_size: int = Field(default=32, ge=1)
    """Requests that generate together; the key-value cache may hold fewer."""

    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs (on a CPU: processes) that share the model."""

    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of the GPU's memory for weights and key-value cache together."""

    kv_cache_gib: int = Field(default=1, ge=1)
    """On a CPU: GiB of memory for the key-value cache."""

    enforce_eager: bool | None = None
    """True compiles and captures nothing, which starts faster. None is True on a CPU only."""

    engine_args: dict[str, Any] = Field(default_factory=dict)
    """Further arguments of vLLM's AsyncEngineArgs, as the installed version names them."""

    @field_validator("engine_args")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        if taken := sorted(set(value) & set(_OURS)):
            instead = ", ".join(f"{_OURS[name]} for {name}" for name in taken)
            raise ValueError(f"has settings of its own: give {instead}")
        return value


class VllmEngine(LocalEngine):
    """Generates with vLLM.

    Attributes:
        config: Its settings.
    """

    name: ClassVar[str] = "vllm"
    _batch: VllmBatch | None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config

    def _begin(self) -> VllmBatch:
        from waypost.engines import _vllm_api as api

        api.prepare(self.config)
        from waypost import weights
        from waypost.engines._lm_prompt import ModelText
        from waypost.engines._vllm_batch import VllmBatch

        config = self.config
        path = weights.resolve(config.model)
        # read first: a folder that is no model is told apart in a second and not in a minute
        text = ModelText.of_folder(path, config.model)
        most = config.max_batch_size + config.max_waiting
        batch = VllmBatch(text, most, config.nice, self._flush)
        batch.start(lambda: api.load(config, path, text))
        return batch

    def _sampling(self, wanted: Wanted) -> Any:
        from waypost.engines import _vllm_api as api

        ends = frozenset() if self._batch is None else self._batch.model.end_ids
        try:
            return api.sampling(wanted, ends)
        except Exception as error:  # noqa: BLE001 - 0.6.3: ValueError; 0.32: one of its own
            raise EngineRequestError(f"vLLM refuses the sampling parameters: {error}") from None

    async def healthy(self) -> bool:
        """Ask vLLM whether its processes live; False where it does not say so in 10 s."""
        batch = self._batch
        if batch is None or not batch.alive:
            return False
        try:
            async with asyncio.timeout(_HEALTH_S):
                return await asyncio.wrap_future(batch.check())
        except TimeoutError:
            return False


def build(config: Config) -> VllmEngine:
    """Make the engine."""
    return VllmEngine(config)
