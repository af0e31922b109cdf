"""Processes that a bench starts: servers, and modules whose CPU time and memory are measured."""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import psutil

from waypost.bench import _groups
from waypost.bench._http1 import Headers
from waypost.bench._upstream import PATH, chat
from waypost.bench.harness import BenchError

_OWN = re.compile(rb"^(?:RssAnon|VmSwap):\s*(\d+) kB", re.MULTILINE)
_TAIL = 15
_POLL_S = 0.2


def _last_lines(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines()[-_TAIL:])


# -- servers --------------------------------------------------------------------------------------


class Server:
    """A process that listens on a port of 127.0.0.1, with its output in a file.

    Args:
        name: Name of the server in messages.
        command: Command line.
        port: Port it will listen on.
        log: File of its output.
        environment: Changes to this process's environment; None removes a variable.
        folder: Its working folder; None: this process's.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        log: Path,
        environment: Mapping[str, str | None] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.name, self.port, self._folder = name, port, folder
        self._command, self._log = list(command), log
        changes = environment or {}
        kept = {key: value for key, value in os.environ.items() if key not in changes}
        self._environment = kept | {k: v for k, v in changes.items() if v is not None}

    def __enter__(self) -> Server:
        with self._log.open("ab") as out:
            self._process = _groups.begin(
                self._command,
                env=self._environment,
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _groups.finish(self._process)

    @property
    def pid(self) -> int:
        """Id of the process."""
        return self._process.pid

    def wait(self, models: Sequence[str], within_s: float, headers: Headers = ()) -> None:
        """Wait until every model answers a chat, asked with these headers.

        Raises:
            BenchError: The process ended, or ``within_s`` seconds have passed.
        """
        until = time.monotonic() + within_s
        left = list(models)
        while left:
            problem = _ask(self.port, left[0], headers)
            if not problem:
                left.pop(0)
                continue
            log = _last_lines(self._log.read_text(encoding="utf-8", errors="replace"))
            if self._process.poll() is not None:
                raise BenchError(f"{self.name} ended at its start:\n{log}")
            if time.monotonic() > until:
                told = f"{self.name} did not answer within {within_s:g} s ({problem})"
                raise BenchError(f"{told}:\n{log}")
            time.sleep(_POLL_S)


def fetch(
    port: int, method: str, path: str, body: bytes | None = None, headers: Headers = ()
) -> tuple[int, bytes]:
    """Return status and body of one request to 127.0.0.1.

    Raises:
        OSError, http.client.HTTPException: There is no answer.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        sent = {"content-type": "application/json", **dict(headers)}
        connection.request(method, path, body, sent)
        reply = connection.getresponse()
        return reply.status, reply.read()
    finally:
        connection.close()


def _ask(port: int, model: str, headers: Headers) -> str:
    """Send one chat request; return the problem with its answer, or ''."""
    body = chat(model, "Is anybody there?", stream=False)
    try:
        status, _ = fetch(port, "POST", PATH, body, headers)
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    return "" if status == 200 else f"HTTP {status} for {model}"


