"""Servers that the bench starts: each a process of its own, stopped by its own id."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from waypost.bench.gateway.load import PATH, Job, Sample, job_to_json, samples_from_json
from waypost.bench.gateway.prompts import chat
from waypost.contracts.errors import WaypostError

STOP_S = 60.0
_TAIL = 15
_POLL_S = 0.2


class BenchError(WaypostError):
    """A server of the bench does not start or does not answer; the message has its last lines."""


class Server:
    """A process that listens on a port of 127.0.0.1, with its output in a file.

    Args:
        name: For messages.
        command: What to run.
        port: Where it will listen.
        log: The file.
        environment: Added to this process's; None removes a variable.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        port: int,
        log: Path,
        environment: Mapping[str, str | None] | None = None,
    ) -> None:
        self.name = name
        self.port = port
        self._command = list(command)
        self._log = log
        changes = environment or {}
        kept = {key: value for key, value in os.environ.items() if key not in changes}
        self._environment = kept | {k: v for k, v in changes.items() if v is not None}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Server:
        # a session of its own: Ctrl-C reaches the bench, and the bench stops its servers
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        if process is None or process.poll() is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def wait(self, models: Sequence[str], within_s: float) -> None:
        """Wait until every model answers a chat.

        Raises:
            BenchError: the process ended, or the time is over.
        """
        assert self._process is not None
        until = time.monotonic() + within_s
        told = "nothing listens"
        left = list(models)
        while left:
            told = _ask(self.port, left[0])
            if not told:
                left.pop(0)
                continue
            if self._process.poll() is not None:
                raise BenchError(f"{self.name} ended at its start:\n{self._last_lines()}")
            if time.monotonic() > until:
                problem = f"{self.name} did not answer within {within_s:g} s ({told})"
                raise BenchError(f"{problem}:\n{self._last_lines()}")
            time.sleep(_POLL_S)

    def _last_lines(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_TAIL:])


def _ask(port: int, model: str) -> str:
    """Ask for one answer; return what is wrong with it, or nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        body = chat(model, "Is anybody there?", stream=False)
        connection.request("POST", PATH, body, {"content-type": "application/json"})
        reply = connection.getresponse()
        reply.read()
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()
    return "" if reply.status == 200 else f"HTTP {reply.status} for {model}"


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on now, all different."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@contextmanager
def upstream(tokens: int) -> Iterator[int]:
    """Run the upstream; the value is its port.

    Raises:
        BenchError: it does not start.
    """
    module = "waypost.bench.gateway.upstream"
    with listening("the upstream", module, "--tokens", str(tokens)) as port:
        yield port


@contextmanager
def listening(name: str, module: str, *arguments: str) -> Iterator[int]:
    """Run a module that writes the port it listens on as its first line; the value is the port.

    Raises:
        BenchError: it does not start; the message has its name.
    """
    command = [sys.executable, "-m", module, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.strip().isdecimal():
            raise BenchError(f"{name} did not start; its messages stand above")
        yield int(line)
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def measure(job: Job) -> list[Sample]:
    """Run a job in a process of its own.

    Raises:
        BenchError: the process failed.
    """
    command = [sys.executable, "-m", "waypost.bench.gateway.load"]
    done = subprocess.run(
        command, input=job_to_json(job), capture_output=True, check=False, text=True
    )
    if done.returncode:
        raise BenchError(f"the client failed:\n{done.stderr}")
    return samples_from_json(done.stdout)
