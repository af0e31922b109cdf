"""The `transformers` engine: a Hugging Face model inside this process, batched continuously.

The default on a CPU. A thread of its own generates (`_lm_loop`); the event loop only passes
text on. Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from waypost.config import StrictModel
from waypost.contracts.errors import MissingExtraError
from waypost.engines._lm_engine import LocalConfig, LocalEngine, Wanted

if TYPE_CHECKING:
    from waypost.engines._lm_guided import Guide
    from waypost.engines._lm_loop import BatchLoop, Sampling
    from waypost.engines._lm_model import LanguageModel


class Config(LocalConfig):
    """Settings of the `transformers` engine."""

    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """``auto`` is the GPU where there is one, else the CPU."""

    prefill_tokens: int = Field(default=128, ge=1)
    """Prompt tokens read between two tokens of the running requests."""


class TransformersEngine(LocalEngine):
    """Generates with a model of the transformers library.

    Attributes:
        config: Its settings.
    """

    name: ClassVar[str] = "transformers"
    config_class: ClassVar[type[StrictModel]] = Config
    _batch: BatchLoop | None

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self.config = config
        self._guide: Guide | None = None

    @property
    def steps(self) -> int:
        """Steps of the batch since the start; each made one token for every running request."""
        return 0 if self._batch is None else self._batch.steps

    def _begin(self) -> BatchLoop:
        from waypost import weights

        weights.find(self.config.model)  # a wrong path is told before torch's seconds of import
        try:
            from waypost.engines._lm_loop import BatchLoop, Limits
            from waypost.engines._lm_model import LanguageModel
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "transformers", "serve") from None
        config = self.config

        def load() -> LanguageModel:
            path = weights.resolve(config.model)
            model = LanguageModel.load(path, config.device, config.dtype, config.model)
            if config.response_format == "enforce":
                self._guide = model.guide()
            return model

        limits = Limits(config.max_batch_size, config.max_waiting, config.prefill_tokens)
        batch = BatchLoop(limits, config.threads, config.nice, self._flush)
        batch.start(load)
        return batch

    def _sampling(self, wanted: Wanted) -> Sampling:
        import torch

        from waypost.engines._lm_loop import Sampling

        device = "cpu" if self._batch is None else self._batch.model.device
        generator = torch.Generator(device=device)
        if wanted.seed is None:
            generator.seed()
        else:
            generator.manual_seed(wanted.seed)
        guided = None
        if wanted.schema is not None and self._guide is not None:
            guided = self._guide.follow(wanted.schema)
        return Sampling(wanted.temperature, wanted.top_p, generator, guided)
