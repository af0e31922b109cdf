"""The sampler whose cache is kept between turns, beside plain `generate` of transformers."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM as AutoModel

from support.sampling import (
    CONFIGS,
    LENGTHS,
    VOCABULARY,
    assert_greedy_turns,
    generated,
    policy,
    prompts,
    tokenizer,
    tokens,
)
from waypost.contracts.errors import ContextLengthError, EngineRequestError, WeightsError
from waypost.testing.tiny_model import stand_in
from waypost_rl.training.cached_sampler import CachedSampler, draw


def made(model=None, **options) -> CachedSampler:
    options = {"stop": (), "end_ids": ()} | options
    return CachedSampler(model or policy(), tokenizer(), **options)


def spoken(text: str) -> list[int]:
    return tokenizer()(text, add_special_tokens=False).input_ids


def all_to(sampler, count: int, added=None, **begin):
    added = prompts() if added is None else added
    sampler.begin(max(added) + 1, **({"seed": 0} | begin))
    return sampler.turn(added, dict.fromkeys(added, count))


def counted(sampler) -> list[list[int]]:
    """Return a list that will hold the number of tokens of each row of each forward pass."""
    read: list[list[int]] = []
    forward = sampler._model.next_logits

    def counting(ids, cache, rows=None):
        read.append([len(one) for one in ids])
        return forward(ids, cache, rows)

    sampler._model.next_logits = counting
    return read


# Greedy


@pytest.mark.parametrize("kind", sorted(CONFIGS))
@pytest.mark.parametrize("prefill_tokens", [2048, 50, 9])
def test_three_turns_with_inserted_tokens_are_those_of_generate(kind, prefill_tokens):
    model = policy(kind)
    assert_greedy_turns(made(model, prefill_tokens=prefill_tokens), model)


def test_logits_are_those_of_each_row_alone():
    model = policy()
    sampler = made(model)
    seen = []
    forward = sampler._model.next_logits

    def recorded(ids, cache, rows=None):
        seen.append(forward(ids, cache, rows))
        return seen[-1]

    sampler._model.next_logits = recorded
    sampled = all_to(sampler, 4, temperature=0)
    for row, ids in prompts().items():
        whole = torch.tensor([ids + list(sampled[row].ids)])
        alone = model.eval()(whole).logits[0, len(ids) : len(ids) + 3]
        assert torch.allclose(torch.stack([one[row] for one in seen[-3:]]), alone, atol=1e-4)


def test_prompts_that_begin_alike_read_their_beginning_once():
    model, shared = policy(), tokens(40, 9)
    added = {row: shared + ids for row, ids in prompts().items()}
    sampler = made(model)
    read = counted(sampler)
    sampled = all_to(sampler, 5, added, temperature=0)
    for row, ids in added.items():
        assert sampled[row].ids == generated(model, ids, 5)
    assert sum(map(sum, read)) == 40 + sum(LENGTHS.values()) + 5 * 4
    same = dict.fromkeys(range(3), shared)
    assert len(set(all_to(sampler, 5, same, temperature=0).values())) == 1


def test_no_token_is_read_twice_and_rows_that_ended_cost_nothing():
    sampler = made()
    read = counted(sampler)
    sampler.begin(5, seed=0)
    limits = {0: 3, 1: 9, 2: 1, 3: 6, 4: 9}
    sampler.turn(prompts(), limits)
    # the last token of each row is not read before something follows it
    assert sum(map(sum, read)) == sum(LENGTHS.values()) + sum(limits.values()) - 5
    steps = [one for one in read if set(one) == {1}]
    assert [len(one) for one in steps] == [4, 4, 3, 3, 3, 2, 2, 2]
    read.clear()
    sampler.turn({1: [5] * 4, 2: [6] * 2}, {1: 2, 2: 2})
    assert sum(map(sum, read)) == (1 + 4 + 1) + (1 + 2 + 1)


# Ends


def test_each_row_is_cut_at_its_own_stop_while_others_run():
    # the stops are parts of what the rows say anyway, letters of one token each
    model = AutoModel.from_pretrained(stand_in("causal"))
    free = all_to(made(model), 40, seed=5)
    text = tokenizer().decode
    stops = [text(free[0].ids[20:23]), text(free[1].ids[9:12]), text(free[3].ids[1:4])]
    end = free[4].ids[30]
    sampler = made(model, stop=stops, end_ids={end})
    read = counted(sampler)
    sampled = all_to(sampler, 40, seed=5)
    reasons = {}
    for row, one in free.items():
        ends = {"length": 40}
        ends["end"] = one.ids.index(end) + 1 if end in one.ids else 99
        ends["stop"] = next(
            (n for n in range(1, 41) if any(stop in text(one.ids[:n]) for stop in stops)), 99
        )
        reason = min(ends, key=ends.get)
        assert sampled[row].ids == one.ids[: ends[reason]]
        assert sampled[row].reason == reason
        reasons[row] = ends[reason]
    assert {one.reason for one in sampled.values()} >= {"stop", "end"}
    assert sum(map(sum, read)) == sum(LENGTHS.values()) + sum(reasons.values()) - 5


def test_a_stop_of_an_earlier_turn_ends_no_later_one():
    model = AutoModel.from_pretrained(stand_in("causal"))
    free = made(model)
    free.begin(1, seed=0)
    first = free.turn({0: tokens(5, 1)}, {0: 6})[0].ids
    stop = tokenizer().decode(first[-2:])
    sampler = made(model, stop=[stop])
    sampler.begin(1, seed=0)
    assert sampler.turn({0: tokens(5, 1)}, {0: 30})[0].ids == first
    after = sampler.turn({0: spoken("x")}, {0: 1})[0]
    assert after.reason == "length"


# The policy's own distribution


def test_seeds_decide_and_other_rows_do_not():
    sampler = made()
    once = all_to(sampler, 8, seed=1)
    assert all_to(sampler, 8, seed=1) == once
    other = all_to(sampler, 8, seed=2)
    assert sum(other[row] == once[row] for row in other) == 0
    assert once[0].ids != all_to(sampler, 8, {0: prompts()[0], 1: prompts()[0]}, seed=1)[1].ids
    # alone, the third row draws what it draws among others
    sampler.begin(5, seed=1)
    alone = sampler.turn({3: prompts()[3]}, {3: 8})
    assert alone[3] == once[3]
    again = sampler.turn({3: [7], 4: prompts()[4]}, {3: 8, 4: 8})
    assert again[4] == once[4]
    assert again[3] != alone[3]


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_tokens_are_drawn_from_the_softmax_of_all_logits(temperature):
    model = policy()
    model.generation_config.update(
        do_sample=True, top_k=2, top_p=0.5, temperature=0.1, min_length=50, min_new_tokens=50,
        suppress_tokens=list(range(100)), repetition_penalty=9.0,
    )  # fmt: skip
    rows, prompt = 4000, tokens(20, 4)
    sampler = made(model)
    sampled = all_to(sampler, 1, dict.fromkeys(range(rows), prompt), temperature=temperature)
    counts = Counter(one.ids[0] for one in sampled.values())
    logits = model.eval()(torch.tensor([prompt])).logits[0, -1]
    expected = (rows * torch.softmax(logits / temperature, dim=-1)).tolist()
    rare = [token for token, count in enumerate(expected) if count < 5]
    cells = [(counts[token], expected[token]) for token in range(VOCABULARY) if token not in rare]
    cells.append((sum(counts[one] for one in rare), sum(expected[one] for one in rare)))
    assert len(cells) > 20
    free = len(cells) - 1
    square = sum((seen - count) ** 2 / count for seen, count in cells)
    assert abs(square - free) < 4 * (2 * free) ** 0.5


def test_a_draw_takes_each_token_for_its_share_of_the_unit_interval():
    logits = torch.log(torch.tensor([[0.0, 0.25, 0.5, 0.0, 0.25, 0.0]])).expand(6, -1)
    assert draw(logits, [0.0, 0.24, 0.26, 0.74, 0.76, 1 - 2**-53]) == [1, 1, 2, 2, 4, 4]


# The learner's model


def test_the_model_is_left_in_its_modes_and_without_gradients():
    model = policy()
    model.lm_head.eval()
    modes = [one.training for one in model.modules()]
    sampler = made(model)
    all_to(sampler, 3)
    assert [one.training for one in model.modules()] == modes
    assert torch.is_grad_enabled()
    assert all(one.grad is None for one in model.parameters())
    model(torch.tensor([[1, 2]])).logits.sum().backward()


def test_new_weights_are_used_after_an_update():
    model = policy()
    sampler = made(model)
    before = all_to(sampler, 6, temperature=0)
    torch.manual_seed(5)
    with torch.no_grad():
        for one in model.parameters():
            one.add_(0.1 * torch.randn_like(one))
    sampler.update()
    with pytest.raises(EngineRequestError, match="call begin"):
        sampler.turn({0: [1]}, {0: 1})
    after = all_to(sampler, 6, temperature=0)
    assert after != before
    for row, ids in prompts().items():
        assert after[row].ids == generated(model, ids, 6)


def test_what_does_not_fit_is_said_before_anything_is_read():
    sampler = CachedSampler(AutoModel.from_pretrained(stand_in("causal")), tokenizer())
    sampler.begin(2, seed=0)
    with pytest.raises(ContextLengthError, match="exceed its context of 1024"):
        sampler.turn({0: [1] * 1000, 1: [1]}, {0: 25, 1: 1})
    with pytest.raises(EngineRequestError, match="row 1 has 0 tokens"):
        sampler.turn({0: [1], 1: []}, {0: 1, 1: 1})
    with pytest.raises(EngineRequestError, match="row 2 of a batch of 2"):
        sampler.turn({2: [1]}, {2: 1})


def test_a_row_goes_on_where_nothing_is_added():
    model = policy()
    sampler = made(model)
    first = all_to(sampler, 3, temperature=0)
    more = sampler.turn({row: [] for row in first}, dict.fromkeys(first, 3))
    for row, ids in prompts().items():
        assert first[row].ids + more[row].ids == generated(model, ids, 6)


def test_a_model_that_cannot_be_batched_is_refused():
    from transformers import MambaConfig

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "state_size": 4}
    model = AutoModel.from_config(MambaConfig(vocab_size=VOCABULARY, **sizes))
    with pytest.raises(WeightsError, match="cannot batch"):
        made(model)
