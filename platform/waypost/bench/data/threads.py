"""Plain ways of asking, as a process of its own: a pool of threads, or one call after another.

``python -m waypost.bench.data.threads --port P --calls 6400 --threads 64``. One thread is how
LLMRouter asks: ``route_batch`` calls its LLM for one query of the batch, waits, and takes the
next. Each thread keeps one connection open; http.client costs less than any library on top of it.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import local

from waypost.bench.data.questions import MAX_TOKENS, MODEL, question


def ask(port: int, calls: int, threads: int) -> int:
    """Ask that many questions; return the characters of the answers."""
    mine = local()
    opened: list[http.client.HTTPConnection] = []

    def one(number: int) -> int:
        if not hasattr(mine, "connection"):
            mine.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            opened.append(mine.connection)
        message = {"role": "user", "content": question(number)}
        body = {"model": MODEL, "messages": [message], "max_tokens": MAX_TOKENS, "temperature": 0}
        head = {"content-type": "application/json"}
        mine.connection.request("POST", "/v1/chat/completions", json.dumps(body), head)
        reply = json.loads(mine.connection.getresponse().read())
        return len(reply["choices"][0]["message"]["content"])

    with ThreadPoolExecutor(threads) as pool:
        characters = sum(pool.map(one, range(calls)))
    for connection in opened:
        connection.close()
    return characters


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--port", "--calls", "--threads"):
        parser.add_argument(name, type=int, required=True)
    given = parser.parse_args()
    json.dump({"characters": ask(given.port, given.calls, given.threads)}, sys.stdout)
