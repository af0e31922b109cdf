"""Specification of an encoder, from a config or from an encoder id."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from waypost.config import StrictModel
from waypost.contracts.errors import RegistryError
from waypost.contracts.wording import did_you_mean
from waypost.weights.catalog import MINILM, is_hub_name

Kind = Literal["static", "onnx", "torch", "hashing"]

STATIC_RECIPE = 1
"""Increased whenever distillation gives another table."""

STRUCTURE_VERSION = 1
"""Increased whenever a structure feature changes."""

_DEFAULTS: dict[str, dict[str, Any]] = {
    "static": {"model": MINILM, "dimension": 256, "max_tokens": 512},
    "onnx": {"model": MINILM, "max_tokens": 256},
    "torch": {"model": MINILM, "max_tokens": 256},
    "hashing": {"dimension": 512, "max_tokens": 512},
}
_ID = re.compile(
    r"(?P<kind>[a-z]+)(?:\+(?P<model>[\w.-]+--[\w.-]+))?(?:\+d(?P<dimension>\d+))?"
    r"\+t(?P<max_tokens>\d+)(?:\+r(?P<recipe>\d+))?"
    r"(?:\+s(?P<version>\d+)w(?P<structure_weight>0\.\d+))?"
)


class EncoderSpec(StrictModel):
    """Specification of a query encoder. Missing keys have defaults that depend on the kind.

    Attributes:
        kind: ``static`` (token vectors distilled from `model`), ``onnx`` (int8), ``torch``
            (sentence-transformers) or ``hashing`` (no weights, for tests).
        model: Hub name, or a folder relative to WAYPOST_ROOT of the form ``a/b``; none for
            hashing.
        dimension: Dimension of a vector without structure features; static and hashing only.
        max_tokens: Number of tokens read from a text; without this key 512 for static and hashing,
            256 (the limit of MiniLM) for onnx and torch.
        structure: Add features of the text's form (``waypost.encoders.structure``).
        structure_weight: Share of these features in the cosine, in (0, 1).
        threads: Threads of one call (onnx, torch).
        batch_size: Texts per forward pass (torch). None is 1 on the CPU, where padding costs more
            than a batch saves, and 64 on other devices.
        device: Device of torch, such as ``cpu`` or ``cuda`` (torch only).
        cache_mb: Memory limit of the cache of vectors in MB; 0 disables the cache.
    """

    kind: Kind = "static"
    model: str | None = None
    dimension: int | None = Field(default=None, ge=2, le=8192)
    max_tokens: int = Field(default=512, ge=8, le=32768)
    structure: bool = True
    structure_weight: float = Field(default=0.5, gt=0, lt=1)
    threads: int = Field(default=1, ge=1)
    batch_size: int | None = Field(default=None, ge=1)
    device: str = "cpu"
    cache_mb: float = Field(default=32, ge=0)

    @model_validator(mode="before")
    @classmethod
    def _fill(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        defaults = _DEFAULTS.get(str(data.get("kind", "static")), {})
        given = {key: value for key, value in data.items() if value is not None}
        return {**defaults, **given}

    @model_validator(mode="after")
    def _check(self) -> EncoderSpec:
        for key in ("model", "dimension"):
            if getattr(self, key) is not None and key not in _DEFAULTS[self.kind]:
                raise ValueError(f"{key} does not apply to an encoder of kind {self.kind}")
        if self.model is not None and not is_hub_name(self.model):
            raise ValueError(f"model {self.model!r}: expected a name of the form org/model")
        return self

    @property
    def id(self) -> str:
        """Id made from all keys that change the vectors; `EncoderSpec.of` parses it."""
        parts: list[str] = [self.kind]
        if self.model is not None:
            parts.append(self.model.replace("/", "--"))
        if self.dimension is not None:
            parts.append(f"d{self.dimension}")
        parts.append(f"t{self.max_tokens}")
        if self.kind == "static":
            parts.append(f"r{STATIC_RECIPE}")
        if self.structure:
            parts.append(f"s{STRUCTURE_VERSION}w{self.structure_weight:.4f}".rstrip("0"))
        return "+".join(parts)

    @classmethod
    def of(cls, id: str) -> EncoderSpec:
        """Return the spec of an encoder id, or of a kind with its defaults.

        Raises:
            RegistryError: the id is unknown or belongs to another version of Waypost.
        """
        if id in _DEFAULTS:
            return cls.model_validate({"kind": id})
        match = _ID.fullmatch(id)
        if match is None:
            raise _unknown(id)
        found = match.groupdict()
        versions = ((found["recipe"], STATIC_RECIPE), (found["version"], STRUCTURE_VERSION))
        for given, known in versions:
            if given is not None and int(given) != known:
                raise RegistryError(
                    f"encoder {id}: made by another version of Waypost; train the router again"
                )
        data: dict[str, Any] = {"kind": found["kind"], "structure": found["version"] is not None}
        for key, cast in (("dimension", int), ("max_tokens", int), ("structure_weight", float)):
            if found[key] is not None:
                data[key] = cast(found[key])
        if found["model"] is not None:
            data["model"] = found["model"].replace("--", "/", 1)
        try:
            spec = cls.model_validate(data)
        except ValidationError:
            raise _unknown(id) from None
        if spec.id != id:
            raise _unknown(id)
        return spec


def _unknown(id: str) -> RegistryError:
    near, there = did_you_mean(id, _DEFAULTS), ", ".join(_DEFAULTS)
    example = EncoderSpec().id
    return RegistryError(
        f"no encoder {id!r}{near}; expected one of {there}, or an id such as {example}"
    )
