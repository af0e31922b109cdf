"""Runs generated Python against tests in a process of its own.

What stands between a program and the machine: an isolated interpreter (``-I``) without
environment, a temporary folder as its working directory, limits on processor time, memory,
file size, open files and new processes (the last does not bind root), a time-out after which
all that it started is killed, and, where the system lets an ordinary process make namespaces,
no network and no sight of other processes. It is no barrier against reading files that this
user may read.

Why a program cannot fake the verdict: see ``_harness``.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from waypost.contracts.errors import SandboxError, SchemaError

logger = logging.getLogger(__name__)

Barrier = Literal["namespaces", "network", "none"]
Reason = Literal["passed", "failed", "error", "timeout"]

_SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_BARRIERS: dict[Barrier, list[str]] = {
    "namespaces": [
        "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
    ],
    "network": ["--user", "--map-root-user", "--net"],
}  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What one run may use.

    Attributes:
        wall_s: Seconds from start to verdict.
        cpu_s: Seconds of processor time of one process.
        memory_bytes: Address space of one process.
        file_bytes: Size of one file it writes.
    """

    wall_s: float = 10.0
    cpu_s: int = 8
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20


@dataclass(frozen=True)
class Verdict:
    """The outcome of one run.

    Attributes:
        passed: True where every test held.
        reason: ``failed``: a test did not hold or raised; ``error``: the program itself raised
            or ended; ``timeout``: no verdict in time.
        detail: Name of the exception or what happened; never text of the program.
    """

    passed: bool
    reason: Reason
    detail: str = ""


def run_tests(code: str, tests: str, limits: Limits | None = None) -> Verdict:
    """Run ``tests`` against the functions that ``code`` defines.

    Arguments and results cross between tests and program by value: numbers, text, bytes, lists,
    tuples, sets, dicts and iterators of them. A function given as an argument does not cross,
    an object of another class equals nothing, and a change made to an argument in place is not
    seen by the tests.

    Args:
        code: A Python program.
        tests: Python statements with at least one ``assert``; they call the program's functions.
        limits: Default: `Limits()`.

    Raises:
        SchemaError: where the tests are not Python or assert nothing.
        SandboxError: where no child process can be run.
    """
    _check_tests(tests)
    limits = limits or Limits()
    token = secrets.token_hex(16)
    command = [
        *_prefix(barrier()), sys.executable, "-I", "-B", "-c", _harness_source(),
        str(limits.cpu_s), str(limits.memory_bytes), str(limits.file_bytes),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="waypost-code-") as folder:
        program = Path(folder) / "program.py"
        program.write_text(code, encoding="utf-8", errors="replace")
        output = _run(command, folder, json.dumps({"tests": tests, "token": token}), limits.wall_s)
    if output is None:
        return Verdict(False, "timeout", f"no verdict within {limits.wall_s:g} s")
    return _verdict(output, token)


def _check_tests(tests: str) -> None:
    try:
        tree = ast.parse(tests)
    except (SyntaxError, ValueError) as error:
        raise SchemaError(f"code tests are not Python: {type(error).__name__}") from None
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise SchemaError("code tests hold no assert statement, so they would pass any program")


def _run(command: list[str], folder: str, request: str, wall_s: float) -> bytes | None:
    """Return what the checker wrote, or None after a time-out."""
    try:
        child = subprocess.Popen(
            command,
            cwd=folder,
            env={},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise SandboxError(f"cannot start a process for generated code: {error}") from error
    try:
        return child.communicate(request.encode(), timeout=wall_s)[0]
    except subprocess.TimeoutExpired:
        return None
    finally:
        _kill_group(child)


def _kill_group(child: subprocess.Popen[bytes]) -> None:
    # The group outlives its leader where the program left processes behind. With namespaces
    # the end of their first process has ended them all.
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        logger.debug("the sandbox's process group is gone already")
    child.communicate()


def _verdict(output: bytes, token: str) -> Verdict:
    gone = Verdict(False, "error", "the process ended before its verdict")
    try:
        message = json.loads(output)
        reason, detail = message["reason"], str(message["detail"])
    except (ValueError, TypeError, KeyError):
        return gone
    if message.get("token") != token or reason not in get_args(Reason):
        return gone
    return Verdict(reason == "passed", reason, detail)


@cache
def barrier() -> Barrier:
    """Return the strongest barrier that this system allows; found once per process.

    Raises:
        SandboxError: where not even a plain interpreter starts.
    """
    candidates: tuple[Barrier, ...] = ("namespaces", "network", "none")
    for name in candidates:
        if name != "none" and not _prefix(name):
            continue
        command = [*_prefix(name), sys.executable, "-I", "-S", "-c", ""]
        try:
            done = subprocess.run(command, env={}, capture_output=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            if name != "namespaces":
                logger.warning("generated code runs with barrier %r: no namespaces here", name)
            return name
    raise SandboxError("cannot start a Python process for generated code")


def _prefix(name: Barrier) -> list[str]:
    unshare = shutil.which("unshare", path=_SYSTEM_PATH)
    return [unshare, *_BARRIERS[name], "--"] if unshare and name in _BARRIERS else []


@cache
def _harness_source() -> str:
    return Path(__file__).with_name("_harness.py").read_text(encoding="utf-8")
