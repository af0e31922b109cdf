"""Prompts that list the LLMs under letters, and the model that scores the letters."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import MissingExtraError, SchemaError, WeightsError
from waypost.contracts.records import LLMInfo
from waypost.encoders.texts import CHARS_PER_TOKEN, prepare
from waypost_routers._finetune.base import Base

if TYPE_CHECKING:
    from torch import Tensor

MOST_LLMS = len(ascii_uppercase)

FEWEST_QUERY_TOKENS = 8

_MARK = "\u241e"
"""Placeholder of the question while the chat template is applied."""

_ASK = "Which model answers the question best?\n"


class LetterPrompt:
    """A builder of prompts whose next token is the letter of an LLM.

    The list of LLMs comes first, so that its key-value cache can be reused between questions. Only
    the question is truncated, at its beginning.

    Args:
        base: The model whose tokenizer and chat template are used.
        llms: The candidates.
        feature_words: Number of words of each LLM's ``feature`` in the list.
        max_tokens: Maximum number of tokens of a question.
        frame: Texts before and after the prompt; None takes them from the chat template, which may
            contain today's date.

    Attributes:
        letters: Token ids of the letters.
        frame: Texts before and after the prompt.

    Raises:
        SchemaError: there are more LLMs than letters, or the list leaves no room for a question.
        WeightsError: the tokenizer lacks a token for a letter.
    """

    def __init__(
        self,
        base: Base,
        llms: Sequence[LLMInfo],
        feature_words: int,
        max_tokens: int,
        frame: Sequence[str] | None = None,
    ) -> None:
        from transformers import AutoTokenizer

        if len(llms) > MOST_LLMS:
            raise SchemaError(
                f"causallm_router supports {MOST_LLMS} LLMs, one letter each; there are "
                f"{len(llms)}: leave some out, or train another router"
            )
        self._tokenizer: Any = AutoTokenizer.from_pretrained(base.folder, local_files_only=True)
        self._descriptions = [describe(llm, feature_words) for llm in llms]
        self.letters = [self._letter(base, letter) for letter in ascii_uppercase[: len(llms)]]
        self.frame = tuple(frame) if frame is not None else self._template_frame()
        self._tail = self._ids(self.frame[1])
        context = int(getattr(base.model.config, "max_position_embeddings", None) or 2048)
        room = context - len(self.head(range(len(llms)))) - len(self._tail)
        if room < FEWEST_QUERY_TOKENS:
            raise SchemaError(
                f"causallm_router: the list of {len(llms)} LLMs fills the {context} tokens that "
                f"{base.name} reads; lower feature_words, or leave LLMs out"
            )
        self._max_tokens = min(max_tokens, room)

    def head(self, order: Sequence[int]) -> list[int]:
        """Return the token ids up to the question, with the LLMs listed in ``order``, A first."""
        lines = [
            f"{letter}. {self._descriptions[j]}"
            for letter, j in zip(ascii_uppercase, order, strict=False)
        ]
        return self._ids(self.frame[0] + _ASK + "\n".join(lines) + "\n\nQuestion: ")

    def rest(self, text: str) -> list[int]:
        """Return the token ids from the question on; a long question keeps its last tokens."""
        (valid,) = prepare([text[-self._max_tokens * CHARS_PER_TOKEN :]], self._max_tokens)
        return self._ids(valid)[-self._max_tokens :] + self._tail

    def _template_frame(self) -> tuple[str, str]:
        after = "\n\nAnswer with its letter."
        if not getattr(self._tokenizer, "chat_template", None):
            return "", after + "\nAnswer: "
        chat = [{"role": "user", "content": _MARK + after}]
        text = self._tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        before, _, after = text.partition(_MARK)
        return before, after

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _letter(self, base: Base, letter: str) -> int:
        ids = self._ids(letter)
        if len(ids) != 1:
            raise WeightsError(f"{base.name}: its tokenizer has no token for {letter} alone")
        return ids[0]


def describe(llm: LLMInfo, feature_words: int) -> str:
    """Return an LLM's line of the list: name, size, and the first words of its ``feature``."""
    size = f" ({llm.size})" if llm.size else ""
    words = " ".join((llm.feature or "").split()[:feature_words])
    return f"{llm.name}{size}" + (f": {words}" if words else "")


TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]


@dataclass(frozen=True)
class LoraSettings:
    """Shape of the LoRA adapter; see peft.

    Attributes:
        rank: Rank of the matrices.
        alpha: Scaling: the matrices' product is multiplied by alpha / rank.
        layers: Number of upper layers with matrices; all if the model has fewer.
    """

    rank: int
    alpha: float
    layers: int


class LetterModel:
    """A causal LLM with a LoRA adapter that scores each letter as the next token.

    Args:
        base: The pretrained model; it is not changed.
        prompt: Builder of the prompts.
        lora: The adapter's shape.
        seed: Seed of its initial matrices.
        arrays: Its trained matrices; None keeps the initial ones, which have no effect.

    Raises:
        MissingExtraError: peft is not installed.
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
        """Set the adapter's matrices."""
        import peft
        import torch

        loaded = {name: torch.from_numpy(np.array(value)) for name, value in arrays.items()}
        peft.set_peft_model_state_dict(self._adapted, loaded)

    def parameters(self) -> list[Any]:
        """Return the parameters to train."""
        return [p for p in self._adapted.parameters() if p.requires_grad]

    def letter_logits(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """Return the letters' logits after each prompt, (n, n_llms), with gradients."""
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
        """Compute and keep the key-value cache of the list in each order, for `log_shares`."""
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
                # a copy: the model writes into the cache that other threads read
                out = self._backbone(
                    input_ids=ids, past_key_values=copy.deepcopy(head), use_cache=True
                )
                logits = out.last_hidden_state[0, -1] @ self._letter_rows.T
                shares = torch.log_softmax(logits.double(), dim=-1).cpu().numpy()
            total[order] += shares
        return np.asarray(total / len(self._heads))
