"""PPO by TRL: every trouble that router_r1_training.md names, on a tiny real model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from waypost.contracts.errors import ConfigError, WeightsError
from waypost.testing.tiny_model import write_tiny_model
from waypost_rl.training.config import KLConfig, LoraConfig, PPOConfig
from waypost_rl.training.parts import Sample

pytestmark = pytest.mark.rl

FULL = PPOConfig(
    batch_size=4,
    mini_batch_size=2,
    accumulation=2,
    learning_rate=1e-3,
    critic_learning_rate=1e-3,
    entropy=0.0,
)
LORA = FULL.model_copy(update={"lora": LoraConfig(rank=4, scale=8)})
SETTINGS = [pytest.param(FULL, id="full"), pytest.param(LORA, id="lora")]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("policy"))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def learner(base: Path, settings: PPOConfig, seed: int = 0) -> Any:
    from waypost_rl.training.trl_compat import PPOLearner

    return PPOLearner(base, settings, seed=seed)


def samples(seed: int = 0, count: int = 4) -> list[Sample]:
    """Return episodes of different lengths, each with a gap of foreign tokens."""
    random = np.random.default_rng(seed)

    def ids(number: int) -> tuple[int, ...]:
        return tuple(int(one) for one in random.integers(5, 60, number))

    made = []
    for at in range(count):
        gap, after = 4 + at, 3 + 2 * at
        mask = (1,) * 5 + (0,) * gap + (1,) * after
        made.append(Sample(ids(6 + at), ids(len(mask)), mask, float(random.random())))
    return made


def weights(of: Any) -> dict[str, Any]:
    return {name: one.clone() for name, one in of._trained().items()}


def moved(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    return [name for name, one in before.items() if not one.equal(after[name])]


@pytest.fixture
def reseed() -> Callable[[int], None]:
    def set_all(seed: int) -> None:
        import torch

        np.random.seed(seed)
        torch.manual_seed(seed)

    return set_all


@pytest.mark.parametrize("settings", SETTINGS)
def test_masked_tokens_change_neither_loss_nor_weights(
    base: Path, settings: PPOConfig, reseed: Callable[[int], None]
) -> None:
    """Log-probabilities and values at masked tokens are perturbed; the loss stays the same.

    The tokens themselves stay: they are in the context of those that follow.
    """
    import torch

    settings = settings.model_copy(update={"entropy": 0.01})
    masks_of = {one.response_ids: one.mask for one in samples()}
    found = []
    for noise in (0.0, 3.0):
        reseed(1)
        one = learner(base, settings)
        trainer = one._trainer
        plain = trainer.batched_forward_pass
        spoiled = torch.Generator().manual_seed(5)

        def forward(
            *given: Any,
            plain: Any = plain,
            noise: float = noise,
            spoiled: Any = spoiled,
            **named: Any,
        ) -> Any:
            logprobs, logits, values, masks = plain(*given, **named)
            gap = torch.zeros_like(logprobs)
            for row, (prompt, response) in enumerate(zip(given[1], given[2], strict=True)):
                at = len(prompt) - 1
                own = masks_of[tuple(response.tolist())]
                gap[row, at : at + len(own)] = 1.0 - torch.tensor(own, dtype=torch.float)
            more = noise * torch.rand(gap.shape, generator=spoiled) * gap
            if logits is not None:
                logits = logits + (more * 5)[..., None] * torch.rand(
                    logits.shape, generator=spoiled
                )
            return logprobs + more, logits, values + more, masks

        trainer.batched_forward_pass = forward
        statistics = one.step(samples())
        statistics.pop("learning_s")
        found.append((statistics, weights(one)))
    (quiet, before), (loud, after) = found
    assert moved(before, after) == []
    for name in ("policy_loss", "value_loss", "entropy", "kl", "gradient_norm"):
        assert quiet[name] == loud[name], name


def test_foreign_tokens_are_not_learned(base: Path) -> None:
    """Gradients of the loss with respect to logits are 0 at masked tokens."""
    import torch

    one = learner(base, FULL.model_copy(update={"entropy": 0.01}))
    generator = torch.Generator().manual_seed(0)
    shape = (2, 7)
    mask = torch.tensor([[0, 1, 1, 0, 0, 1, 0], [1, 1, 0, 1, 1, 1, 1]])
    logits = torch.randn(*shape, 11, generator=generator, requires_grad=True)
    values = torch.randn(shape, generator=generator, requires_grad=True)
    old = torch.randn(shape, generator=generator)
    ids = torch.randint(11, shape, generator=generator)
    logprobs = logits.log_softmax(-1).gather(-1, ids[..., None])[..., 0]
    policy, value, _ = one._trainer.loss(
        old, torch.zeros(shape), logits, values, logprobs, mask,
        torch.randn(shape, generator=generator), torch.randn(shape, generator=generator),
    )  # fmt: skip
    (policy + value).backward()
    for tensor in (logits, values):
        assert tensor.grad is not None
        assert not tensor.grad[mask == 0].any()
        assert tensor.grad[mask == 1].any()


# -- steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_batch_over_the_ratio_threshold_changes_no_weight(
    base: Path, settings: PPOConfig, reseed: Callable[[int], None]
) -> None:
    """Not even by Adam's momentum of an earlier step, which moves TRL's own weights."""
    reseed(0)
    one = learner(base, settings)
    assert one.step(samples(0))["skipped"] == 0
    before = weights(one)
    one._trainer.settings = settings.model_copy(update={"max_ratio": 1e-6})
    statistics = one.step(samples(1))
    assert statistics["skipped"] == 2
    assert statistics["gradient_norm"] == 0
    assert moved(before, weights(one)) == []
    one._trainer.settings = settings
    assert one.step(samples(2))["skipped"] == 0
    assert moved(before, weights(one)) != []


def test_a_skipped_mini_batch_leaves_the_others_of_its_step(
    base: Path, reseed: Callable[[int], None]
) -> None:
    reseed(0)
    one = learner(base, FULL)
    before = weights(one)
    answers = iter((True, False))
    one._trainer._too_far = lambda ratio, mask: next(answers)
    statistics = one.step(samples())
    assert statistics["skipped"] == 1
    assert statistics["gradient_norm"] > 0
    assert moved(before, weights(one)) != []


def test_gradients_are_clipped_at_every_step(base: Path, reseed: Callable[[int], None]) -> None:
    """TRL keeps its parameters as an iterator, which the first clipping uses up."""
    reseed(0)
    one = learner(base, FULL.model_copy(update={"max_grad_norm": 1e-9, "learning_rate": 1.0}))
    norms = []
    one._trainer.optimizer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: norms.append(
            max(
                float(p.grad.norm())
                for group in optimizer.param_groups
                for p in group["params"]
                if p.grad is not None
            )
        )
    )
    for seed in range(3):
        assert one.step(samples(seed))["gradient_norm"] > 1e-3  # before clipping
    assert len(norms) == 3
    assert max(norms) <= 1.1e-9


def test_rewarded_tokens_become_likelier(base: Path, reseed: Callable[[int], None]) -> None:
    import torch

    reseed(0)
    one = learner(base, FULL)
    good, bad = samples(3, 2)
    batch = [replace(good, score=1.0), replace(bad, score=0.0)] * 2

    def likelihood(of: Sample) -> float:
        ids = torch.tensor([of.prompt_ids + of.response_ids])
        with torch.no_grad():
            logprobs = one.policy(ids).logits[0, :-1].log_softmax(-1)
        chosen = logprobs.gather(-1, ids[0, 1:, None])[len(of.prompt_ids) - 1 :, 0]
        return float((chosen * torch.tensor(of.mask)).sum())

    before = likelihood(good) - likelihood(bad)
    for _ in range(5):
        one.step(batch)
    assert likelihood(good) - likelihood(bad) > before + 1


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_first_step_diverges_by_nothing_and_the_penalty_grows(
    base: Path, settings: PPOConfig, reseed: Callable[[int], None]
) -> None:
    reseed(0)
    one = learner(base, settings)
    first, *_, last = (one.step(samples(0)) for _ in range(4))
    assert first["kl"] == pytest.approx(0.0, abs=1e-5)
    assert first["step_kl"] == pytest.approx(0.0, abs=1e-8)
    assert abs(last["kl"]) > 1e-3


def test_an_adaptive_weight_of_the_divergence_has_a_floor(base: Path) -> None:
    kl = KLConfig(coefficient=0.1, floor=0.099, target=50.0, horizon=10)
    one = learner(base, FULL.model_copy(update={"kl": kl}))
    seen = [one.step(samples(seed))["kl_coefficient"] for seed in range(4)]
    assert seen[0] == pytest.approx(0.1)
    assert seen[1:] == pytest.approx([0.099] * 3)


def test_learning_rates_warm_up(base: Path) -> None:
    one = learner(base, FULL.model_copy(update={"warmup_steps": 4}))
    rates = [one.step(samples())["learning_rate"] for _ in range(5)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])


# -- padding ----------------------------------------------------------------------------------


def gpt2(folder: Path) -> Path:
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(write_tiny_model(folder))
    config = GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=32, n_layer=2, n_head=2,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, initializer_range=0.3,
    )  # fmt: skip
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_padding_changes_no_probability(kind: str, base: Path, tmp_path: Path) -> None:
    """Left padding moves GPT-2's positions: rows are padded on the right, whatever the tokenizer's
    own side is."""
    import torch

    folder = base if kind == "llama" else gpt2(tmp_path / "gpt2")
    settings = FULL if kind == "llama" else FULL.model_copy(update={"lora": None})
    one = learner(folder, settings)
    batch = samples()
    trainer = one._trainer
    queries = [torch.tensor(s.prompt_ids) for s in batch]
    responses = [torch.tensor(s.response_ids) for s in batch]
    inputs = trainer.prepare_model_inputs(queries, responses)
    with torch.no_grad():
        logprobs, _, _, masks = trainer.batched_forward_pass(
            trainer.model,
            queries,
            responses,
            inputs,
            response_masks=[torch.tensor(s.mask) for s in batch],
        )
        for row, sample in enumerate(batch):
            ids = torch.tensor([sample.prompt_ids + sample.response_ids])
            alone = one.policy(ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])
            start = len(sample.prompt_ids) - 1
            own = torch.tensor(sample.mask, dtype=torch.bool)
            padded = logprobs[row, start : start + len(own)]
            torch.testing.assert_close(padded, alone[start:, 0], atol=2e-5, rtol=1e-4)
            expected = torch.zeros(masks.shape[1], dtype=torch.bool)
            expected[start : start + len(own)] = own
            assert masks[row].bool().tolist() == expected.tolist()


# -- state ------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_continued_run_takes_the_same_steps(
    base: Path, settings: PPOConfig, tmp_path: Path, reseed: Callable[[int], None]
) -> None:
    settings = settings.model_copy(
        update={"warmup_steps": 5, "kl": KLConfig(coefficient=0.1, target=1.0, horizon=50)}
    )

    def steps(of: Any, first: int, last: int) -> list[dict[str, float]]:
        found = []
        for step in range(first, last):
            reseed(step)
            one = of.step(samples(step))
            one.pop("learning_s")
            found.append(one)
        return found

    unbroken = learner(base, settings)
    whole = steps(unbroken, 0, 5)
    broken = learner(base, settings)
    first = steps(broken, 0, 3)
    broken.save(tmp_path / "checkpoint")
    again = learner(base, settings, seed=9)
    again.load(tmp_path / "checkpoint")
    assert first + steps(again, 3, 5) == whole
    assert moved(weights(unbroken), weights(again)) == []


def test_nothing_of_a_checkpoint_is_pickled(base: Path, tmp_path: Path) -> None:
    one = learner(base, LORA)
    one.step(samples())
    one.save(tmp_path)
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        if file.suffix == ".json":
            json.loads(content)
        else:
            assert file.suffix == ".safetensors"
            assert content[8:9] == b"{"


def test_a_checkpoint_of_another_model_is_refused(base: Path, tmp_path: Path) -> None:
    learner(base, FULL).save(tmp_path)
    with pytest.raises(WeightsError, match="of another model or other adapters"):
        learner(base, LORA).load(tmp_path)
    with pytest.raises(WeightsError, match="not a checkpoint"):
        learner(base, FULL).load(tmp_path / "nowhere")


@pytest.mark.parametrize("settings", SETTINGS)
def test_the_saved_policy_is_a_plain_checkpoint(
    base: Path, settings: PPOConfig, tmp_path: Path
) -> None:
    """Its logits are those of the trained policy, adapters merged; no value head is in it."""
    import torch
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM

    one = learner(base, settings)
    one.step(samples())
    one.save_policy(tmp_path)
    ids = torch.tensor([samples(4)[0].response_ids])
    saved = AutoModelForCausalLM.from_pretrained(tmp_path)
    start = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        own = one.policy(ids).logits
        torch.testing.assert_close(saved(ids).logits, own, atol=1e-4, rtol=1e-4)
        assert not torch.allclose(start(ids).logits, own, atol=1e-4)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        names = list(file.keys())
    assert not [name for name in names if "v_head" in name or "lora" in name]


def test_adapters_of_unknown_layers_are_refused(base: Path) -> None:
    lora = LoraConfig(modules=("nowhere",))
    with pytest.raises(ConfigError, match="modules"):
        learner(base, FULL.model_copy(update={"lora": lora}))