def free_ports(count: int) -> list[int]:
    """Return ``count`` different ports of 127.0.0.1 that are free now."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@contextmanager
def upstream(*arguments: str) -> Iterator[int]:
    """Run `waypost.bench._upstream` with these arguments; yield its port.

    Raises:
        BenchError: The upstream does not start.
    """
    command = [sys.executable, "-m", "waypost.bench._upstream", *arguments]
    process = _groups.begin(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdecimal():
            raise BenchError("the upstream did not start; its messages are above")
        yield int(line)
    finally:
        _groups.finish(process)
        if process.stdout is not None:
            process.stdout.close()


def spoken(command: Sequence[str], said: str, within_s: float = _groups.STOP_S) -> tuple[str, str]:
    """Run a command to its end; return what it wrote on stdout and, where it failed, on stderr.

    Args:
        command: Command line.
        said: Text on its standard input.
        within_s: Seconds that it has for its end when this process is told to stop.
    """
    pipe = subprocess.PIPE
    process = _groups.begin(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        out, told = process.communicate(said)
    finally:
        _groups.finish(process, within_s)
    return (out, "") if process.returncode == 0 else (out, told or f"exit {process.returncode}")


# -- modules that run to their end, watched -------------------------------------------------------


@dataclass
class Watched:
    """The output of a command, its CPU time and its memory.

    Memory is the anonymous memory of a process, resident or swapped out. It does not include
    file pages, which the system may drop, or Ray's object store, which is measured separately.

    Attributes:
        said: JSON object that the command wrote on stdout.
        wall_s: Seconds from its start to its end.
        times: Time of each sample, in monotonic seconds.
        cpu_s: CPU seconds of all its processes up to each sample, ended processes included.
        driver_mb: Peak memory of the command's own process, in MB.
        askers_mb: Peak memory of Ray Data's actors together, in MB.
        tree_mb: Peak memory of all its processes together, in MB.
    """

    said: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0
    times: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    driver_mb: float = 0.0
    askers_mb: float = 0.0
    tree_mb: float = 0.0

    def cpu_between(self, begin: float, end: float) -> float:
        """Return the CPU seconds used between two times, interpolated between samples."""
        low, high = np.interp([begin, end], self.times, self.cpu_s)
        return float(high - low)


def watched(
    module: str,
    arguments: Sequence[str],
    every_s: float,
    environment: Mapping[str, str] | None = None,
) -> Watched:
    """Run a module of the bench to its end.

    Args:
        module: Name of the module, which writes one JSON object on stdout.
        arguments: Arguments of the module.
        every_s: Seconds between two samples.
        environment: Variables to set; those of this process take precedence.

    Raises:
        BenchError: The module failed; the message has the last lines of its output.
    """
    began = time.monotonic()
    seen = Watched(times=[began], cpu_s=[0.0])
    taken: dict[int, float] = {}
    own = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"}
    with tempfile.TemporaryFile() as out:
        process = _groups.begin(
            [sys.executable, "-m", module, *arguments],
            env={**(environment or {}), **own},
            stdout=out,
            stderr=out,
        )
        try:
            ended = False
            while not ended:
                ended = _groups.ends(process.pid, every_s)
                seen.wall_s = time.monotonic() - began
                _sample(seen, process.pid, taken)  # after its end, too: CPU time is still readable
        finally:
            _groups.finish(process)  # Ray's processes end with their driver
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
    if process.returncode or not text:
        raise BenchError(f"{module} ended with {process.returncode}:\n{_last_lines(text)}")
    seen.said = json.loads(text.splitlines()[-1])
    return seen


def _sample(seen: Watched, root: int, taken: dict[int, float]) -> None:
    """Add one sample.

    Args:
        seen: Receives the sample.
        root: Process id of the command.
        taken: CPU seconds by process id, kept between samples to count ended processes.
    """
    driver = psutil.Process(root)
    driver_mb = askers_mb = tree_mb = 0.0
    for one in (driver, *driver.children(recursive=True)):
        try:
            times, own = one.cpu_times(), _own_mb(one.pid)
            asks = one.cmdline()[:1] and one.cmdline()[0].startswith("ray::MapWorker")
        except (psutil.Error, OSError):  # ended or ending: an earlier sample has its CPU time
            if one.pid != root:
                continue
            times, own, asks = one.cpu_times(), 0.0, False
        taken[one.pid] = times.user + times.system
        tree_mb += own
        driver_mb += own * (one.pid == root)
        askers_mb += own * bool(asks)
    seen.times.append(time.monotonic())
    seen.cpu_s.append(sum(taken.values()))
    seen.driver_mb = max(seen.driver_mb, driver_mb)
    seen.askers_mb = max(seen.askers_mb, askers_mb)
    seen.tree_mb = max(seen.tree_mb, tree_mb)


def _own_mb(pid: int) -> float:
    """Return a process's anonymous memory, which psutil does not report; 0 while it is ending."""
    status = Path(f"/proc/{pid}/status").read_bytes()
    return sum(map(int, _OWN.findall(status))) * 1024 / 1e6
