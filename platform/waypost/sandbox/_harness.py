"""Code inside the sandbox: the checker with the tests, and its child process with the program.

``sandbox.run_tests`` runs this in a new interpreter, with ``_confine`` and ``_values`` as the only
other modules of Waypost. The program runs in a forked child without access to the tests: the
checker sends it calls, receives plain values and compares them itself. An early exit, patched
builtins or objects that equal everything therefore do not change the verdict, and the token that
proves it is sent to the checker after the fork.
"""

from __future__ import annotations

import builtins
import json
import os
import resource
import sys
import types
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, TextIO

from waypost.sandbox._confine import hide_memory, limit, own_disk, restrict_calls, restrict_files
from waypost.sandbox._values import ProgramGoneError, Remote, Values, overwrite

_MAX_MESSAGE = 4_000_000


class ProgramFailedError(BaseException):
    """Error of a program that raised before any test; its text is the exception's name."""


def solve(source: str, calls: TextIO, replies: TextIO) -> None:
    """Run the program, then answer calls of its functions until the checker closes the pipe."""
    values = Values(keep=True)

    def reply(message: dict[str, Any]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    # Registered as a module, because dataclasses and pickle look it up by name.
    module = sys.modules["program"] = types.ModuleType("program")
    names = module.__dict__
    try:
        exec(compile(source, "program.py", "exec"), names)  # noqa: S102
        public = {name: value for name, value in names.items() if not name.startswith("__")}
        start = {"names": {name: values.encode(value) for name, value in public.items()}}
    except BaseException as error:  # noqa: BLE001 - any exception is the verdict
        reply({"error": type(error).__name__})
        return
    reply(start)
    for line in calls:
        try:
            reply(_answer(json.loads(line), values))
        except BaseException as error:  # noqa: BLE001 - raised again on the checker's side
            reply({"error": type(error).__name__})


def _answer(request: dict[str, Any], values: Values) -> dict[str, Any]:
    target = values.kept[request["on"]]
    if "get" in request:
        return {"result": values.encode(getattr(target, request["get"]))}
    if "set" in request:
        setattr(target, request["set"], values.decode(request["value"]))
        return {"result": None}
    given = [values.decode(value) for value in request["given"]]
    named = {key: values.decode(value) for key, value in request["named"].items()}
    result = values.encode(target(*given, **named))
    # Report arguments that the program changed in place, so that the tests see the change.
    after = [values.encode(value) for value in given]
    changed = [
        new if new != old else None for old, new in zip(request["given"], after, strict=True)
    ]
    return {"result": result, "changed": changed if any(changed) else None}


class Program:
    """The checker's interface to the child: calls of its functions and objects over two pipes."""

    def __init__(self, calls: TextIO, replies: TextIO) -> None:
        self.calls, self.replies = calls, replies
        self.values = Values(remote=self._remote)
        self.remotes: dict[int, Remote] = {}

    def names(self) -> dict[str, Any]:
        """Wait until the program has run; return its functions and values by name.

        Raises:
            ProgramFailedError, ProgramGoneError: the program raised; the child ended.
        """
        start = self._receive()
        if "error" in start:
            raise ProgramFailedError(str(start["error"]))
        names = start.get("names")
        if not isinstance(names, dict):
            raise ProgramGoneError("a malformed start")
        return {str(name): self.values.decode(value) for name, value in names.items()}

    def ask(self, number: int, request: dict[str, Any]) -> Any:
        """Return the child's decoded answer to a request about its object ``number``."""
        return self.values.decode(self._exchange({"on": number, **request}).get("result"))

    def call(self, number: int, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call the child's object; lists, dicts and sets that it changes are changed here, too."""
        request = {
            "on": number,
            "given": [self.values.encode(value) for value in given],
            "named": {key: self.values.encode(value) for key, value in named.items()},
        }
        answer = self._exchange(request)
        changed = answer.get("changed")
        for old, new in zip(given, changed if isinstance(changed, list) else (), strict=False):
            if new is not None:
                overwrite(old, self.values.decode(new))
        return self.values.decode(answer.get("result"))

    def _remote(self, number: int) -> Remote:
        return self.remotes.setdefault(number, Remote(self, number))

    def _exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            self.calls.write(json.dumps(request) + "\n")
            self.calls.flush()
        except OSError:
            raise ProgramGoneError("the program ended") from None
        answer = self._receive()
        if "error" in answer:
            raise _builtin_error(str(answer["error"]))
        return answer

    def _receive(self) -> dict[str, Any]:
        try:
            message = json.loads(self.replies.readline(_MAX_MESSAGE))
        except (ValueError, OSError, RecursionError):
            message = None
        if not isinstance(message, dict):
            raise ProgramGoneError("the program ended or sent too much")
        return message


def check(tests: str, program: Program) -> dict[str, str]:
    """Run the tests against the program; return the verdict's reason and detail."""
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
        except TypeError:  # a few classes need more than a message
            return RuntimeError(name)
    return RuntimeError(name)


def confine() -> list[str]:
    """Drop the rights that the program must not have; return the names of the active barriers."""
    steps: dict[str, Callable[[], bool]] = {"landlock": restrict_files, "seccomp": restrict_calls}
    found = [name for name, step in steps.items() if step()]
    if "seccomp" not in found:
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))  # limits all users except root
    return found


def main() -> None:
    """Fork the program's process, then read tests and token and write the verdict."""
    settings = json.loads(sys.argv[1])
    limit(settings["cpu_s"], settings["memory_bytes"], settings["file_bytes"])
    hide_memory()
    with open("program.py", encoding="utf-8") as file:  # noqa: PTH123
        source = file.read()
    os.unlink("program.py")  # noqa: PTH108 - its folder is empty, with a tmpfs or without
    inner = ["tmpfs"] if settings["own_mounts"] and own_disk(settings["disk_bytes"]) else []
    call_end, call_start = os.pipe()
    reply_end, reply_start = os.pipe()
    if os.fork() == 0:
        os.close(call_start)
        os.close(reply_end)
        nothing = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(nothing, standard)
        os.close(nothing)
        try:
            with os.fdopen(call_end) as calls, os.fdopen(reply_start, "w") as replies:
                replies.write(json.dumps({"barriers": [*inner, *confine()]}) + "\n")
                replies.flush()
                solve(source, calls, replies)
        finally:
            os._exit(0)
    os.close(call_end)
    os.close(reply_start)
    request = json.load(sys.stdin)
    with os.fdopen(call_start, "w") as calls, os.fdopen(reply_end) as replies:
        verdict = _judged(request, settings["barriers"], calls, replies)
        # Exit without closing `calls`, which could fail if the child has ended.
        os.write(1, json.dumps({"token": request["token"], **verdict}).encode())
        os._exit(0)


def _judged(
    request: dict[str, Any], wanted: list[str] | None, calls: TextIOWrapper, replies: TextIOWrapper
) -> dict[str, Any]:
    program = Program(calls, replies)
    try:
        # The harness sends this line before the program's first statement runs.
        found = json.loads(replies.readline(_MAX_MESSAGE))["barriers"]
    except (ValueError, KeyError):
        return {"reason": "unsafe", "detail": "its process ended before the program ran"}
    if wanted is None:
        return {"reason": "barriers", "detail": "", "barriers": found}
    if missing := [name for name in wanted if name not in found]:
        return {"reason": "unsafe", "detail": f"not active: {', '.join(missing)}"}
    return check(request["tests"], program)
