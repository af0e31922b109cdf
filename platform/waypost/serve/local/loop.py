"""Event loops: the one that serves, and one in a thread for callers without one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from concurrent.futures import CancelledError
from typing import Any, TypeVar

from waypost.contracts.errors import NotStartedError

T = TypeVar("T")

ENDED = "the gateway was closed meanwhile"


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: uvloop's, as replicas of Ray Serve have, where it is installed."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


class LoopThread:
    """An event loop in a thread of its own, which ends with the process at the latest."""

    def __init__(self) -> None:
        self.loop = new_loop()
        self._lock = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="waypost-gateway", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            left = asyncio.all_tasks(self.loop)  # of libraries, such as Gradio's queue
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
            self.loop.run_until_complete(self.loop.shutdown_asyncgens())
            self.loop.run_until_complete(self.loop.shutdown_default_executor())
            self.loop.close()

    def call(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and return what it returns. An interruption here cancels it.

        Raises:
            NotStartedError: the loop has ended, or ends before the coroutine does.
        """
        with self._lock:  # what a loop gets after its end would never be answered
            if self._ended:
                work.close()
                raise NotStartedError(ENDED)
            future = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return future.result()
        except CancelledError:
            if self._ended:
                raise NotStartedError(ENDED) from None
            raise
        except BaseException:
            future.cancel()
            raise

    def end(self) -> None:
        """End loop and thread; calls that still wait are cancelled."""
        with self._lock:
            if not self._ended:
                self._ended = True
                self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
