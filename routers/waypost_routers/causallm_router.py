"""Score the LLMs by a small causal LLM, fine-tuned with LoRA to output the best one's letter."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.parameters import Integer, OneOf, Real, Text
from waypost.contracts.records import QueryBatch
from waypost.contracts.routing_data import RoutingData
from waypost.contracts.types import Floats
from waypost.weights.catalog import SMOLLM2
from waypost_routers._finetune.base import FineTunedRouter, Weights, load_base
from waypost_routers._finetune.letter_training import LetterSettings, LetterTraining
from waypost_routers._finetune.letters import LetterModel, LetterPrompt, LoraSettings
from waypost_routers._shared import draw


class CausalLMRouter(FineTunedRouter):
    """A causal LLM that reads a lettered list of the LLMs; next-letter probabilities are scores.

    It follows the causal LLM classifier of RouteLLM (arXiv 2406.18665). A decision averages two
    forward passes, with the list in one order and its reverse, to cancel position bias. The pool
    holds at most 26 LLMs.

    When to take it:
        To compare with the literature. A decision is two passes of a language model, which takes
        seconds on a CPU, and a fit takes minutes even on a few hundred questions.

    Args:
        model: Instruct model to fine-tune: hub name or folder.
        max_queries: Maximum number of training questions, a fifth of them held out; None is all.
        max_tokens: Maximum number of tokens read of a query: its last ones.
        feature_words: Words of each LLM's description listed beside its name.
        epochs: Passes over the questions; 0 leaves the model as it is.
        batch_size: Questions in a step.
        learning_rate: Peak learning rate of AdamW.
        rank: Rank of the LoRA matrices.
        alpha: LoRA scaling: the matrices' product is multiplied by alpha / rank.
        trained_layers: Number of upper layers with LoRA matrices.
        target_temperature: T of the targets softmax(score / T); a low T favours the best LLM only.
        seed: Seed of sampling, initial matrices and list orders.
        device: ``auto``, ``cpu`` or ``cuda``; ``auto`` is cuda if available.
    """

    name = "causallm_router"
    needs_weights = "causal"
    changeable_parameters = ("learning_rate",)
    new_model_support = "refit"
    trial_parameters: ClassVar = {"max_queries": 64, "max_tokens": 32, "trained_layers": 10}
    parameter_constraints: ClassVar = {
        "model": Text(),
        "max_queries": Integer(1, optional=True),
        "max_tokens": Integer(8, 32768),
        "feature_words": Integer(0),
        "epochs": Integer(0),
        "batch_size": Integer(1),
        "learning_rate": Real(0, open_low=True),
        "rank": Integer(1),
        "alpha": Real(0, open_low=True),
        "trained_layers": Integer(1),
        "target_temperature": Real(0, open_low=True),
        "seed": Integer(0),
        "device": OneOf(("auto", "cpu", "cuda")),
    }

    def __init__(
        self,
        model: str = SMOLLM2,
        max_queries: int | None = 300,
        max_tokens: int = 128,
        feature_words: int = 0,
        epochs: int = 1,
        batch_size: int = 8,
        learning_rate: float = 1e-3,
        rank: int = 16,
        alpha: float = 32,
        trained_layers: int = 15,
        target_temperature: float = 0.1,
        seed: int = 0,
        device: str = "auto",
    ) -> None:
        self.model = model
        self.max_queries = max_queries
        self.max_tokens = max_tokens
        self.feature_words = feature_words
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.rank = rank
        self.alpha = alpha
        self.trained_layers = trained_layers
        self.target_temperature = target_temperature
        self.seed = seed
        self.device = device

    def _tuner(self, data: RoutingData, held_out: RoutingData | None) -> LetterTraining:
        base = load_base(self.model, "causal", self.device)
        self.base_ = {
            "name": base.name,
            "digest": base.digest,
            "max_tokens": self.max_tokens,
            "feature_words": self.feature_words,
            "lora": {"rank": self.rank, "alpha": self.alpha, "layers": self.trained_layers},
            "seed": self.seed,
            "frame": None,
        }
        model = self._letter_model()
        self.base_["frame"] = list(model.prompt.frame)
        known = {name: getattr(self, name) for name in LetterSettings.__dataclass_fields__}
        quality = data.quality[:, self._by_name()]
        return LetterTraining(model, data.queries, quality, LetterSettings(**known))

    def _take(self, tuner: LetterTraining) -> None:
        self.weights_ = Weights(tuner.model())

    def _build(self) -> LetterModel:
        model = self._letter_model(self.weights_.arrays)
        model.keep_heads(self._orders())
        return model

    def _letter_model(self, arrays: dict[str, NDArray[Any]] | None = None) -> LetterModel:
        known = self.base_
        base = load_base(known["name"], "causal", self.device, known["digest"])
        llms = [self.llms_[j] for j in self._by_name()]
        prompt = LetterPrompt(
            base, llms, known["feature_words"], known["max_tokens"], known["frame"]
        )
        return LetterModel(base, prompt, LoraSettings(**known["lora"]), known["seed"], arrays)

    def _by_name(self) -> NDArray[np.intp]:
        """Return the columns in the order of the names, so that the pool's order has no effect."""
        return np.argsort([llm.name for llm in self.llms_])

    def _orders(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        seed = self.base_["seed"]
        names = sorted(llm.name for llm in self.llms_)
        order = np.array(sorted(range(len(names)), key=lambda j: draw(seed, names[j])))
        return order, order[::-1].copy()

    def _raw(self, batch: QueryBatch) -> Floats:
        model: LetterModel = self._model()
        scores = np.array([model.log_shares(query.text) for query in batch.queries])
        raw = np.empty((len(batch), len(self.llms_)))
        raw[:, self._by_name()] = scores
        return raw
