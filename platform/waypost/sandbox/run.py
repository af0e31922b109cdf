"""Run generated Python against tests in a separate process.

The program runs in an isolated interpreter (``-I``) without environment variables, in a temporary
folder. Processor time, memory, file size and open files are limited; after a time-out the whole
process group is killed. In addition the process has all `BARRIERS` that the system allows without
privileges. `barrier` returns their names; if one of them fails in a run, the run raises a
SandboxError and gives no verdict.

``_harness`` explains why a program cannot fake the verdict.
"""

from __future__ import annotations

import ast
import base64
import importlib.util
import json
import logging
import marshal
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, cast, get_args

from waypost.contracts.errors import SandboxError, SchemaError

logger = logging.getLogger(__name__)

BARRIERS = {
    "processes": "a process namespace: no other process is visible, all end with the run",
    "network": "a network namespace: no network at all",
    "tmpfs": "files are written to a small in-memory file system",
    "landlock": "only Python and system libraries are readable, only the own folder is writable",
    "seccomp": "no new processes or programs, no sockets, no signals to others, no chmod",
}
"""Barrier -> its effect."""

Reason = Literal["passed", "failed", "error", "timeout"]

_SYSTEM_PATH = "/usr/bin:/bin:/usr/sbin:/sbin"
_NAMESPACES: dict[tuple[str, ...], list[str]] = {
    ("processes", "network"): [
        "--user", "--map-root-user", "--net", "--pid", "--fork", "--kill-child", "--mount-proc",
    ],
    ("network",): ["--user", "--map-root-user", "--net", "--mount"],
    (): [],
}  # fmt: skip
_MODULES = tuple(f"waypost.sandbox.{name}" for name in ("_confine", "_values", "_harness"))
_BOOT = """
import sys, types, marshal, binascii
for name in ("waypost", "waypost.sandbox"):
    sys.modules[name] = types.ModuleType(name)
for name, code in marshal.loads(binascii.a2b_base64("{}")):
    module = sys.modules[name] = types.ModuleType(name)
    setattr(sys.modules["waypost.sandbox"], name.rpartition(".")[2], module)
    exec(code, module.__dict__)
module.main()
"""


@dataclass(frozen=True)
class Limits:
    """Resource limits of one run.

    Attributes:
        wall_s: Seconds from start to verdict.
        cpu_s: Seconds of processor time of one process.
        memory_bytes: Address space of one process.
        file_bytes: Size of one written file.
        disk_bytes: Total size of the written files, if there is a ``tmpfs``.
    """

    wall_s: float = 10.0
    cpu_s: int = 8
    memory_bytes: int = 1 << 30
    file_bytes: int = 1 << 20
    disk_bytes: int = 1 << 23


@dataclass(frozen=True)
class Verdict:
    """The outcome of one run.

    Attributes:
        passed: True if every test passed.
        reason: ``passed``; ``failed``: a test failed or raised; ``error``: the program itself
            raised or ended; ``timeout``: no verdict in time.
        detail: Name of the exception, or a description; never text of the program.
    """

    passed: bool
    reason: Reason
    detail: str = ""


def run_tests(code: str, tests: str, limits: Limits | None = None) -> Verdict:
    """Run ``tests`` against the definitions of ``code`` and return the verdict.

    Numbers, text, bytes, lists, tuples, sets, dicts and iterators of them are passed between tests
    and program by value. A list, dict or set that a call changes in place is changed for the tests
    as well. An object of another class stays in the program's process: the tests can call it, read
    and set its attributes and items, iterate over it and pass it back, but it equals only itself.
    The tests cannot pass their own functions to the program.

    Args:
        code: A Python program.
        tests: Python statements with at least one ``assert``; they call the program's functions.
        limits: Resource limits; default: `Limits()`.

    Raises:
        SchemaError: the tests are not Python or have no assert statement.
        SandboxError: no child process can be run, or one of its barriers fails.
    """
    _check_tests(tests)
    message = _judge(code, tests, limits or Limits(), _namespaces(), barrier())
    if message is None:
        return Verdict(False, "timeout", f"no verdict within {(limits or Limits()).wall_s:g} s")
    reason, detail = str(message.get("reason")), str(message.get("detail"))
    if reason == "unsafe":
        raise SandboxError(f"the sandbox for generated code did not start: {detail}")
    if reason not in get_args(Reason):
        return Verdict(False, "error", "the process ended before its verdict")
    return Verdict(reason == "passed", cast(Reason, reason), detail)


