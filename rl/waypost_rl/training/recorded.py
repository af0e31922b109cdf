"""Answers of a pool, recorded in a file, so that nothing is asked twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from waypost.contracts.errors import StorageAccessError
from waypost_rl.training.parts import Ask, DelegatePool, Reply

logger = logging.getLogger(__name__)


class RecordablePool(DelegatePool, Protocol):
    """A pool whose answers depend on nothing but candidate, query and settings."""

    def settings_of(self, candidate: str) -> Mapping[str, Any]:
        """Return what an answer depends on besides the query: JSON data."""


class RecordedPool:
    """A pool that records the answers of another one and gives them back.

    An answer is found by candidate, query text and the other pool's settings. The file is
    append-only JSONL, a line an answer. A line is written in one piece before its answer is used,
    so a killed run loses at most the line it was writing, which is skipped. Failed calls are not
    recorded. Where one key is asked several times at once, it is sent once.

    All calls are made in one event loop. Two processes may append to one file, but do not see each
    other's new answers.

    Args:
        pool: Where an unknown query is sent. It is closed with this pool.
        path: The file; it is created with the first answer.

    Raises:
        StorageAccessError: The file cannot be read.
    """

    def __init__(self, pool: RecordablePool, path: Path) -> None:
        self.path = path
        self._pool = pool
        self._replies: dict[str, Reply] = {}
        self._running: dict[str, asyncio.Task[Reply]] = {}
        self._fd = -1
        self._torn = False
        self._read()

    def _read(self) -> None:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageAccessError(f"{self.path}: cannot be read: {error.strerror}") from None
        self._torn = bool(content) and not content.endswith(b"\n")
        lines = content.split(b"\n")
        skipped = 0
        for line in lines:
            if line:
                found = _parsed(line)
                skipped += found is None
                if found is not None:
                    self._replies[found[0]] = found[1]
        if skipped:
            logger.warning("%s: %d lines are no whole answers; skipped", self.path, skipped)

    def __len__(self) -> int:
        """Return the number of recorded answers."""
        return len(self._replies)

    async def ask(self, ask: Ask) -> Reply:
        """Return the recorded answer, or ask and record; see `DelegatePool.ask`.

        Raises:
            StorageAccessError: The answer cannot be written.
        """
        key = self._key(ask)
        if key in self._replies:
            return self._replies[key]
        task = self._running.get(key)
        if task is not None:
            reply = await asyncio.shield(task)
            return reply if reply.text is None else replace(reply, cached=True)
        task = self._running[key] = asyncio.create_task(self._send(key, ask))
        # A caller that is cancelled ends neither the call nor the waiting of others.
        return await asyncio.shield(task)

    async def close(self) -> None:
        """End what still runs; close the file and the other pool."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        await self._pool.close()

    def _key(self, ask: Ask) -> str:
        settings = dict(self._pool.settings_of(ask.candidate))
        data = json.dumps([ask.candidate, ask.query, settings], sort_keys=True)
        return hashlib.sha256(data.encode()).hexdigest()

    async def _send(self, key: str, ask: Ask) -> Reply:
        try:
            reply = await self._pool.ask(ask)
            if reply.text is not None:
                self._write(key, ask, reply)
                self._replies[key] = replace(reply, cached=True)
            return reply
        finally:
            del self._running[key]

    def _write(self, key: str, ask: Ask, reply: Reply) -> None:
        record = {
            "key": key,
            "candidate": ask.candidate,
            "query": ask.query,
            "text": reply.text,
            "input_tokens": reply.input_tokens,
            "output_tokens": reply.output_tokens,
        }
        data = memoryview((json.dumps(record) + "\n").encode("ascii"))
        try:
            if self._fd < 0:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
                if self._torn:
                    os.write(self._fd, b"\n")
                    self._torn = False
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise StorageAccessError(f"{self.path}: cannot be written: {error.strerror}") from None


def _parsed(line: bytes) -> tuple[str, Reply] | None:
    """Return key and reply of a line; None if it is not a whole record."""
    try:
        data = json.loads(line)
        key, text = data["key"], data["text"]
        tokens = data["input_tokens"], data["output_tokens"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not (isinstance(key, str) and isinstance(text, str)):
        return None
    if not all(type(count) is int and count >= 0 for count in tokens):
        return None
    return key, Reply(text, *tokens, cached=True)
