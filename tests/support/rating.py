"""Clients that ask a gateway and rate its answers, without a pause, while things are killed."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import requests

from support.gateway import chat

_IN_TIME_S = 240.0
_UNKNOWN = 404


def rate(
    url: str, request_id: str, over: threading.Event | None = None
) -> dict[str, object] | None:
    """Send a rating until a gateway takes it, as a client does.

    Returns the answer; None where the request is not known, for its gateway was killed before its
    record was written, or where ``over`` is set meanwhile.
    """
    body = {"request_id": request_id, "rating": 0.5, "idempotency_key": f"k-{request_id}"}
    deadline = time.monotonic() + _IN_TIME_S
    while over is None or not over.is_set():
        try:
            reply = requests.post(f"{url}/v1/feedback", json=body, timeout=15)
        except requests.RequestException:  # the port is held while no gateway is behind it
            pass
        else:
            if reply.status_code == _UNKNOWN:
                return None
            if reply.status_code < 500:
                assert reply.status_code == 200, reply.text
                return reply.json()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return None


class Raters:
    """Clients that ask and rate during the block.

    Attributes:
        acknowledged: Requests whose rating was acknowledged.
    """

    def __init__(self, url: str, clients: int = 4) -> None:
        self.acknowledged: list[str] = []
        self._url = url
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        self._failures: list[AssertionError] = []

    def _run(self) -> None:
        try:
            while not self._over.is_set():
                try:
                    answer = requests.post(
                        f"{self._url}/v1/chat/completions", json=chat(), timeout=15
                    )
                except requests.RequestException:
                    continue
                request_id = answer.headers["x-waypost-request-id"]
                if answer.status_code != 200:
                    continue
                if rate(self._url, request_id, self._over) is not None:
                    self.acknowledged.append(request_id)
        except AssertionError as error:
            self._failures.append(error)

    def over(self) -> None:
        """Make the clients end once they have their answers, without waiting for it."""
        self._over.set()

    def until(self, further: int) -> None:
        """Wait until so many further ratings are acknowledged.

        Raises:
            AssertionError: a gateway refused one, or it takes too long.
        """
        wanted, deadline = len(self.acknowledged) + further, time.monotonic() + _IN_TIME_S
        while len(self.acknowledged) < wanted:
            assert not self._failures, self._failures
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def __enter__(self) -> Raters:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        assert error is not None or not self._failures, self._failures
