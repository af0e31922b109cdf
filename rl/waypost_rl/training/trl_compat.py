"""PPO by TRL 0.11.4: the only module that imports TRL.

What differs from TRL's trainer, each with a test in tests/rl/training/test_trl_compat.py:

- Advantages are carried over the gaps of masked tokens (`waypost_rl.training.advantages`).
- A mini-batch whose probability ratio is above the limit is left out before the optimizer. TRL
  multiplies its loss by 0, and Adam still moves the weights by its momentum.
- Gradients are clipped at every step. TRL keeps the parameters as an iterator, which the first
  clipping uses up.
- The entropy bonus of the policy's own tokens is part of the loss.
- An adaptive weight of the divergence has a floor.
- Several workers on CPUs work: statistics are those of all (TRL adds up a copy and drops it), and
  gradients are averaged where the last mini-batch of an optimizer step is left out.
"""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from waypost.contracts.errors import ConfigError, Fault, MissingExtraError, WeightsError
from waypost_rl.training import tensors
from waypost_rl.training.advantages import gae, whiten
from waypost_rl.training.config import PPOConfig
from waypost_rl.training.parts import Sample

try:
    from trl import AutoModelForCausalLMWithValueHead, PPOTrainer
    from trl import PPOConfig as TrainerConfig
except ImportError:
    raise MissingExtraError("trl", "router-r1") from None

LORA_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")

STATISTICS = {
    "objective/kl": "kl",
    "objective/kl_coef": "kl_coefficient",
    "ppo/mean_non_score_reward": "kl_penalty",
    "ppo/loss/policy": "policy_loss",
    "ppo/loss/value": "value_loss",
    "ppo/policy/entropy": "entropy",
    "ppo/policy/clipfrac": "clipped",
    "ppo/policy/approxkl": "step_kl",
    "ppo/val/var_explained": "value_variance_explained",
    "ppo/val/mean": "value",
    "time/ppo/total": "learning_s",
}
"""TRL's name of a statistic -> ours."""


