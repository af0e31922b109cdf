"""The public port of ``waypost serve``: the launcher listens, the gateway's replicas accept.

The launcher's process binds the port, and gives each replica of the gateway a copy of the listening
socket over a Unix socket in a folder that only its user may open. All copies share one queue, so
that the port stays open while a replica is killed or replaced: connections wait in the queue.

A replica keeps the Unix connection open. Over it the launcher learns which replicas live, and when
a stopping one has no request left.
"""

from __future__ import annotations

import json
import selectors
import socket
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

VARIABLE = "WAYPOST_INGRESS"
"""Environment variable with the path of the launcher's Unix socket, which replicas inherit."""

BACKLOG = 2048
"""Connections that may wait to be accepted, while no replica lives for example."""

ANSWER_S = 10.0
_IDLE = b"idle\n"
_MOST = 4096
_POLL_S = 0.05


def listen(host: str, port: int, *, shared: bool = False) -> socket.socket:
    """Return a socket that listens.

    Args:
        host: Address to bind to.
        port: Port; 0 takes a free one.
        shared: Whether other processes may listen on the same port (SO_REUSEPORT).

    Raises:
        OSError: the address cannot be bound.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class Doorkeeper:
    """Holds the public port in the launcher's process, and hands it to replicas.

    Args:
        listener: The listening socket; closed at the end.
        application: The application that it belongs to; the gateways of others get nothing.
        prefix: Route prefix of the application, without a slash at the end.

    Attributes:
        listener, application, prefix: As given; may be replaced, for replicas that come later.
        path: Path of the Unix socket.
    """

    def __init__(self, listener: socket.socket, application: str, prefix: str) -> None:
        self.application = application
        self.prefix = prefix
        self.listener = listener
        # 0700: nobody else of this machine gets the socket
        self._folder = tempfile.TemporaryDirectory(prefix="waypost-ingress-")
        self.path = Path(self._folder.name) / "door"
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind(str(self.path))
        self._door.listen()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._door, selectors.EVENT_READ)
        self._awake, self._wake = socket.socketpair()
        self._selector.register(self._awake, selectors.EVENT_READ)
        self._told_idle: dict[socket.socket, bool] = {}
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="waypost-door", daemon=True)
        self._thread.start()

    def __enter__(self) -> Doorkeeper:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        host, port = self.listener.getsockname()[:2]
        return str(host), int(port)

    @property
    def replicas(self) -> int:
        """Number of replicas that hold the port."""
        return len(self._told_idle)

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until every replica has ended, or has told that it stops and has no request left.

        Returns:
            Whether they have.
        """
        until = time.monotonic() + timeout_s
        while not all(list(self._told_idle.values())):
            if time.monotonic() > until:
                return False
            time.sleep(_POLL_S)
        return True

    def close(self) -> None:
        """Close the port here; replicas that live go on to hold it."""
        if self._ended:
            return
        self._ended = True
        self._wake.send(b"x")
        self._thread.join()
        for each in (*self._told_idle, self._door, self._awake, self._wake, self.listener):
            each.close()
        self._selector.close()
        self._folder.cleanup()

    def _run(self) -> None:
        while not self._ended:
            for key, _ in self._selector.select():
                if key.fileobj is self._door:
                    self._greet(self._door.accept()[0])
                elif key.fileobj is not self._awake:
                    assert isinstance(key.fileobj, socket.socket)
                    self._hear(key.fileobj)

    def _greet(self, replica: socket.socket) -> None:
        replica.settimeout(ANSWER_S)
        try:
            wanted = replica.recv(_MOST).decode("utf-8", "replace").rstrip("\n")
            if wanted == self.application:
                self._told_idle[replica] = False
                answer = json.dumps({"prefix": self.prefix}).encode()
                socket.send_fds(replica, [answer], [self.listener.fileno()])
                self._selector.register(replica, selectors.EVENT_READ)
                return
        except OSError:
            self._told_idle.pop(replica, None)
        replica.close()

    def _hear(self, replica: socket.socket) -> None:
        try:
            told = replica.recv(_MOST)
        except OSError:
            told = b""
        if told:
            self._told_idle[replica] = True
            return
        self._selector.unregister(replica)
        del self._told_idle[replica]
        replica.close()


class Door:
    """The port as a replica gets it.

    Attributes:
        listener: Its copy of the listening socket.
        prefix: Route prefix of its application.
    """

    def __init__(self, listener: socket.socket, prefix: str, launcher: socket.socket) -> None:
        self.listener = listener
        self.prefix = prefix
        self._launcher = launcher

    def tell_idle(self) -> None:
        """Tell the launcher that this replica stops and has no request left."""
        with suppress(OSError):  # the launcher has ended
            self._launcher.sendall(_IDLE)

    def close(self) -> None:
        """End the connection to the launcher; the listener stays open."""
        self._launcher.close()


def knock(path: str, application: str) -> Door | None:
    """Ask the launcher for the public port.

    Args:
        path: The launcher's Unix socket.
        application: Name of this replica's application.

    Returns:
        The port; None where the application is not served on it.

    Raises:
        OSError: the launcher does not answer.
    """
    launcher = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        launcher.settimeout(ANSWER_S)
        launcher.connect(path)
        launcher.sendall(f"{application}\n".encode())
        answer, files, _, _ = socket.recv_fds(launcher, _MOST, 1)
    except OSError:
        launcher.close()
        raise
    if not files:
        launcher.close()
        return None
    return Door(socket.socket(fileno=files[0]), json.loads(answer)["prefix"], launcher)
