"""Query encoders: from texts to unit vectors (``waypost.contracts.encoder.Encoder``)."""

from __future__ import annotations

from waypost.contracts.encoder import Encoder
from waypost.encoders.spec import EncoderSpec


def make_encoder(spec: EncoderSpec | str) -> Encoder:
    """Return an encoder. Its weights are read or downloaded at its first use.

    Args:
        spec: A spec, an id (``make_encoder(encoder.id)`` gives the same vectors), or a kind.

    Raises:
        RegistryError: the id is unknown.
    """
    spec = EncoderSpec.of(spec) if isinstance(spec, str) else spec
    encoder = _base(spec)
    if spec.structure:
        from waypost.encoders.structure import StructuredEncoder

        encoder = StructuredEncoder(spec.id, encoder, spec.structure_weight)
    if spec.cache_mb:
        from waypost.encoders.cached import CachedEncoder

        encoder = CachedEncoder(encoder, int(spec.cache_mb * 1e6))
    return encoder


def _base(spec: EncoderSpec) -> Encoder:
    plain = spec.model_copy(update={"structure": False})
    model, dimension = spec.model or "", spec.dimension or 0
    if spec.kind == "static":
        from waypost.encoders.distill import locate
        from waypost.encoders.static import StaticEncoder

        return StaticEncoder(plain.id, lambda: locate(model, dimension), dimension, spec.max_tokens)
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


__all__ = ["EncoderSpec", "make_encoder"]
