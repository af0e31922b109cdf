"""Learned state of routers: what it is called, shown, saved and restored by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from waypost.contracts.errors import NotFittedError, names
from waypost.contracts.parameters import Parametrized, StatePart
from waypost.contracts.records import LLMInfo


class Learned(Parametrized):
    """Parameters, and a learned state that is restored from arrays and values.

    Everything learned is an attribute that ends in ``_``; ``llms_`` holds the candidates.
    """

    state_parts: ClassVar[Mapping[str, type[StatePart]]] = {}
    """Learned attributes that are objects of their own, and their classes."""

    version: str
    llms_: tuple[LLMInfo, ...]

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={value!r}" for name, value in self._own_params().items())
        made = f"{self.name or type(self).__name__}({shown})"
        if getattr(self, "llms_", None) is None:
            return f"<{made}, not fitted>"
        version = f", version {self.version}" if self.version else ""
        return f"<{made}, fitted for {names(self.model_names)}{version}>"

    def _own_params(self) -> dict[str, Any]:
        """Return the parameters that are not at their defaults."""
        defaults = {
            name: one.default for name, one in signature(type(self).__init__).parameters.items()
        }
        params = self.get_params()
        return {name: value for name, value in params.items() if value != defaults.get(name)}

    @property
    def model_names(self) -> tuple[str, ...]:
        """Names of the candidates, in the order of all columns.

        Raises:
            NotFittedError: before `fit`.
        """
        self._require_fitted()
        return tuple(llm.name for llm in self.llms_)

    def _require_fitted(self) -> None:
        if getattr(self, "llms_", None) is None:
            raise NotFittedError(f"{self.name or type(self).__name__} is not fitted; call fit")

    def get_state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        """Return the learned state: arrays by name, and JSON-able values by name.

        Everything learned is an attribute that ends in ``_``; the candidates and parameters
        are kept by the artifact's manifest, not here.

        Raises:
            NotFittedError: before `fit`.
        """
        self._require_fitted()
        arrays: dict[str, NDArray[Any]] = {}
        values: dict[str, Any] = {}
        for name, value in vars(self).items():
            if not name.endswith("_") or name.startswith("_") or name == "llms_":
                continue
            if name in self.state_parts:
                if value is not None:
                    arrays |= {f"{name}.{key}": part for key, part in value.to_arrays().items()}
            elif isinstance(value, np.ndarray):
                arrays[name] = value
            else:
                values[name] = value.item() if isinstance(value, np.generic) else value
        return arrays, values

    def set_state(
        self, llms: Sequence[LLMInfo], arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any]
    ) -> None:
        """Restore a state that `get_state` returned, fitted on ``llms``.

        A part without arrays becomes None, as it was when saved.
        """
        self.llms_ = tuple(llms)
        for name, part in self.state_parts.items():
            own = {k.removeprefix(f"{name}."): v for k, v in arrays.items() if k.startswith(name)}
            setattr(self, name, part.from_arrays(own) if own else None)
        for name, value in {**arrays, **values}.items():
            if name.partition(".")[0] not in self.state_parts:
                setattr(self, name, value)
