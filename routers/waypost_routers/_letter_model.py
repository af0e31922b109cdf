"""A causal language model with LoRA matrices that names an LLM by one letter."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import MissingExtraError, WeightsError
from waypost_routers._base_models import Base
from waypost_routers._letter_prompt import LetterPrompt

if TYPE_CHECKING:
    from torch import Tensor

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


@dataclass(frozen=True)
class LoraSettings:
    """Shape of the adapter; see peft.

    Attributes:
        rank: Of the matrices.
        alpha: Their scale, over rank.
        layers: Upper layers that have them; all where the model has fewer.
    """

    rank: int
    alpha: float
    layers: int


class LetterModel:
    """Says how likely each letter is as the next token.

    Args:
        base: The pretrained model; it stays as it is.
        prompt: Makes the prompts.
        lora: The adapter's shape.
        seed: Of its first matrices.
        arrays: Its trained matrices; None leaves the first ones, which change nothing.

    Raises:
        MissingExtraError: without peft.
        WeightsError: the model has no projections of the expected names.
    """

    def __init__(
        self,
        base: Base,
        prompt: LetterPrompt,
        lora: LoraSettings,
        seed: int,
        arrays: Mapping[str, NDArray[Any]] | None = None,
    ) -> None:
        try:
            import peft
        except ImportError:
            raise MissingExtraError("peft", "train") from None
        import torch

        self.prompt = prompt
        self.device = base.device
        count = int(base.model.config.num_hidden_layers)
        config = peft.LoraConfig(
            r=lora.rank,
            lora_alpha=lora.alpha,
            lora_dropout=0.0,
            target_modules=TARGETS,
            layers_to_transform=list(range(max(count - lora.layers, 0), count)),
            task_type="CAUSAL_LM",
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                self._adapted: Any = peft.inject_adapter_in_model(config, base.copy())
            except ValueError as error:
                raise WeightsError(f"{base.name}: LoRA does not fit it: {error}") from error
        if arrays is not None:
            self.take(arrays)
        self._adapted.eval()
        self._backbone = getattr(self._adapted, self._adapted.base_model_prefix)
        head = self._adapted.get_output_embeddings()
        self._letter_rows = head.weight[prompt.letters].detach()
        self._heads: list[tuple[NDArray[np.intp], Any]] = []

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the adapter's matrices by name."""
        import peft

        state = peft.get_peft_model_state_dict(self._adapted)
        return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over the adapter's matrices."""
        import peft
        import torch

        loaded = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
        peft.set_peft_model_state_dict(self._adapted, loaded)

    def parameters(self) -> list[Any]:
        """Return the parameters to train."""
        return [p for p in self._adapted.parameters() if p.requires_grad]

    def letter_logits(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits of the letters, (n, n_llms), after each prompt; with gradients."""
        import torch

        lengths = torch.tensor([len(ids) for ids in prompts], device=self.device)
        rows = [torch.tensor(ids) for ids in prompts]
        ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.device)
        real = torch.arange(ids.shape[1], device=self.device) < lengths[:, None]
        out = self._backbone(input_ids=ids, attention_mask=real.long(), use_cache=False)
        last = out.last_hidden_state[torch.arange(len(rows), device=self.device), lengths - 1]
        logits: Tensor = last @ self._letter_rows.T
        return logits

    def keep_heads(self, orders: Sequence[NDArray[np.intp]]) -> None:
        """Read the list of LLMs in each order, once, for `log_shares`."""
        import torch

        with torch.no_grad():
            self._heads = []
            for order in orders:
                ids = torch.tensor([self.prompt.head(order.tolist())], device=self.device)
                out = self._backbone(input_ids=ids, use_cache=True)
                self._heads.append((order, out.past_key_values))

    def log_shares(self, text: str) -> NDArray[np.float64]:
        """Return log probabilities of the LLMs, (n_llms,), averaged over the kept orders."""
        import torch

        total = np.zeros(len(self.prompt.letters))
        ids = torch.tensor([self.prompt.rest(text)], device=self.device)
        for order, head in self._heads:
            with torch.no_grad():
                # a copy: the model writes into the cache, and other threads read it
                out = self._backbone(
                    input_ids=ids, past_key_values=copy.deepcopy(head), use_cache=True
                )
                logits = out.last_hidden_state[0, -1] @ self._letter_rows.T
                shares = torch.log_softmax(logits.double(), dim=-1).cpu().numpy()
            total[order] += shares
        return np.asarray(total / len(self._heads))
