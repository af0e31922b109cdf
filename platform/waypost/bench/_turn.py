"""One turn of a bench of the gateway: an upstream, a target and the client, and their end.

``python -m waypost.bench._turn`` reads a `Turn` as JSON and writes a list of `_client.Sample`. It
is a process of its own so that a target that listens on every address can be measured in a network
of its own, with all that talks to it: a network namespace, whose only address is 127.0.0.1.
"""

from __future__ import annotations

import fcntl
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from waypost.bench import _groups
from waypost.bench._client import Job, Sample, Slice, from_json, measure, to_json
from waypost.bench._http1 import Endpoint
from waypost.bench._processes import spoken, upstream
from waypost.bench._targets import EVERYWHERE, Scene, started
from waypost.bench.harness import BenchError

DIRECT = "direct"
"""The upstream without a gateway: the upper bound that client and upstream set."""

_FAILED = 3
_STOP_S = 2 * _groups.STOP_S
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1  # of <linux/sockios.h> and <linux/if.h>
_UNSHARE = (("--net",), ("--map-root-user", "--net"))
"""Ways of making a network: root's, and anybody's where the system lets users have namespaces."""


@dataclass(frozen=True)
class Turn:
    """What is measured.

    Attributes:
        target: One of `_targets.ALL` with a server, or `DIRECT`.
        artifact: Folder of the trained router.
        folder: Folder for configs and logs.
        tokens: Tokens of every answer.
        slices: Measurements, in order.
        seed: Seed of the prompts and of the order within pairs.
        warm_up_s: Seconds of unmeasured load before the first slice.
    """

    target: str
    artifact: Path
    folder: Path
    tokens: int
    slices: tuple[Slice, ...]
    seed: int
    warm_up_s: float

    @property
    def alone(self) -> bool:
        """Whether the target needs a network of its own."""
        return self.target in EVERYWHERE


def taken(turn: Turn) -> list[Sample]:
    """Measure a target in a process of its own.

    Raises:
        BenchError: The target does not start, the client fails, or a network of its own, which the
            target needs, cannot be made.
    """
    command = [sys.executable, "-m", "waypost.bench._turn"]
    if turn.alone:
        command = [*network(), *command]
    out, problem = spoken(command, to_json(turn), _STOP_S)
    if problem:
        raise BenchError(problem.strip())
    found: list[Sample] = from_json(out, list[Sample])
    return found


def take(turn: Turn) -> list[Sample]:
    """Measure a target from this process.

    Raises:
        BenchError: See `taken`.
    """
    with upstream("--tokens", str(turn.tokens)) as port:
        there = Endpoint(port, "echo")
        if turn.target == DIRECT:
            return measure(Job(there, there, turn.slices, turn.seed))
        with started(turn.target, Scene(port, turn.artifact, turn.folder)) as (target, process):
            return measure(Job(target, there, turn.slices, turn.seed, turn.warm_up_s, process))


@cache
def network() -> tuple[str, ...]:
    """Return the words that begin a command in a network of its own.

    Raises:
        BenchError: This user may not make one here.
    """
    program = shutil.which("unshare")
    if program is None:
        raise BenchError("it listens on every address, and `unshare` (util-linux) is missing")
    told = ""
    for options in _UNSHARE:
        command = (program, *options)
        done = subprocess.run([*command, "true"], capture_output=True, check=False, text=True)
        if done.returncode == 0:
            return command
        told = done.stderr.strip()
    raise BenchError(
        "it listens on every address, and this user may not give it a network of its own "
        f"({told or 'unshare failed'}); run as root, or allow user namespaces"
    )


def bring_up_loopback() -> None:
    """Bring up ``lo``, which is down in a new network.

    Raises:
        OSError: Not allowed in this network.
    """
    name = b"lo".ljust(16, b"\0")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        asked = struct.pack("16sh22x", name, 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(any_socket, _GET_FLAGS, asked))[1]
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh22x", name, flags | _UP))


def main(said: str) -> int:
    """Take the turn that ``said`` holds as JSON; write its samples. Return the exit status."""
    turn: Turn = from_json(said, Turn)
    try:
        with _groups.ended_on_sigterm():
            if turn.alone:
                bring_up_loopback()
            samples: Sequence[Sample] = take(turn)
    except BenchError as error:
        sys.stderr.write(f"{error}\n")
        return _FAILED
    sys.stdout.write(to_json(samples))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.stdin.read()))