class _Trainer(PPOTrainer):  # type: ignore[misc]  # TRL is not typed
    """TRL's trainer with the differences that the module lists."""

    def __init__(self, settings: PPOConfig, **given: Any) -> None:
        reference = given["ref_model"]
        if reference is not None:  # on CPUs accelerate wraps every model, and torch wants gradients
            reference.requires_grad_(True)
        super().__init__(**given)
        if reference is not None:
            self.ref_model: Any = self.accelerator.unwrap_model(self.ref_model).requires_grad_(
                False
            )
        self.settings = settings
        self.model_params = [one for one in self.model.parameters() if one.requires_grad]
        self.skipped = 0
        self.gradient_norms: list[float] = []
        self._has_gradient = False

    def compute_advantages(
        self, values: Tensor, rewards: Tensor, mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return values, whitened advantages and returns, (episodes, tokens) each."""
        of = self.settings
        advantages, returns = gae(values, rewards, mask, gamma=of.gamma, lam=of.lam)
        return values * mask, whiten(advantages, mask).detach(), returns

    def loss(
        self,
        old_logprobs: Tensor,
        values: Tensor,
        logits: Tensor,
        vpreds: Tensor,
        logprobs: Tensor,
        mask: Tensor,
        advantages: Tensor,
        returns: Tensor,
    ) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """Return policy loss, value loss and statistics of a mini-batch."""
        policy, value, statistics = super().loss(
            old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns
        )
        if self.settings.entropy > 0:
            own = torch.log_softmax(logits[mask.bool()].float(), dim=-1)
            policy = policy + self.settings.entropy * (own.exp() * own).sum(-1).mean()
        return policy, value, statistics

    def train_minibatch(
        self,
        old_logprobs: Tensor,
        values: Tensor,
        logprobs: Tensor,
        logits: Tensor,
        vpreds: Tensor,
        mask: Tensor,
        advantages: Tensor,
        returns: Tensor,
    ) -> dict[str, Tensor]:
        """Learn from a mini-batch, or leave it out where its ratio is above the limit."""
        self.model.train()
        policy, value, statistics = self.loss(
            old_logprobs, values, logits, vpreds, logprobs, mask, advantages, returns
        )
        skipped = self._too_far(statistics["policy/ratio"], mask)
        if skipped:
            self.skipped += 1
        else:
            self.accelerator.backward(policy + value)
            self._has_gradient = True
        if self.accelerator.sync_gradients:
            if self._has_gradient:
                if self.is_distributed and skipped:
                    self._average_gradients()
                self._update()
            self.optimizer.zero_grad()
            self._has_gradient = False
        return dict(statistics)

    def _too_far(self, ratio: Tensor, mask: Tensor) -> bool:
        mean = (ratio * mask).sum() / mask.sum()
        far = (~(mean <= self.settings.max_ratio)).float()  # a mean that is no number is too far
        if self.is_distributed:  # a backward pass of some workers only would wait for the others
            torch.distributed.all_reduce(far, torch.distributed.ReduceOp.MAX)
        return bool(far.item())

    def gather_stats(self, stats: dict[str, Any]) -> dict[str, Any]:
        """Return statistics as means over the workers."""
        for name, value in stats.items():
            if isinstance(value, Tensor):
                joined = value.to(self.current_device, copy=True)
                torch.distributed.all_reduce(joined)
                stats[name] = joined / self.accelerator.num_processes
        return stats

    def _average_gradients(self) -> None:
        """Average gradients over the workers, as the backward pass of a last mini-batch does."""
        for one in self.model_params:
            if one.grad is not None:
                torch.distributed.all_reduce(one.grad)
                one.grad /= self.accelerator.num_processes

    def _update(self) -> None:
        limit = self.settings.max_grad_norm
        norm = self.accelerator.clip_grad_norm_(
            self.model_params, float("inf") if limit is None else limit
        )
        self.gradient_norms.append(float(norm))
        self.optimizer.step()


class PPOLearner:
    """A policy with a value head, trained by proximal policy optimisation (arXiv 1707.06347).

    Implements `waypost_rl.training.parts.Learner`.

    Args:
        base: Folder of the start policy, which is also the reference of the divergence.
        settings: Of the method. Its batch size is that of all workers together.
        seed: Of the order of mini-batches and of new adapters.
        workers: Processes that learn together.

    Raises:
        WeightsError: The model does not load.
        ConfigError: The model has no layer that the adapters name.
    """

    def __init__(self, base: Path, settings: PPOConfig, *, seed: int = 0, workers: int = 1) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        torch.manual_seed(seed)
        try:
            self.tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
            policy = AutoModelForCausalLM.from_pretrained(
                base, torch_dtype=torch.float32, local_files_only=True
            )
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise WeightsError(f"{base}: the start policy does not load: {error}") from error
        self.tokenizer.padding_side = "right"  # then position ids are those of the texts alone
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self._outer: Any = _with_adapters(policy, settings)
        model = AutoModelForCausalLMWithValueHead(self._outer, summary_dropout_prob=0.0)
        model.is_peft_model = settings.lora is not None  # its from_pretrained alone sets it
        torch.nn.init.zeros_(model.v_head.summary.weight)
        torch.nn.init.zeros_(model.v_head.summary.bias)
        self._head: Any = model.v_head
        self._settings = settings
        self._steps = 0
        self.policy: Any = self._outer.base_model.model if settings.lora else self._outer
        optimizer = torch.optim.Adam(
            [
                {
                    "params": [one for one in self._outer.parameters() if one.requires_grad],
                    "lr": settings.learning_rate,
                },
                {"params": list(self._head.parameters()), "lr": settings.critic_learning_rate},
            ]
        )
        with _quiet():
            self._trainer = _Trainer(
                settings,
                config=_trainer_config(settings, seed, workers),
                model=model,
                ref_model=None if settings.lora else _frozen(model),
                tokenizer=self.tokenizer,
                optimizer=optimizer,
            )

    def step(self, samples: Sequence[Sample]) -> dict[str, float]:
        """Take one step on a batch of this worker.

        Args:
            samples: batch_size / workers episodes.

        Returns:
            ``kl`` (nats an episode), ``kl_coefficient``, ``kl_penalty``, ``policy_loss``,
            ``value_loss``, ``entropy`` (nats a token), ``clipped`` (share of tokens), ``step_kl``,
            ``value``, ``value_variance_explained``, ``gradient_norm``, ``skipped`` (mini-batches
            that changed nothing), ``learning_rate``, ``learning_s``.
        """
        trainer = self._trainer
        trainer.skipped, trainer.gradient_norms = 0, []
        part = min(1.0, (self._steps + 1) / max(1, self._settings.warmup_steps))
        rates = (self._settings.learning_rate, self._settings.critic_learning_rate)
        for group, rate in zip(trainer.optimizer.param_groups, rates, strict=True):
            group["lr"] = part * rate
        with _quiet():
            found = trainer.step(
                [torch.tensor(one.prompt_ids) for one in samples],
                [torch.tensor(one.response_ids) for one in samples],
                [torch.tensor(float(one.score)) for one in samples],
                [torch.tensor(one.mask) for one in samples],
            )
        self._steps += 1
        controller = trainer.kl_ctl
        controller.value = max(controller.value, self._settings.kl.floor)
        statistics = {
            ours: float(np.mean(found[theirs]))
            for theirs, ours in STATISTICS.items()
            if theirs in found
        }
        norms = trainer.gradient_norms
        return statistics | {
            "gradient_norm": float(np.mean(norms)) if norms else 0.0,
            "skipped": float(trainer.skipped),
            "learning_rate": float(found["ppo/learning_rate"]),
        }

    def save(self, folder: Path) -> None:
        """Write trained weights, value head, optimizer and controller to a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        tensors.write(folder / "weights.safetensors", self._trained())
        optimizer = self._trainer.optimizer.state_dict()
        tensors.write(folder / "optimizer.safetensors", tensors.flat(optimizer["state"]))
        state = {
            "groups": optimizer["param_groups"],
            "steps": self._steps,
            "kl_coefficient": self._trainer.kl_ctl.value,
        }
        (folder / "learner.json").write_text(json.dumps(state), encoding="utf-8")

    def load(self, folder: Path) -> None:
        """Continue from what `save` wrote.

        Raises:
            WeightsError: The folder is of another model or method.
        """
        try:
            weights = tensors.read(folder / "weights.safetensors")
            found = tensors.nested(tensors.read(folder / "optimizer.safetensors"))
            state = json.loads((folder / "learner.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WeightsError(f"{folder}: not a checkpoint of a run: {error}") from error
        own = self._trained()
        if {k: v.shape for k, v in own.items()} != {k: v.shape for k, v in weights.items()}:
            raise WeightsError(f"{folder}: the checkpoint is of another model or other adapters")
        with torch.no_grad():
            for name, weight in own.items():
                weight.copy_(weights[name])
        self._trainer.optimizer.load_state_dict({"state": found, "param_groups": state["groups"]})
        self._steps = state["steps"]
        self._trainer.kl_ctl.value = state["kl_coefficient"]

    def _trained(self) -> dict[str, Tensor]:
        """Return the tensors that learning changes, tied ones once, and the value head."""
        found = {f"policy.{n}": p for n, p in self._outer.named_parameters() if p.requires_grad}
        found |= {f"head.{n}": p for n, p in self._head.named_parameters()}
        return {name: one.data for name, one in found.items()}

    def save_policy(self, folder: Path) -> None:
        """Write the policy as a plain checkpoint with its tokenizer; adapters are merged."""
        model = self.policy
        if self._settings.lora is not None:
            model = copy.deepcopy(self._outer).merge_and_unload()
        folder.mkdir(parents=True, exist_ok=True)
        with _quiet():
            model.save_pretrained(folder, safe_serialization=True)
            self.tokenizer.save_pretrained(folder)

    @property
    def value_head(self) -> Any:
        """The critic: a linear layer over the policy's last hidden states."""
        return self._head

    @property
    def computing(self) -> tuple[list[Any], Any]:
        """Modules whose forward passes a step runs, and the optimizer; a bench watches them."""
        models = [self._trainer.model, self._trainer.ref_model]
        return [one for one in models if one is not None], self._trainer.optimizer.optimizer


def _with_adapters(policy: Any, settings: PPOConfig) -> Any:
    if settings.lora is None:
        return policy
    from peft import LoraConfig, get_peft_model

    adapters = LoraConfig(
        r=settings.lora.rank,
        lora_alpha=settings.lora.scale,
        lora_dropout=settings.lora.dropout,
        target_modules=list(settings.lora.modules or LORA_MODULES),
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(policy, adapters)
    except ValueError as error:
        raise ConfigError([Fault("ppo.lora.modules", str(error))]) from None


def _trainer_config(settings: PPOConfig, seed: int, workers: int) -> Any:
    adaptive = settings.kl.target is not None
    with _quiet():
        return TrainerConfig(
            exp_name="router_r1",
            seed=seed,
            batch_size=settings.batch_size // workers,
            mini_batch_size=settings.mini_batch_size,
            gradient_accumulation_steps=settings.accumulation,
            ppo_epochs=settings.epochs,
            learning_rate=settings.learning_rate,
            init_kl_coef=settings.kl.coefficient,
            adap_kl_ctrl=adaptive,
            target=settings.kl.target or 1.0,
            horizon=settings.kl.horizon,
            gamma=settings.gamma,
            lam=settings.lam,
            cliprange=settings.clip,
            cliprange_value=settings.value_clip,
            vf_coef=settings.value_coefficient,
            ratio_threshold=settings.max_ratio,
            gradient_checkpointing=settings.gradient_checkpointing,
            accelerator_kwargs={
                "mixed_precision": settings.mixed_precision or "no",
                "cpu": workers > 1 and not torch.cuda.is_available(),  # else it looks for GPUs
            },
        )


def _frozen(model: Any) -> Any:
    """Return a copy of the start policy that is never trained."""
    frozen = copy.deepcopy(model).eval()
    for one in frozen.parameters():
        one.requires_grad_(False)
    return frozen


@contextmanager
def _quiet() -> Any:
    """Leave out what TRL and its libraries warn of: its deprecation, a missing data set."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
