"""The tokenizer of a GGUF file, as the tokenizer files of a Hugging Face folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from waypost.contracts.errors import WeightsError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CONTROL, _USER_DEFINED = 3, 4
"""GGUF token types that are matched whole, before BPE; the first kind is hidden when decoding."""

_END_TOKENS = ("<|endoftext|>", "<|im_end|>")
"""Either ends an answer of a ChatML model, whichever of them the GGUF calls the end."""

_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def write_tokenizer(
    get: Callable[..., Any], config: Mapping[str, Any], target: Path
) -> dict[str, Any]:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json.

    Args:
        get: Returns a GGUF field by name, or its second argument where there is none.
        config: The model's config.json; its token ids and context length are used.
        target: Folder to write to.

    Returns:
        The generation config (begin, end and padding ids) that belongs to it.

    Raises:
        WeightsError: where the tokenizer is of a kind this converter does not know.
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
    _write_json(target / "special_tokens_map.json", special)
    _write_json(
        target / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **special,
            "model_max_length": config["max_position_embeddings"],
            # the class's own default adds token_type_ids, which generate() of 4.45 refuses
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


def _write_json(path: Path, data: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
