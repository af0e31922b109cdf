"""GGUF to Hugging Face layout, on tiny models written here; one real model (tier engine)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from waypost.contracts.errors import WeightsError

gguf = pytest.importorskip("gguf")

HIDDEN, HEADS, KV_HEADS, VOCAB = 32, 4, 2, 260


def _byte_tokens() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "he"]


def write_gguf(path: Path, arch: str = "llama", pre: str = "smollm", output=None) -> dict:
    """Write a one-layer model in float32; returns its tensors by GGUF name."""
    rng = np.random.default_rng(0)

    def matrix(*shape: int):
        return rng.standard_normal(shape, dtype=np.float32)

    narrow = HIDDEN // HEADS * KV_HEADS
    tensors = {
        "token_embd.weight": matrix(VOCAB, HIDDEN),
        "output_norm.weight": np.ones(HIDDEN, np.float32),
        "blk.0.attn_norm.weight": np.ones(HIDDEN, np.float32),
        "blk.0.attn_q.weight": matrix(HIDDEN, HIDDEN),
        "blk.0.attn_k.weight": matrix(narrow, HIDDEN),
        "blk.0.attn_v.weight": matrix(narrow, HIDDEN),
        "blk.0.attn_output.weight": matrix(HIDDEN, HIDDEN),
        "blk.0.ffn_norm.weight": np.ones(HIDDEN, np.float32),
        "blk.0.ffn_gate.weight": matrix(64, HIDDEN),
        "blk.0.ffn_up.weight": matrix(64, HIDDEN),
        "blk.0.ffn_down.weight": matrix(HIDDEN, 64),
    }
    if output == "same":
        tensors["output.weight"] = tensors["token_embd.weight"] + 0.01
    elif output == "other":
        tensors["output.weight"] = matrix(VOCAB, HIDDEN)
    writer = gguf.GGUFWriter(str(path), arch)
    writer.add_block_count(1)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(64)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(100000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(_byte_tokens())
    writer.add_token_types([3, 3, 3, *[1] * 257])
    writer.add_token_merges(["h e"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for name, value in tensors.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tensors


def converted(tmp_path: Path, **options):
    from safetensors.torch import load_file

    from waypost.weights.gguf import convert

    given = write_gguf(tmp_path / "m.gguf", **options)
    out = tmp_path / "out"
    out.mkdir()
    convert(tmp_path / "m.gguf", out)
    config = json.loads((out / "config.json").read_text())
    return given, out, config, load_file(out / "model.safetensors")


def test_config_says_what_both_transformers_4_and_5_read(tmp_path):
    _, out, config, weights = converted(tmp_path)
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["rope_theta"] == 100000.0
    assert config["torch_dtype"] == "bfloat16"
    assert config["rms_norm_eps"] == 1e-5
    assert (config["bos_token_id"], config["eos_token_id"], config["pad_token_id"]) == (1, 2, 2)
    assert config["vocab_size"] == VOCAB
    assert all(str(tensor.dtype) == "torch.bfloat16" for tensor in weights.values())
    generation = json.loads((out / "generation_config.json").read_text())
    assert generation["eos_token_id"] == [2, 0]


def test_missing_output_matrix_means_tied(tmp_path):
    _, _, config, weights = converted(tmp_path)
    assert config["tie_word_embeddings"] is True
    assert "lm_head.weight" not in weights


def test_two_quantisations_of_one_matrix_become_one(tmp_path):
    given, _, config, weights = converted(tmp_path, arch="qwen2", pre="qwen2", output="same")
    assert config["tie_word_embeddings"] is True
    assert "lm_head.weight" not in weights
    kept = weights["model.embed_tokens.weight"].float().numpy()
    np.testing.assert_allclose(kept, given["output.weight"], rtol=0.01)


def test_two_different_matrices_stay_two(tmp_path):
    _, _, config, weights = converted(tmp_path, output="other")
    assert config["tie_word_embeddings"] is False
    assert weights["lm_head.weight"].shape == (VOCAB, HIDDEN)


def test_llama_rotary_rows_are_put_back_in_order(tmp_path):
    # GGUF keeps head rows as pairs (0, half), (1, half + 1), ...; heads here have 8 rows
    given, _, _, weights = converted(tmp_path)
    found = weights["model.layers.0.self_attn.q_proj.weight"].float().numpy()
    head = given["blk.0.attn_q.weight"][:8]
    np.testing.assert_allclose(found[:8], head[[0, 2, 4, 6, 1, 3, 5, 7]], rtol=0.01)


def test_qwen2_rotary_rows_stay(tmp_path):
    given, _, _, weights = converted(tmp_path, arch="qwen2", pre="qwen2")
    found = weights["model.layers.0.self_attn.q_proj.weight"].float().numpy()
    np.testing.assert_allclose(found, given["blk.0.attn_q.weight"], rtol=0.01)


def test_tokenizer_matches_special_tokens_whole_and_round_trips(tmp_path):
    from tokenizers import Tokenizer

    _, out, _, _ = converted(tmp_path)
    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    ids = tokenizer.encode("<|im_start|>he 12é").ids
    assert ids[:2] == [1, 259]
    assert tokenizer.decode(ids) == "he 12é"
    config = json.loads((out / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["model_input_names"] == ["input_ids", "attention_mask"]
    assert config["eos_token"] == "<|im_end|>"
    assert "messages" in config["chat_template"]


def test_large_model_is_cut_into_shards_with_an_index(tmp_path):
    from waypost.weights.folders import missing_file
    from waypost.weights.gguf import convert

    write_gguf(tmp_path / "m.gguf")
    out = tmp_path / "out"
    out.mkdir()
    convert(tmp_path / "m.gguf", out, shard_bytes=10_000)
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    assert missing_file(out) is None


@pytest.mark.parametrize(("arch", "pre"), [("mamba", "smollm"), ("llama", "unheard-of")])
def test_unknown_kind_is_refused_by_name(tmp_path, arch, pre):
    with pytest.raises(WeightsError, match="cannot be converted; expected"):
        converted(tmp_path, arch=arch, pre=pre)


@pytest.mark.engine
def test_smollm2_resolves_and_knows_the_capital_of_france():
    torch = pytest.importorskip("torch")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from waypost.weights import resolve

    folder = resolve("HuggingFaceTB/SmolLM2-135M-Instruct")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    answer = model.generate(**prompt, max_new_tokens=24, do_sample=False)[0]
    text = tokenizer.decode(answer[prompt["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in text
    assert answer[-1] == tokenizer.eos_token_id
