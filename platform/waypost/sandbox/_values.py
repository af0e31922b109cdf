"""Transfer of values between tests and program: plain data by value, other objects as handles.

A handle (`Remote`) forwards calls, attributes, items and iteration to the program's process and
returns plain values. Comparison and arithmetic are never forwarded, so an object of a program
equals only itself. Runs inside the sandbox and imports nothing from Waypost.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, KeysView, ValuesView
from typing import Any

_MAX_ITEMS = 100_000
_BIG = 1 << 63
# Tests may use these through the program's imports; they get unpatched modules of their own.
_MODULES = (
    "math", "cmath", "re", "string", "itertools", "functools", "collections", "copy", "random",
    "operator", "statistics", "datetime", "decimal", "fractions", "typing", "heapq", "bisect",
)  # fmt: skip


class ProgramGoneError(BaseException):
    """The child ended or broke the protocol. A BaseException, so that no test catches it."""


class Remote:
    """The checker's handle of an object, class or function of the program."""

    __slots__ = ("_Remote__number", "_Remote__program")

    def __init__(self, program: Any, number: int) -> None:
        object.__setattr__(self, "_Remote__program", program)
        object.__setattr__(self, "_Remote__number", number)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.__program.ask(self.__number, {"get": name})

    def __setattr__(self, name: str, value: Any) -> None:
        encoded = self.__program.values.encode(value)
        self.__program.ask(self.__number, {"set": name, "value": encoded})

    def __call__(self, *given: Any, **named: Any) -> Any:
        return self.__program.call(self.__number, given, named)

    def __method(self, name: str, *given: Any) -> Any:
        return self.__program.ask(self.__number, {"get": name})(*given)

    def __len__(self) -> int:
        return int(self.__method("__len__"))

    def __bool__(self) -> bool:
        return True

    def __iter__(self) -> Iterator[Any]:
        return iter(self.__method("__iter__"))

    def __getitem__(self, key: Any) -> Any:
        return self.__method("__getitem__", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self.__method("__setitem__", key, value)

    def __contains__(self, key: Any) -> bool:
        return bool(self.__method("__contains__", key))

    def __str__(self) -> str:
        return str(self.__method("__str__"))

    __repr__ = __str__


def handle_number(value: Remote) -> int:
    """Return the number of a handle's object in the program's process."""
    return int(object.__getattribute__(value, "_Remote__number"))


class Values:
    """Encoder and decoder of values at one end of the transfer.

    Args:
        keep: In the program's process: keep objects that cannot be sent, by number.
        remote: In the checker: function from a number to its handle.
    """

    def __init__(self, keep: bool = False, remote: Callable[[int], Remote] | None = None) -> None:
        self.kept: dict[int, Any] = {}
        self._numbers: dict[int, int] = {}
        self._keep, self._remote = keep, remote

    def encode(self, value: Any) -> Any:
        """Return a value as JSON data: scalars unchanged, other values as [tag, content]."""
        if value is None or isinstance(value, bool | float | str):
            return value
        if isinstance(value, int):
            # Python refuses to print very long numbers in decimal.
            return value if -_BIG < value < _BIG else ["h", hex(value)]
        for tag, kind in (("l", list), ("t", tuple), ("s", set), ("z", frozenset)):
            if isinstance(value, kind):
                return [tag, [self.encode(item) for item in value]]
        if isinstance(value, dict):
            return ["d", [[self.encode(key), self.encode(item)] for key, item in value.items()]]
        if isinstance(value, complex):
            return ["c", [value.real, value.imag]]
        if isinstance(value, bytes | bytearray):
            return ["b", value.hex()]
        if isinstance(value, type):
            return self._handle(value)
        if isinstance(value, Iterator | range | KeysView | ValuesView):
            return self._items(value)
        return self._by_module(value)

    def _items(self, value: Any) -> Any:
        items = []
        for item in value:
            items.append(self.encode(item))
            if len(items) > _MAX_ITEMS:
                return self._handle(value)
        return ["i", items]

    def _by_module(self, value: Any) -> Any:
        kind = type(value)
        if isinstance(value, type(sys)) and value.__name__ in _MODULES:
            return ["m", value.__name__]
        if kind.__name__ in ("Decimal", "Fraction"):
            return ["n", [kind.__name__, str(value)]]
        if kind.__module__ == "numpy" and hasattr(value, "item") and not hasattr(value, "__len__"):
            return self.encode(value.item())
        return self._handle(value)

    def _handle(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return ["o", handle_number(value)]
        if not self._keep:
            raise TypeError("a function or object of the tests cannot be given to the program")
        number = self._numbers.setdefault(id(value), len(self.kept))
        self.kept[number] = value  # kept alive, so that its id stays its own
        return ["o", number]

    def decode(self, data: Any) -> Any:
        """Return the value that `encode` encoded; raise ProgramGoneError for any other data."""
        if not isinstance(data, list):
            return data
        try:
            tag, content = data
            return self._decoded(tag, content)
        except (TypeError, ValueError, KeyError, ArithmeticError):
            raise ProgramGoneError("a malformed value") from None

    def _decoded(self, tag: str, content: Any) -> Any:
        if tag == "d":
            return {self.decode(key): self.decode(item) for key, item in content}
        if tag == "c":
            real, imaginary = content
            return complex(real, imaginary)
        if tag == "b":
            return bytes.fromhex(content)
        if tag == "h":
            return int(content, 16)
        if tag == "n":
            return _exact_number(*content)
        if tag == "m":
            return __import__({name: name for name in _MODULES}[content])
        if tag == "o":
            return self._remote(int(content)) if self._remote else self.kept[content]
        kinds: dict[str, Callable[[Any], Any]] = {
            "l": list, "t": tuple, "s": set, "z": frozenset, "i": iter,
        }  # fmt: skip
        return kinds[tag]([self.decode(item) for item in content])


def _exact_number(kind: str, text: str) -> Any:
    if kind == "Decimal":
        from decimal import Decimal

        return Decimal(text)
    from fractions import Fraction

    return Fraction(text)


def overwrite(old: Any, new: Any) -> None:
    """Replace the content of a list, dict or set in place; leave other values unchanged."""
    if isinstance(old, list) and isinstance(new, list):
        old[:] = new
    elif type(old) is type(new) and isinstance(old, dict | set):
        old.clear()
        old.update(new)
