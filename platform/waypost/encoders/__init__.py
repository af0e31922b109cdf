"""Query encoders: from texts to unit vectors (``waypost.contracts.encoder.Encoder``)."""

from __future__ import annotations

import shutil
from pathlib import Path

from waypost.contracts.encoder import Encoder
from waypost.contracts.errors import ConfigError, Fault
from waypost.encoders.spec import EncoderSpec

TABLE = ("model.safetensors", "tokenizer.json", "config.json")
"""Files of the table of a static encoder."""


def make_encoder(spec: EncoderSpec | str, table: Path | None = None) -> Encoder:
    """Return an encoder. Its weights are read or downloaded at its first use.

    Args:
        spec: A spec, an id (``make_encoder(encoder.id)`` gives the same vectors), or a kind.
        table: Folder of a static encoder's table, as `pack_encoder` writes it; None is Waypost's
            cache, where it is distilled if it is missing.

    Raises:
        RegistryError: the id is unknown.
    """
    spec = EncoderSpec.of(spec) if isinstance(spec, str) else spec
    encoder = _base(spec, table)
    if spec.structure:
        from waypost.encoders.structure import StructuredEncoder

        encoder = StructuredEncoder(spec.id, encoder, spec.structure_weight)
    if spec.cache_mb:
        from waypost.encoders.cached import CachedEncoder

        encoder = CachedEncoder(encoder, int(spec.cache_mb * 1e6))
    return encoder


def check_packing(spec: EncoderSpec, where: str) -> None:
    """Check that an encoder's table can be packed.

    Raises:
        ConfigError: it is not a static one; the message begins with ``where``.
    """
    if spec.kind != "static":
        problem = f"only a static encoder has a table to pack, found {spec.kind}"
        raise ConfigError([Fault(where, problem)])


def pack_encoder(id: str, folder: Path) -> None:
    """Write the table of a static encoder into a folder, which is made.

    Raises:
        WeightsError: it cannot be obtained.
    """
    from waypost.encoders.distill import locate

    spec = EncoderSpec.of(id)
    source = locate(spec.model or "", spec.dimension or 0)
    folder.mkdir(parents=True)
    for name in TABLE:
        shutil.copyfile(source / name, folder / name)


def _base(spec: EncoderSpec, table: Path | None) -> Encoder:
    plain = spec.model_copy(update={"structure": False})
    model, dimension = spec.model or "", spec.dimension or 0
    if spec.kind == "static":
        from waypost.encoders.static import StaticEncoder

        def there() -> Path:
            if table is not None:
                return table
            from waypost.encoders.distill import locate

            return locate(model, dimension)

        return StaticEncoder(plain.id, there, dimension, spec.max_tokens)
    if spec.kind == "onnx":
        from waypost.encoders.onnx import OnnxEncoder

        return OnnxEncoder(plain.id, model, spec.max_tokens, spec.threads)
    if spec.kind == "torch":
        from waypost.encoders.torch import TorchEncoder

        return TorchEncoder(
            plain.id, model, spec.max_tokens, spec.threads, spec.batch_size, spec.device
        )
    from waypost.encoders.hashing import HashingEncoder

    return HashingEncoder(plain.id, dimension, spec.max_tokens)


__all__ = ["EncoderSpec", "check_packing", "make_encoder", "pack_encoder"]
