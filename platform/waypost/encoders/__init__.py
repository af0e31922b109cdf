"""Query encoders: texts in, unit vectors out (``waypost.contracts.encoder.Encoder``)."""

from __future__ import annotations

from waypost.encoders.factory import make_encoder
from waypost.encoders.spec import EncoderSpec

__all__ = ["EncoderSpec", "make_encoder"]
