"""The `vllm` engine: an AsyncLLMEngine of vLLM inside this process.

Uses only what vLLM 0.6.3 and 0.32 have in common (`_vllm_api`), so that the pinned environment
of Router-R1 and today's release both serve. Importing this module imports neither.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar

from waypost.config import StrictModel
from waypost.contracts.errors import EngineRequestError
from waypost.engines._lm_engine import LocalEngine, Wanted
from waypost.engines._vllm_api import Config

if TYPE_CHECKING:
    from waypost.engines._vllm_batch import Choice, VllmBatch
    from waypost.engines._vllm_guided import Formats

_HEALTH_S = 10.0


class VllmEngine(LocalEngine):
    """Generates with vLLM.

    Attributes:
        config: Its settings.
    """

    name: ClassVar[str] = "vllm"
    config_class: ClassVar[type[StrictModel]] = Config
    _batch: VllmBatch | None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config
        self._formats: Formats | None = None

    def _begin(self) -> VllmBatch:
        from waypost.engines import _vllm_api as api

        api.prepare(self.config)
        from waypost import weights
        from waypost.engines._lm_prompt import ModelText
        from waypost.engines._vllm_batch import VllmBatch
        from waypost.engines._vllm_guided import Formats

        config = self.config
        path = weights.resolve(config.model)
        # read first: a folder that is no model is told apart in a second and not in a minute
        text = ModelText.of_folder(path, config.model)
        most = config.max_batch_size + config.max_waiting
        if config.response_format == "enforce":
            # before vLLM starts: a process that it forks has it then, too
            self._formats = Formats(path, config.model)
        batch = VllmBatch(text, most, config.nice, self._flush)
        batch.start(lambda: api.load(config, path, text))
        return batch

    def _sampling(self, wanted: Wanted) -> Choice:
        from waypost.engines import _vllm_api as api
        from waypost.engines._vllm_batch import Choice

        guided = None
        if wanted.schema is not None and self._formats is not None:
            guided = self._formats.follow(wanted.schema)
        ends = frozenset() if self._batch is None else self._batch.model.end_ids
        try:
            return Choice(api.sampling(wanted, ends, self._formats), guided)
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
