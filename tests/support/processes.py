"""The processes of a Serve graph on this machine and their resource usage, read from /proc."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_REPLICA = "ray::ServeReplica:"


def descendants(root: int | None = None) -> Iterator[tuple[int, str]]:
    """Yield process id and title of every descendant of a process, by default of this one."""
    children: dict[int, list[int]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    waiting = [os.getpid() if root is None else root]
    while waiting:
        for pid in children.get(waiting.pop(), ()):
            waiting.append(pid)
            yield pid, _title(pid)


def replicas(app: str, deployment: str) -> list[int]:
    """Return the process ids of a deployment's replicas in the Ray that this process started."""
    # the title of a busy replica has the name of the method after a dot
    wanted = f"{_REPLICA}{app}:{deployment}"
    return sorted(
        pid for pid, title in descendants() if title == wanted or title.startswith(f"{wanted}.")
    )


def kill(app: str, deployment: str, most: int | None = None) -> list[int]:
    """Send SIGKILL to replicas of a deployment, at most ``most``; return their process ids."""
    found = replicas(app, deployment)[:most]
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return found


@dataclass(frozen=True, slots=True)
class Usage:
    """The resource usage of a process.

    Attributes:
        rss_mb: Anonymous resident memory in MB (2**20 bytes), without file and shared pages.
        files: Number of open file descriptors, sockets included.
        sockets: Number of open sockets.
        threads: Number of threads.
        cpu_s: CPU seconds of all threads since its start.
    """

    rss_mb: float
    files: int
    sockets: int
    threads: int
    cpu_s: float


def usage(pid: int) -> Usage:
    """Measure the usage of a process.

    Raises:
        OSError: There is no process with that id.
    """
    folder = _PROC / str(pid)
    status = dict(
        line.split(":", 1) for line in (folder / "status").read_text().splitlines() if ":" in line
    )
    # RssAnon and not VmRSS: pages of Ray's object store come and go with other processes
    anonymous = int(status["RssAnon"].split()[0])
    links = [_link(entry) for entry in (folder / "fd").iterdir()]
    sockets = sum(link.startswith("socket:") for link in links)
    fields = _fields(folder)
    cpu_s = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return Usage(anonymous / 1024, len(links), sockets, int(status["Threads"]), cpu_s)


def _parent(entry: Path) -> int | None:
    try:
        return int(_fields(entry)[1])
    except (OSError, IndexError):
        return None  # the process has ended


def _fields(entry: Path) -> list[str]:
    # the program's name in brackets may contain spaces and brackets
    return (entry / "stat").read_text().rsplit(")", 1)[1].split()


def _title(pid: int) -> str:
    try:
        raw = (_PROC / str(pid) / "cmdline").read_bytes()
    except OSError:
        return ""
    return raw.replace(b"\0", b" ").decode(errors="replace").strip()


def _link(entry: Path) -> str:
    try:
        return str(entry.readlink())
    except OSError:
        return ""
