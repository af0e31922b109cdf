"""CPU time and memory of the processes of a measured server, read from /proc."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

_MANAGES = re.compile(
    r"/(raylet|gcs_server|log_monitor\.py|monitor\.py|dashboard\.py)\b"
    r"|/dashboard/.*\.py|^ray-dashboard|^ray::(DashboardAgent|RuntimeEnvAgent|ServeController)"
)
"""Command lines of Ray's processes that manage a cluster and see no request."""

_ROLLUP = re.compile(r"^(Rss|Pss):\s+(\d+) kB", re.MULTILINE)


def manages(command: str) -> bool:
    """Return whether a process with this command line manages a cluster and sees no request."""
    return _MANAGES.search(command) is not None


def tree(root: int) -> Iterator[tuple[psutil.Process, str]]:
    """Yield a process and its descendants, each with its command line, without those ending."""
    try:
        top = psutil.Process(root)
        everyone = [top, *top.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for one in everyone:
        try:
            yield one, " ".join(one.cmdline())
        except psutil.Error:
            continue


class Cpu:
    """CPU seconds, user and system, that the tree of a process uses from now on.

    Ray's processes that only manage the cluster do not count: they take the same in every minute,
    whatever is asked. A process that ends in between is lost, one that begins counts in full.

    Args:
        root: Process id of the server that was started.
    """

    def __init__(self, root: int) -> None:
        self._root = root
        self._before = self._now()

    def _now(self) -> dict[int, float]:
        found = {}
        for one, command in tree(self._root):
            if not manages(command):
                try:
                    times = one.cpu_times()
                except psutil.Error:
                    continue
                found[one.pid] = times.user + times.system
        return found

    def since(self) -> float:
        """Return the seconds since this object was made."""
        return sum(used - self._before.get(pid, 0.0) for pid, used in self._now().items())


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory of a process in MB (10^6 bytes).

    Attributes:
        rss_mb: Resident pages, shared ones in full.
        pss_mb: The same, each shared page divided by the number of processes that share it.
    """

    rss_mb: float
    pss_mb: float


def memory(pid: int) -> Memory:
    """Read the memory of a process.

    Raises:
        OSError: The process has ended, or is another user's.
    """
    return memory_of(Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8"))


def memory_of(rollup: str) -> Memory:
    """Return what the text of an ``smaps_rollup`` says."""
    found = {name: int(kilobytes) * 1024 / 1e6 for name, kilobytes in _ROLLUP.findall(rollup)}
    return Memory(found["Rss"], found["Pss"])


def replicas(root: int, deployment: str) -> list[int]:
    """Return the process ids of a deployment's replicas below a process, in ascending order."""
    return sorted(one.pid for one, command in tree(root) if is_replica(command, deployment))


def is_replica(command: str, deployment: str) -> bool:
    """Return whether a process with this command line is a replica of a deployment."""
    # the title of a busy replica has the name of the method behind a dot
    title = rf"ray::ServeReplica:[^:]+:{re.escape(deployment)}(\.\S*)?\s*"
    return re.fullmatch(title, command) is not None
