"""A router's parameters and their allowed values, declared once; parts of its learned state."""

from __future__ import annotations

import inspect
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from numpy.typing import NDArray

from waypost.contracts.errors import ConfigError, Fault
from waypost.contracts.wording import did_you_mean


class Constraint(Protocol):
    """Checks whether a value is allowed; ``str`` describes the allowed values."""

    def allows(self, value: Any) -> bool: ...  # noqa: D102

    def __str__(self) -> str: ...


@dataclass(frozen=True)
class Integer:
    """A whole number between two bounds, both included; optionally null."""

    low: int
    high: int | None = None
    optional: bool = False

    def allows(self, value: Any) -> bool:
        """Say whether the value is in range; true and false are not numbers."""
        if value is None:
            return self.optional
        whole = isinstance(value, int) and not isinstance(value, bool)
        return whole and value >= self.low and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        upper = "" if self.high is None else f" to {self.high}"
        return f"a whole number from {self.low}{upper}" + (" or null" if self.optional else "")


@dataclass(frozen=True)
class Real:
    """A finite number between two bounds; ``open_low`` leaves the lower one out."""

    low: float
    high: float | None = None
    open_low: bool = False
    optional: bool = False

    def allows(self, value: Any) -> bool:
        """Say whether the value is in range; true and false are not numbers."""
        if value is None:
            return self.optional
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        above = value > self.low if self.open_low else value >= self.low
        return math.isfinite(value) and above and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        lower = "above" if self.open_low else "from"
        upper = "" if self.high is None else f" to {self.high:g}"
        return f"a number {lower} {self.low:g}{upper}" + (" or null" if self.optional else "")


@dataclass(frozen=True)
class OneOf:
    """One of a few values."""

    values: tuple[Any, ...]

    def allows(self, value: Any) -> bool:
        """Return whether the value is one of them (1 and True are different)."""
        return any(value == known and type(value) is type(known) for known in self.values)

    def __str__(self) -> str:
        return "one of " + ", ".join(map(repr, self.values))


@dataclass(frozen=True)
class Text:
    """A non-empty text, such as the name of a model; optionally null."""

    optional: bool = False

    def allows(self, value: Any) -> bool:
        """Return whether the value is a non-empty text."""
        if value is None:
            return self.optional
        return isinstance(value, str) and bool(value.strip())

    def __str__(self) -> str:
        return "a text that is not empty" + (", or null" if self.optional else "")


def check_parameters(
    values: Mapping[str, Any],
    constraints: Mapping[str, Constraint],
    where: str,
    known: Collection[str] | None = None,
) -> list[Fault]:
    """Return one fault for each unknown parameter and each value out of range.

    Args:
        values: Given values by name.
        constraints: Allowed values by name; a known parameter without a constraint may be anything.
        where: Owner of the parameters, for messages.
        known: Names of all parameters; None means those with a constraint.
    """
    known = constraints if known is None else known
    found = []
    for name, value in values.items():
        if name not in known:
            near, there_are = did_you_mean(name, known), ", ".join(known) or "none"
            problem = f"unknown parameter{near}; known are: {there_are}"
            found.append(Fault(f"{where}: {name}", problem))
        elif name in constraints and not constraints[name].allows(value):
            found.append(Fault(f"{where}: {name}", f"is {value!r}; expected {constraints[name]}"))
    return found


class StatePart(Protocol):
    """An object in a router's learned state that converts to arrays and back."""

    def to_arrays(self) -> dict[str, NDArray[Any]]: ...  # noqa: D102

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> Any: ...  # noqa: D102


class Parametrized:
    """Parameters as scikit-learn has them: stored by ``__init__``, read and set by name."""

    name: ClassVar[str] = ""

    parameter_constraints: ClassVar[Mapping[str, Constraint]] = {}
    """Allowed values of every ``__init__`` parameter."""

    @classmethod
    def parameter_names(cls) -> tuple[str, ...]:
        """Names of the ``__init__`` parameters."""
        if cls.__init__ is object.__init__:
            return ()
        signature = inspect.signature(cls.__init__)
        return tuple(name for name in signature.parameters if name != "self")

    @classmethod
    def check_params(cls, params: Mapping[str, Any]) -> None:
        """Check parameters without building the object.

        Raises:
            ConfigError: with a fault for each unknown name and each value out of range.
        """
        where = cls.name or cls.__name__
        known = cls.parameter_names()
        if found := check_parameters(params, cls.parameter_constraints, where, known):
            raise ConfigError(found)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the parameters by name (``deep`` is scikit-learn's and changes nothing)."""
        return {name: getattr(self, name) for name in self.parameter_names()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name. The next ``fit`` checks and uses them.

        Raises:
            ConfigError: naming every unknown parameter.
        """
        known = self.parameter_names()
        self.check_params({name: value for name, value in params.items() if name not in known})
        for name, value in params.items():
            setattr(self, name, value)
        return self
