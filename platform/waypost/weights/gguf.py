"""Convert a GGUF file to a folder in Hugging Face layout: bf16 safetensors and tokenizer files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import MissingExtraError, WeightsError

if TYPE_CHECKING:
    import gguf
    import torch
    from tokenizers import Tokenizer

_CONTROL, _USER_DEFINED = 3, 4
"""GGUF token types that are matched as a whole before BPE; decoding skips the first type."""

_END_TOKENS = ("<|endoftext|>", "<|im_end|>")
"""Both tokens end an answer of a ChatML model, whichever of them is the GGUF's end token."""

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_tokenizer(
    get: Callable[..., Any], config: Mapping[str, Any], target: Path
) -> dict[str, Any]:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    Args:
        get: Returns a GGUF field by name, or its second argument if the field is missing.
        config: The model's config.json; its token ids and context length are used.
        target: Folder to write to.

    Returns:
        The model's generation config (begin, end and padding ids).

    Raises:
        WeightsError: the kind of the tokenizer is not supported.
    """
    tokens: list[str] = get("tokenizer.ggml.tokens")
    types: list[int] = get("tokenizer.ggml.token_type")
    tokenizer = _build(get, tokens, types)
    tokenizer.save(str(target / "tokenizer.json"))
    ids = {
        "bos_token": config["bos_token_id"],
        "eos_token": config["eos_token_id"],
        "pad_token": config["pad_token_id"],
        "unk_token": get("tokenizer.ggml.unknown_token_id"),
    }
    special = {name: tokens[number] for name, number in ids.items() if number is not None}
    _write_text(target / "special_tokens_map.json", special)
    _write_text(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **special,
            "model_max_length": config["max_position_embeddings"],
            # the class's default adds token_type_ids, which generate() of 4.45 rejects
            "model_input_names": ["input_ids", "attention_mask"],
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
            "chat_template": get("tokenizer.chat_template"),
        },
    )
    ends = [number for number, token in enumerate(tokens) if token in _END_TOKENS]
    eos = config["eos_token_id"]
    return {
        "bos_token_id": config["bos_token_id"],
        "eos_token_id": [eos, *(number for number in ends if number != eos)],
        "pad_token_id": config["pad_token_id"],
    }


def _build(get: Callable[..., Any], tokens: list[str], types: list[int]) -> Tokenizer:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
    from tokenizers import pre_tokenizers as pre

    model, kind = get("tokenizer.ggml.model"), get("tokenizer.ggml.pre")
    merges = [tuple(merge.split(" ", 1)) for merge in get("tokenizer.ggml.merges", [])]
    tokenizer = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    if (model, kind) == ("gpt2", "smollm"):
        tokenizer.pre_tokenizer = pre.Sequence(
            [pre.Digits(individual_digits=True), pre.ByteLevel(add_prefix_space=False)]
        )
    elif (model, kind) == ("gpt2", "qwen2"):
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre.Sequence(
            [
                pre.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
                pre.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    else:
        raise WeightsError(
            f"GGUF tokenizer {model}/{kind} cannot be converted; expected gpt2/smollm or gpt2/qwen2"
        )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_tokens(
        [
            AddedToken(token, normalized=False, special=kind_ == _CONTROL)
            for token, kind_ in zip(tokens, types, strict=True)
            if kind_ in (_CONTROL, _USER_DEFINED)
        ]
    )
    return tokenizer


def _write_text(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


_ARCHITECTURES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}

# Two quantisations of one matrix have a cosine above 0.99 (4 and 6 bits), different matrices one
# near 0.
_TIED_COSINE = 0.98
_TIED_ROWS = 2048


def convert(source: str | Path, target: str | Path, shard_bytes: int = 4 << 30) -> None:
    """Convert a GGUF file of architecture llama or qwen2.

    If input and output embeddings are two quantisations of one matrix (the model was tied before
    quantisation), the finer one is used for both.

    Args:
        source: The GGUF file.
        target: An existing, empty folder.
        shard_bytes: Maximum size of one safetensors file.

    Raises:
        WeightsError: the architecture or a tensor is not supported.
        MissingExtraError: the package gguf or torch is not installed.
    """
    try:
        import gguf
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(str(error.name), "serve") from None

    reader = gguf.GGUFReader(source)

    def get(name: str, default: Any = None) -> Any:
        field = reader.fields.get(name)
        return default if field is None else field.contents()

    architecture = get("general.architecture")
    if architecture not in _ARCHITECTURES:
        raise WeightsError(
            f"{source}: GGUF architecture {architecture!r} cannot be converted; "
            f"expected one of {', '.join(_ARCHITECTURES)}"
        )
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    skipped, tied = _tie(tensors)
    config = _model_config(
        get, architecture, tied, vocab=int(tensors["token_embd.weight"].shape[1])
    )
    target = Path(target)
    _write_json(target / "config.json", config)
    _write_json(target / "generation_config.json", write_tokenizer(get, config, target))
    _write_weights(_converted(tensors, config, skipped), target, shard_bytes)


def _tie(tensors: Mapping[str, gguf.ReaderTensor]) -> tuple[set[str], bool]:
    """Return the tensors to leave out, and whether one embedding serves input and output."""
    if "output.weight" not in tensors:
        return set(), True
    first, last = (
        _dequantize(tensors[name], rows=_TIED_ROWS).ravel()
        for name in ("token_embd.weight", "output.weight")
    )
    cosine = float(first @ last / (np.linalg.norm(first) * np.linalg.norm(last)))
    return ({"token_embd.weight"}, True) if cosine > _TIED_COSINE else (set(), False)


def _dequantize(tensor: gguf.ReaderTensor, rows: int | None = None) -> NDArray[np.float32]:
    import gguf

    data = tensor.data if rows is None else tensor.data[:rows]
    return np.asarray(gguf.dequantize(data, tensor.tensor_type), np.float32)


def _model_config(
    get: Callable[..., Any], architecture: str, tied: bool, vocab: int
) -> dict[str, Any]:
    def field(name: str, default: Any = None) -> Any:
        return get(f"{architecture}.{name}", default)

    hidden, heads = field("embedding_length"), field("attention.head_count")
    config = {
        "architectures": [_ARCHITECTURES[architecture]],
        "model_type": architecture,
        "hidden_size": hidden,
        "intermediate_size": field("feed_forward_length"),
        "num_hidden_layers": field("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": field("attention.head_count_kv", heads),
        "head_dim": field("rope.dimension_count", hidden // heads),
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_position_embeddings": field("context_length"),
        # GGUF stores 1e-5 as the nearest float32
        "rms_norm_eps": float(f"{field('attention.layer_norm_rms_epsilon'):.6g}"),
        # transformers 4.45 and vLLM read rope_theta and torch_dtype; 5 accepts both spellings
        "rope_theta": field("rope.freq_base", 10000.0),
        "torch_dtype": "bfloat16",
        "tie_word_embeddings": tied,
        "use_cache": True,
        "vocab_size": vocab,
        "bos_token_id": get("tokenizer.ggml.bos_token_id"),
        "eos_token_id": get("tokenizer.ggml.eos_token_id"),
        "pad_token_id": get("tokenizer.ggml.padding_token_id", get("tokenizer.ggml.eos_token_id")),
    }
    if architecture == "llama":
        config |= {"attention_bias": False, "mlp_bias": False, "rope_scaling": None}
    else:
        config |= {"use_sliding_window": False}
    return config


def _converted(
    tensors: Mapping[str, gguf.ReaderTensor], config: Mapping[str, Any], skipped: set[str]
) -> Iterator[tuple[str, torch.Tensor]]:
    import torch

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, tensor in tensors.items():
        if name in skipped or name == "rope_freqs.weight":
            continue
        values = _dequantize(tensor)
        part = name.split(".")[-2]
        if config["model_type"] == "llama" and part in heads:
            values = _unpermute(values, heads[part])
        if name == "output.weight" and config["tie_word_embeddings"]:
            name = "token_embd.weight"
        # F32 tensors are read-only views of the file; "W" copies them
        yield (
            _hub_name(name),
            torch.from_numpy(np.require(values, requirements=["C", "W"])).to(torch.bfloat16),
        )


def _unpermute(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Undo the row order of rotary projections of Llama models in GGUF."""
    half = values.shape[0] // heads // 2
    return values.reshape(heads, half, 2, -1).swapaxes(1, 2).reshape(values.shape)


def _hub_name(name: str) -> str:
    *block, part, kind = name.split(".")
    if part not in _NAMES or (block and block[0] != "blk"):
        raise WeightsError(f"GGUF tensor {name!r} is not one of a llama or qwen2 model")
    layer = f"model.layers.{block[1]}." if block else ""
    return f"{layer}{_NAMES[part]}.{kind}"


def _write_weights(
    tensors: Iterator[tuple[str, torch.Tensor]], target: Path, shard_bytes: int
) -> None:
    from safetensors.torch import save_file

    shards: list[dict[str, Any]] = [{}]
    total = used = 0
    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if used and used + size > shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used, total = used + size, total + size
    if len(shards) == 1:
        save_file(shards[0], target / "model.safetensors", metadata={"format": "pt"})
        return
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, target / file, metadata={"format": "pt"})
        index |= dict.fromkeys(shard, file)
    _write_json(
        target / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": index},
    )


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
