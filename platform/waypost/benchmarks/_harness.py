"""What runs inside the sandbox: the checker with the tests, and its child with the program.

The source of this file is handed to a fresh interpreter (``sandbox.run_tests``); nothing of
Waypost is imported here. The program runs in a forked child, which never sees the tests: the
checker sends it calls and gets plain values back, so the values compared are the checker's
own, and leaving early, patched builtins or objects equal to everything change no verdict.
The token that proves the verdict reaches the checker after the fork.
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import sys
from collections.abc import Callable, Iterator, KeysView, ValuesView
from typing import Any, TextIO

_MAX_MESSAGE = 4_000_000
_MAX_ITEMS = 100_000


class ProgramGoneError(BaseException):
    """The child ended or broke the protocol; no test may catch it as an Exception."""


class ProgramFailedError(BaseException):
    """The program raised before any test; holds the name of what it raised."""


class Opaque:
    """Stands for a value that cannot cross, such as an instance of the program's own class."""


def encode(value: Any) -> Any:
    """Return a value as JSON data: scalars as they are, the rest as [tag, content]."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    for tag, kind in (("l", list), ("t", tuple), ("s", set), ("z", frozenset)):
        if isinstance(value, kind):
            return [tag, [encode(item) for item in value]]
    if isinstance(value, dict):
        return ["d", [[encode(key), encode(item)] for key, item in value.items()]]
    if isinstance(value, complex):
        return ["c", [value.real, value.imag]]
    if isinstance(value, bytes | bytearray):
        return ["b", value.hex()]
    if isinstance(value, Iterator | range | KeysView | ValuesView):
        items = []
        for item in value:
            items.append(encode(item))
            if len(items) > _MAX_ITEMS:
                return ["o", None]
        return ["i", items]
    return ["o", None]


def decode(data: Any) -> Any:
    """Rebuild what `encode` made; raises ProgramGoneError on anything else."""
    if not isinstance(data, list):
        return data
    try:
        tag, content = data
        if tag == "d":
            return {decode(key): decode(item) for key, item in content}
        if tag == "c":
            real, imaginary = content
            return complex(real, imaginary)
        if tag == "b":
            return bytes.fromhex(content)
        if tag == "o":
            return Opaque()
        kinds: dict[str, Callable[[Any], Any]] = {
            "l": list, "t": tuple, "s": set, "z": frozenset, "i": iter,
        }  # fmt: skip
        return kinds[tag]([decode(item) for item in content])
    except (TypeError, ValueError, KeyError):
        raise ProgramGoneError("a malformed value") from None


def solve(calls: TextIO, replies: TextIO) -> None:
    """Run the program, then answer calls of its functions until the checker goes away."""

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    names: dict[str, Any] = {"__name__": "program"}
    try:
        with open("program.py", encoding="utf-8") as file:  # noqa: PTH123
            exec(compile(file.read(), "program.py", "exec"), names)  # noqa: S102
    except BaseException as error:  # noqa: BLE001 - whatever it raises is the verdict
        reply({"error": type(error).__name__})
        return
    public = {name: value for name, value in names.items() if not name.startswith("__")}
    values = {name: encode(value) for name, value in public.items() if not callable(value)}
    reply({"functions": [n for n, v in public.items() if callable(v)], "values": values})
    for line in calls:
        call = json.loads(line)
        try:
            named = {key: decode(value) for key, value in call["named"].items()}
            result = names[call["function"]](*map(decode, call["given"]), **named)
            reply({"result": encode(result)})
        except BaseException as error:  # noqa: BLE001 - raised again on the checker's side
            reply({"error": type(error).__name__})


class Program:
    """The child as the checker sees it: its functions, called over two pipes."""

    def __init__(self, calls: TextIO, replies: TextIO) -> None:
        self.calls, self.replies = calls, replies

    def names(self) -> dict[str, Any]:
        """Wait for the program to have run; return its functions and plain values by name.

        Raises:
            ProgramFailedError: where it raised.
        """
        start = self._receive()
        if "error" in start:
            raise ProgramFailedError(str(start["error"]))
        names = {str(name): decode(value) for name, value in dict(start["values"]).items()}
        return names | {str(name): self._function(str(name)) for name in start["functions"]}

    def _function(self, name: str) -> Callable[..., Any]:
        def call(*given: Any, **named: Any) -> Any:
            encoded = {key: encode(value) for key, value in named.items()}
            request = {"function": name, "given": [encode(v) for v in given], "named": encoded}
            try:
                self.calls.write(json.dumps(request) + "\n")
                self.calls.flush()
            except OSError:
                raise ProgramGoneError("the program ended") from None
            answer = self._receive()
            if "error" in answer:
                raise _builtin_error(str(answer["error"]))
            return decode(answer.get("result"))

        return call

    def _receive(self) -> dict[str, Any]:
        try:
            message = json.loads(self.replies.readline(_MAX_MESSAGE))
        except (ValueError, OSError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise ProgramGoneError("the program ended or sent too much")
        return message


def check(tests: str, program: Program) -> dict[str, str]:
    """Run the tests against the program; return reason and detail of the verdict."""
    try:
        namespace = {"__name__": "tests", **program.names()}
        exec(compile(tests, "tests.py", "exec"), namespace)  # noqa: S102
    except (ProgramFailedError, ProgramGoneError) as error:
        return {"reason": "error", "detail": str(error)}
    except Exception as error:  # noqa: BLE001 - any error of a test is a verdict
        return {"reason": "failed", "detail": type(error).__name__}
    return {"reason": "passed", "detail": ""}


def _builtin_error(name: str) -> Exception:
    kind = getattr(builtins, name, None)
    if isinstance(kind, type) and issubclass(kind, Exception):
        try:
            return kind(name)
        except TypeError:  # a few need more than a message
            return RuntimeError(name)
    return RuntimeError(name)


def limit(cpu_s: int, memory_bytes: int, file_bytes: int) -> None:
    """Set hard limits on this process and all it starts."""
    wanted = {
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_FSIZE: file_bytes,
        resource.RLIMIT_NOFILE: 32,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def main() -> None:
    """Fork the program's process, then read tests and token, and write the verdict."""
    limit(*(int(value) for value in sys.argv[1:4]))
    call_end, call_start = os.pipe()
    reply_end, reply_start = os.pipe()
    if os.fork() == 0:
        os.close(call_start)
        os.close(reply_end)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # binds all users but root
        try:
            with os.fdopen(call_end) as calls, os.fdopen(reply_start, "w") as replies:
                solve(calls, replies)
        finally:
            os._exit(0)
    os.close(call_end)
    os.close(reply_start)
    request = json.load(sys.stdin)
    with os.fdopen(call_start, "w") as calls, os.fdopen(reply_end) as replies:
        verdict = check(request["tests"], Program(calls, replies))
        # Leave at once: closing `calls` could fail on a child that is gone.
        os.write(1, json.dumps({"token": request["token"], **verdict}).encode())
        os._exit(0)


if __name__ == "__main__":
    main()
