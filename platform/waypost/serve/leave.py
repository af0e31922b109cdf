"""Take this Ray node out of its cluster without cutting answers short: a pod's preStop hook.

    python -m waypost.serve.leave --within 690

Tells Ray to drain the node, so that Serve starts replicas elsewhere and stops those here once they
have finished what is open. Returns when no replica is left, after ``--within`` seconds, or when
the head is gone: then the cluster is being deleted, and nobody moves the replicas.
"""

from __future__ import annotations

import argparse
import re
import socket
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import psutil

from waypost import ray_compat

POLL_S = 0.5
HEAD_LOST_S = 30.0
"""Time without the head after which the cluster is taken for deleted. A head that is replaced may
take longer (GCS fault tolerance); a node that leaves just then ends its open requests."""

CONNECT_S = 2.0

REPLICA = "ray::ServeReplica:"
"""Beginning of the titles of Serve's replicas."""

_FLAG = re.compile(r"--(node_id|gcs-address)=(.+)$")


@dataclass(frozen=True)
class Node:
    """A Ray node of this machine.

    Attributes:
        id: Its id, in hexadecimal digits.
        host, port: Where the cluster's head listens.
        pid: Process id of its raylet, whose children are its workers.
    """

    id: str
    host: str
    port: int
    pid: int

    @property
    def head(self) -> str:
        """Address of the head."""
        return f"{self.host}:{self.port}"


def node_of(pid: int, words: Sequence[str]) -> Node | None:
    """Return the Ray node whose raylet has this command; None if it is no raylet's.

    Args:
        pid: Id of the process.
        words: Words of its command.
    """
    matches = (match for word in words if (match := _FLAG.match(word)))
    found = {match[1]: match[2] for match in matches}
    if not words or not words[0].endswith("/raylet") or len(found) < 2:
        return None
    host, _, port = found["gcs-address"].rpartition(":")
    return Node(found["node_id"], host.strip("[]"), int(port), pid)


def nodes() -> list[Node]:
    """Return the Ray nodes that run on this machine; in a pod there is one."""
    processes = psutil.process_iter(["cmdline"])
    found = (node_of(process.pid, process.info["cmdline"] or ()) for process in processes)
    return [node for node in found if node is not None]


def replicas(node: Node) -> int:
    """Return the number of Serve's replicas that run on a node."""
    try:
        children = psutil.Process(node.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return 0
    return sum(_title(child).startswith(REPLICA) for child in children)


def _title(process: psutil.Process) -> str:
    try:
        return "".join(process.cmdline()[:1])
    except psutil.Error:
        return ""


def head_answers(node: Node) -> bool:
    """Return whether the head accepts a connection within `CONNECT_S` seconds."""
    try:
        socket.create_connection((node.host, node.port), CONNECT_S).close()
    except OSError:
        return False
    return True


def wait(
    left: Callable[[], int],
    answers: Callable[[], bool],
    within_s: float,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Return once no replica is left or nothing comes of waiting longer, and why.

    Args:
        left: Returns the number of replicas on the node.
        answers: Returns whether the head answers.
        within_s: Longest wait, in seconds.
        clock: Returns monotonic seconds; for tests.
        sleep: Waits for so many seconds; for tests.
    """
    begin = seen = clock()
    while count := left():
        now = clock()
        if answers():
            seen = now
        elif now - seen >= HEAD_LOST_S:
            return f"the head is gone for {HEAD_LOST_S:g} s; replicas that end with it: {count}"
        if now - begin >= within_s:
            return f"replicas that have not finished in {within_s:g} s: {count}"
        sleep(POLL_S)
    return f"no replica is left after {clock() - begin:.0f} s"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command.

    Returns:
        The exit code: 1 where there is no Ray node, or the head does not drain it.
    """
    parser = argparse.ArgumentParser("python -m waypost.serve.leave", description=__doc__)
    parser.add_argument("--within", type=float, required=True, help="longest wait, in seconds")
    parser.add_argument("--node", help="id of the Ray node, where several run on this machine")
    given = parser.parse_args(words)
    found = [node for node in nodes() if given.node in (None, node.id)]
    if len(found) != 1:
        _tell(f"expected one Ray node on this machine, found {len(found)}; name it with --node")
        return 1
    (node,) = found
    refused = "the head does not answer"
    if head_answers(node):
        refused = ray_compat.drain_node(node.head, node.id, given.within, "its pod is stopped")
    if refused:
        _tell(f"{node.head} does not drain node {node.id}: {refused}")
    _tell(wait(lambda: replicas(node), lambda: head_answers(node), given.within))
    return int(bool(refused))


def _tell(line: str) -> None:
    sys.stderr.write(f"leave: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
