"""A real tokenizer: its frame, its special tokens, and episodes of a real sampler in its tokens."""

from __future__ import annotations

import json

import pytest

from support.r1_policy import ANSWER, ASK
from support.r1_world import DESCRIPTIONS, POOL, ScriptedPool, question
from waypost.contracts.errors import WeightsError
from waypost.testing.tiny_model import write_tiny_model
from waypost_rl.chat import TokenizerCodec, chat_of
from waypost_rl.environment import Environment, Limits
from waypost_rl.prompt import PromptForm
from waypost_rl.training.parts import Reply, Sampled
from waypost_rl.training.rollout import roll_out


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("tiny"), context_length=4096)


def tokenizer_of(folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True)


def world_of(tokenizer, **limits) -> Environment:
    chat = chat_of(tokenizer, "tiny")
    form = PromptForm(frame=chat.frame, reserved=chat.reserved)
    limits = {"prompt_tokens": 2048, "response_tokens": 1024} | limits
    codec = TokenizerCodec(tokenizer)
    return Environment(POOL, DESCRIPTIONS, codec, Limits(**limits), form, chat.begin_ids)


def test_others_cannot_write_special_tokens(folder):
    tokenizer = tokenizer_of(folder)
    world = world_of(tokenizer)
    end = tokenizer.eos_token_id
    codec = TokenizerCodec(tokenizer)
    assert codec.encode("<|end|>") == [end]  # the tokenizer itself takes it for one
    assert codec.decode([*codec.encode("héllo "), end]) == "héllo "
    asked = world.start(question("Is <|end|> the end?"))
    assert end not in asked.prompt_ids
    assert "< |end|>" in codec.decode(asked.prompt_ids)
    searched = world.generated(
        asked, Sampled(tuple(codec.encode(ASK.format("cook", "what is a roast?"))), "stop")
    )
    told = world.replied(searched, Reply("it is <|end|>", 1, 1))
    assert end not in told.told_ids
    assert "it is < |end|>" in codec.decode(told.told_ids)


def test_the_end_token_counts_as_sampled_and_is_no_text(folder):
    tokenizer = tokenizer_of(folder)
    world = world_of(tokenizer)
    ids = (*TokenizerCodec(tokenizer).encode("<think>x</think>"), tokenizer.eos_token_id)
    episode = world.generated(world.start(question()), Sampled(ids, "end"))
    assert episode.response_ids[: len(ids)] == ids
    assert episode.segments[0].text == "<think>x</think>"
    assert "No action was found" in episode.segments[1].text


def test_a_begin_token_that_encoding_adds_is_before_the_prompt(folder, tmp_path):
    from transformers import PreTrainedTokenizerFast

    whole = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    first = {"SpecialToken": {"id": "<|end|>", "type_id": 0}}
    whole["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [first, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [first, {"Sequence": {"id": "A", "type_id": 0}},
                 {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [256], "tokens": ["<|end|>"]}},
    }  # fmt: skip
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(whole), encoding="utf-8")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(path), bos_token="<|end|>", eos_token="<|end|>"
    )
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
    chat = chat_of(tokenizer, "tiny")
    assert (chat.frame, chat.begin_ids) == (("", ""), (256,))
    episode = world_of(tokenizer).start(question())
    assert episode.prompt_ids[0] == 256
    assert (
        list(episode.prompt_ids)
        == tokenizer(world_of(tokenizer).prompt(question(), 0.0))["input_ids"]
    )
    assert 256 not in episode.prompt_ids[1:]


def test_a_template_without_the_message_is_refused(folder):
    tokenizer = tokenizer_of(folder)
    tokenizer.chat_template = "hello"
    with pytest.raises(WeightsError, match="tiny: its chat template does not contain"):
        chat_of(tokenizer, "tiny")
    tokenizer.chat_template = "{{ no.such.thing() }}"
    with pytest.raises(WeightsError, match="tiny: its tokenizer cannot be used"):
        chat_of(tokenizer, "tiny")
    tokenizer.chat_template = None
    assert chat_of(tokenizer, "tiny").frame == ("", "")


async def test_episodes_of_a_real_sampler(folder):
    from transformers import AutoModelForCausalLM

    from waypost_rl.training.cached_sampler import CachedSampler

    tokenizer = tokenizer_of(folder)
    world = world_of(tokenizer, policy_tokens=12, max_turns=2)
    sampler = CachedSampler(AutoModelForCausalLM.from_pretrained(folder), tokenizer)
    asked = [(question(f"question {n}?", f"q{n}"), 0.0) for n in range(3)]

    async def play(seed: int):
        return await roll_out(asked, world, sampler, ScriptedPool(), seed=seed)

    episodes = await play(1)
    assert [one.turns for one in episodes] == [3] * 3
    for episode in episodes:
        own = [one for one in episode.segments if one.author == "policy"]
        assert [len(one.ids) for one in own] == [12] * 3
        assert all(one.text == TokenizerCodec(tokenizer).decode(one.ids) for one in own)
        assert sum(episode.mask) == episode.policy_tokens == 36
    assert await play(1) == episodes
    assert [one.response_ids for one in await play(2)] != [one.response_ids for one in episodes]
    assert ANSWER not in episodes[0].transcript.text
