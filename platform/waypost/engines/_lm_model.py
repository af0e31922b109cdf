"""A causal language model with its weights: tokens to the next logits.

Works with transformers 4.45 to 5.x. Imports torch and transformers at the top: only
`_lm_loop` imports it, which is imported when a `transformers` engine starts.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from waypost.contracts.errors import WeightsError
from waypost.engines._lm_cache import RowCache
from waypost.engines._lm_grouped import packed_queries
from waypost.engines._lm_prompt import ModelText

logger = logging.getLogger(__name__)

_KNOWN_LAYERS = {"full_attention", "sliding_attention"}


class LanguageModel(ModelText):
    """Weights and tokenizer of one decoder-only model.

    Attributes:
        device: Where the weights are.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        super().__init__(tokenizer, model.config, model.generation_config, name)
        self.device = torch.device(model.device)
        self._model = model.eval()
        self._forward_names = set(inspect.signature(model.forward).parameters)
        self._window, self._mixed = self._attention()
        sdpa = getattr(model.config, "_attn_implementation", None) == "sdpa"
        self._packs = sdpa and transformers.__version__.startswith("4.")
        self._check()
        self.context_length = self._context()

    @classmethod
    def load(cls, path: Path, device: str, dtype: str, name: str) -> LanguageModel:
        """Read a model folder.

        Args:
            path: Folder with config, safetensors and tokenizer.
            device: ``cpu``, ``cuda``, ``cuda:1``, or ``auto`` (cuda where there is one).
            dtype: ``bfloat16``, ``float16`` or ``float32``.
            name: What messages call it.

        Raises:
            WeightsError: where the folder cannot be read or the model is of a kind that this
                engine cannot batch.
        """
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        key = "torch_dtype" if transformers.__version__.startswith("4.") else "dtype"
        if not logger.isEnabledFor(logging.DEBUG):
            transformers.utils.logging.disable_progress_bar()
        options = {key: getattr(torch, dtype), "local_files_only": True}
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(path, local_files_only=True)
            model = transformers.AutoModelForCausalLM.from_pretrained(path, **options).to(device)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise WeightsError(f"{name}: {path} does not load on {device}: {error}") from error
        return cls(model, tokenizer, name)

    @property
    def width(self) -> int:
        """Logits of a token; some models have more than tokens."""
        return int(self._model.get_output_embeddings().weight.shape[0])

    def next_logits(
        self, ids: Sequence[Sequence[int]], cache: RowCache, rows: Sequence[int] | None = None
    ) -> Tensor:
        """Run the model on the next tokens of some rows and keep their states in the cache.

        Args:
            ids: Row -> its new tokens, at least one.
            cache: What came before.
            rows: Rows of the cache that `ids` belongs to; None for all of them.

        Returns float32 logits of each row's last token, (rows, vocabulary).
        """
        positions = cache.begin([len(one) for one in ids], self.device, rows)
        width = positions.shape[1]
        padded = [[0] * (width - len(one)) + list(one) for one in ids]
        keep = "logits_to_keep" if "logits_to_keep" in self._forward_names else "num_logits_to_keep"
        packed = self._packs and width == 1
        with packed_queries(self._model) if packed else nullcontext():
            output = self._model(
                input_ids=torch.tensor(padded, device=self.device),
                attention_mask=self._masks(positions, cache.end),
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                **({keep: 1} if keep in self._forward_names else {}),
            )
        cache.commit()
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def _masks(self, positions: Tensor, width: int) -> Tensor | dict[str, Tensor]:
        # Additive masks of the model's dtype: the one form that every attention function and
        # both ends of the transformers range take as they are.
        keys = torch.arange(width, device=self.device)
        behind = positions[:, None, :, None] - keys  # (rows, 1, new, width): 0 is the token itself
        full = self._additive(behind >= 0)
        if not self._mixed:
            return full
        near = self._additive((behind >= 0) & (behind < self._window))
        return {"full_attention": full, "sliding_attention": near}

    def _additive(self, seen: Tensor) -> Tensor:
        dtype = self._model.dtype
        mask = torch.zeros(seen.shape, dtype=dtype, device=self.device)
        return mask.masked_fill_(~seen, torch.finfo(dtype).min)

    def _check(self) -> None:
        layers = set(getattr(self._config, "layer_types", None) or ()) - _KNOWN_LAYERS
        why = ", ".join(sorted(layers))
        old = transformers.__version__.startswith("4.")
        if self._config.is_encoder_decoder or "position_ids" not in self._forward_names:
            why = "it is no decoder with position_ids"
        elif old and not getattr(self._model, "_supports_cache_class", True):
            why = "its cache has another form before transformers 5"
        elif old and self._mixed:
            why = "layers with and without a sliding window need transformers 5"
        if why:
            raise WeightsError(
                f"{self.name}: the transformers engine cannot batch this kind of model ({why}); "
                "serve it behind an OpenAI-style endpoint and use the openai engine"
            )

    def _attention(self) -> tuple[int, bool]:
        """Return the sliding window (0: none) and whether masks are given by kind of layer."""
        config = self._config
        kinds = getattr(config, "layer_types", None)
        window = int(getattr(config, "sliding_window", None) or 0)
        if kinds is not None:
            mixed = "sliding_attention" in kinds and window > 0
            return (window, True) if mixed else (0, False)
        return (window, False) if getattr(config, "use_sliding_window", True) else (0, False)

    def _context(self) -> int:
        # One mask for all layers says nothing of a window; below its width there is none.
        if self._window and not self._mixed:
            return min(self.context_length, self._window)
        return self.context_length
