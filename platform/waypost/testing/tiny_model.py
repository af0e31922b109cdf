"""Tiny models with random weights for tests: a language model and a sentence encoder."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from tempfile import TemporaryDirectory
from typing import Any, Literal

from waypost.testing.synthetic import TOPICS

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def write_tiny_model(
    folder: Path, seed: int = 0, context_length: int = 1024, letters: str = ascii_lowercase
) -> Path:
    """Write a Llama of 2 layers and width 64 with a byte-level tokenizer, and return its folder.

    The folder has the usual form (config, safetensors, tokenizer with a chat template). Greedy
    answers depend on the whole prompt and consist of ``letters`` and spaces. They do not end by
    themselves, so a test ends them with ``max_tokens`` or ``stop``.

    Args:
        folder: The folder; created if missing.
        seed: Seed of the weights.
        context_length: Maximum number of positions.
        letters: Letters of the answers; all other tokens have lower logits.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context_length,
        initializer_range=0.3,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    spoken = [tokenizer.convert_tokens_to_ids(letter) for letter in (*letters, "Ġ")]
    silent = torch.ones(len(tokenizer), dtype=torch.bool)
    silent[spoken] = False
    with torch.no_grad():
        model.lm_head.weight[silent] = 0.0  # the best of many letters has a logit above 0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*alphabet, "<|end|>"])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=raw,
        eos_token="<|end|>",  # noqa: S106 - no password
        chat_template=CHAT_TEMPLATE,
    )


def write_tiny_encoder(folder: Path, seed: int = 0) -> Path:
    """Write a BERT of 3 layers and width 64, and return its folder.

    The folder has the usual form (config, safetensors, tokenizer). The words of `TOPICS` are
    tokens; other words are split into letters.

    Args:
        folder: The folder; created if missing.
        seed: Seed of the weights.
    """
    import torch
    from transformers import BertConfig, BertModel

    tokenizer = _word_pieces()
    config = BertConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=0.05,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(config, add_pooling_layer=False)
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _word_pieces() -> Any:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = ascii_lowercase + digits
    words = [word for topic in TOPICS.values() for word in topic]
    pieces = [*_SPECIAL, *words, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))  # noqa: S106
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    return tokenizer


_folders: list[TemporaryDirectory[str]] = []  # removed at the end of the process


@cache
def stand_in(kind: Literal["encoder", "causal"]) -> str:
    """Return the folder of a tiny model of that kind, written once per process."""
    _folders.append(TemporaryDirectory(prefix="waypost-stand-in-"))
    folder = Path(_folders[-1].name)
    if kind == "encoder":
        return str(write_tiny_encoder(folder))
    return str(write_tiny_model(folder, letters=ascii_uppercase))