def _check_tests(tests: str) -> None:
    try:
        tree = ast.parse(tests)
    except (SyntaxError, ValueError) as error:
        raise SchemaError(f"code tests are not Python: {type(error).__name__}") from None
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise SchemaError("code tests have no assert statement, so any program would pass them")


def _judge(
    code: str,
    tests: str,
    limits: Limits,
    namespaces: tuple[str, ...],
    barriers: Sequence[str] | None,
) -> dict[str, Any] | None:
    """Return the checker's message, {} if it sent none, None after a time-out."""
    inner = barriers and [name for name in barriers if name not in namespaces]
    settings = json.dumps({**asdict(limits), "own_mounts": bool(namespaces), "barriers": inner})
    command = [
        *_prefix(namespaces), sys.executable, "-I", "-B", "-c", boot_source(_MODULES), settings,
    ]  # fmt: skip
    token = secrets.token_hex(16)
    with tempfile.TemporaryDirectory(prefix="waypost-code-") as folder:
        program = Path(folder) / "program.py"
        program.write_text(code, encoding="utf-8", errors="replace")
        output = _run(command, folder, json.dumps({"tests": tests, "token": token}), limits.wall_s)
    if output is None:
        return None
    try:
        message = json.loads(output)
    except ValueError:
        return {}
    return message if isinstance(message, dict) and message.get("token") == token else {}


def _run(command: list[str], folder: str, request: str, wall_s: float) -> bytes | None:
    """Return the checker's output, or None after a time-out."""
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
    # Processes of the program can outlive the leader of the group. With namespaces the end of
    # their first process ends them all.
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        logger.debug("the sandbox's process group has already ended")
    child.communicate()


@cache
def barrier() -> tuple[str, ...]:
    """Return the names of the `BARRIERS` that this system supports; tested once per process.

    Raises:
        SandboxError: not even a plain interpreter can be started.
    """
    namespaces = _namespaces()
    message = _judge("", "", Limits(wall_s=30), namespaces, None)
    if not message or message.get("reason") != "barriers":
        raise SandboxError("cannot start a Python process for generated code")
    found = (*namespaces, *message["barriers"])
    if missing := [name for name in BARRIERS if name not in found]:
        logger.warning(
            "generated code runs without these barriers, which this system does not support: %s",
            "; ".join(f"{name} ({BARRIERS[name]})" for name in missing),
        )
    return found


@cache
def _namespaces() -> tuple[str, ...]:
    for names in _NAMESPACES:
        command = [*_prefix(names), sys.executable, "-I", "-S", "-c", ""]
        try:
            done = subprocess.run(command, env={}, capture_output=True, timeout=30, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.returncode == 0:
            return names
    raise SandboxError("cannot start a Python process for generated code")


def _prefix(namespaces: tuple[str, ...]) -> list[str]:
    if not namespaces:
        return []
    unshare = shutil.which("unshare", path=_SYSTEM_PATH) or "unshare"
    return [unshare, *_NAMESPACES[namespaces], "--"]


@cache
def boot_source(modules: tuple[str, ...]) -> str:
    """Return a program for ``python -c`` that loads these modules and calls ``main`` of the last.

    The modules are compiled once, in this process. The child cannot import other modules of this
    package, and must run `sys.executable`, because marshal needs the same Python version.
    """
    compiled = []
    for name in modules:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise SandboxError(f"cannot find the source of {name}")
        source = Path(spec.origin).read_text(encoding="utf-8")
        compiled.append((name, compile(source, name, "exec", dont_inherit=True)))
    return _BOOT.format(base64.b64encode(marshal.dumps(compiled)).decode())
