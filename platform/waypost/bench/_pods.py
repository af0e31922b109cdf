"""Pods on one machine: processes with a network, process ids and a temporary folder of their own.

What a container runtime does with namespaces, util-linux and iproute2 do here. It needs root.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from waypost.bench import _groups
from waypost.bench.harness import BenchError

SUBNET = "10.213.7"
TOOLS = ("ip", "unshare", "nsenter", "mount")


@dataclass
class Pod:
    """A pod, stopped or running.

    Attributes:
        name: Name of its network namespace.
        address: Its address; it stays when the pod is started again.
        folder: Folder of its own, at the same path in every pod: `Pods.shared`.
        log: File of its output.
        process: The process around it; None before the first start.
    """

    name: str
    address: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def processes(self, title: str = "") -> list[int]:
        """Return ids of its processes whose command line begins with a title; on this machine."""
        if self.process is None or self.process.poll() is not None:
            return []
        found = []
        for child in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                if " ".join(child.cmdline()).startswith(title):
                    found.append(child.pid)
        return found

    def kill(self) -> int:
        """Send SIGKILL to its first process, with which the kernel ends all others."""
        first = self.processes()[:1]
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()
        return len(first)

    def command(self, words: Sequence[str]) -> list[str]:
        """Return a command line that runs a command in this pod, as `kubectl exec` does."""
        (first, *_) = self.processes()
        return ["nsenter", "--net", "--mount", "--pid", f"--target={first}", *words]


class Pods:
    """A bridge, and the pods on it.

    Args:
        folder: Folder for their files; its path is short, because sockets lie below it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._bridge = f"wp{os.getpid()}"
        self._count = 1
        self._made: list[Pod] = []
        self.shared = folder / "t"
        self.host = f"{SUBNET}.1"

    @contextmanager
    def network(self) -> Iterator[Pods]:
        """Have the bridge during the block; at its end all pods end.

        Raises:
            BenchError: This is not root, or a program lacks.
        """
        lacking = [tool for tool in TOOLS if shutil.which(tool) is None]
        if os.geteuid() != 0 or lacking:
            raise BenchError(f"pods need root, iproute2 and util-linux; lacking: {lacking}")
        self.shared.mkdir()
        _run("ip", "link", "add", self._bridge, "type", "bridge")
        try:
            _run("ip", "address", "add", f"{self.host}/24", "dev", self._bridge)
            _run("ip", "link", "set", self._bridge, "up")
            yield self
        finally:
            for pod in list(self._made):
                self.remove(pod)
            _run("ip", "link", "delete", self._bridge)

    def make(self, role: str) -> Pod:
        """Return a new pod, without processes."""
        self._count += 1
        number = self._count
        name = f"{self._bridge}-{number}"
        pod = Pod(name, f"{SUBNET}.{number}", self._folder / role, self._folder / f"{role}.log")
        pod.folder.mkdir()
        ours, theirs = f"{name}h", f"{name}c"
        _run("ip", "netns", "add", name)
        self._made.append(pod)
        _run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs)
        _run("ip", "link", "set", ours, "master", self._bridge, "up")
        _run("ip", "link", "set", theirs, "netns", name)
        inside = ("ip", "-n", name)
        _run(*inside, "address", "add", f"{pod.address}/24", "dev", theirs)
        _run(*inside, "link", "set", theirs, "up")
        _run(*inside, "link", "set", "lo", "up")
        return pod

    def start(self, pod: Pod, words: Sequence[str], environment: Mapping[str, str]) -> None:
        """Run a command as the first process of a pod, in an empty folder at `shared`."""
        shutil.rmtree(pod.folder, ignore_errors=True)
        pod.folder.mkdir()
        script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
        apart = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        inside = ("sh", "-c", script, "sh", str(pod.folder), str(self.shared), *words)
        with pod.log.open("ab") as out:
            pod.process = _groups.begin(
                ["ip", "netns", "exec", pod.name, *apart, *inside],
                env={**environment, "PATH": os.environ.get("PATH", os.defpath)},
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def remove(self, pod: Pod) -> None:
        """End a pod and its network."""
        if pod.process is not None:
            pod.kill()
            _groups.finish(pod.process)
            pod.process = None
        if pod in self._made:
            _run("ip", "netns", "delete", pod.name)
            self._made.remove(pod)


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"{' '.join(words)}: {done.stderr.strip()}")
