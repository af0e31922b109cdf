"""The clients that `data` compares. Each runs in its own process.

``python -m waypost.bench._asking --port P --calls 6400 --in-flight 64`` runs a thread pool. One
thread corresponds to LLMRouter, whose ``route_batch`` calls the LLM for one query after another.
Each thread keeps one connection open. It uses http.client, which takes less CPU time than
libraries on top of it. With ``--folder DIR`` it runs ``waypost data responses`` on its own Ray.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import local

MODEL = "bench"
MAX_TOKENS = 16
ANSWER = "The answer is 7."
_STORY = (
    "A train leaves a town in the morning and stops at every station on its way to the coast, "
    "where some passengers get on and some get off; the conductor counts them at each stop and "
    "writes the number down. How many passengers are on board after the last stop but one?"
)


def question(number: int) -> str:
    """Return a question of about 300 characters, different for each number; its answer is 7."""
    return f"Question {number}. {_STORY}"


def ask(port: int, calls: int, threads: int) -> int:
    """Ask ``calls`` questions from ``threads`` threads; return the characters of the answers."""
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


class _Store:
    """A watcher of the run that keeps the peak use of Ray's object store, in bytes."""

    def __init__(self) -> None:
        self.most = 0.0

    def __call__(self, states: Sequence[object], seconds: float) -> None:
        import ray

        have, free = ray.cluster_resources(), ray.available_resources()
        taken = have.get("object_store_memory", 0.0) - free.get("object_store_memory", 0.0)
        self.most = max(self.most, taken)


def _write_run(folder: Path, port: int, calls: int, in_flight: int) -> Path:
    """Write questions (`waypost.contracts.questions`) and config; return the config's path."""
    import yaml

    (folder / "data").mkdir(parents=True)
    with (folder / "data" / "queries_train.jsonl").open("w", encoding="utf-8") as file:
        for number in range(calls):
            row = {
                "query_id": f"q{number}",
                "task_name": "bench",
                "query": question(number),
                "ground_truth": "7",
                "metric": "number",
                "max_tokens": MAX_TOKENS,
            }
            file.write(json.dumps(row) + "\n")
    llm = {
        "engine": "openai",
        "config": {"base_url": f"http://127.0.0.1:{port}/v1", "model": MODEL},
        "concurrency": in_flight,
        "input_price": 0.1,
        "output_price": 0.2,
    }
    encoder = {"kind": "hashing", "dimension": 32}  # cheap: the bench does not measure embeddings
    config = folder / "data.yaml"
    run = {"out": "data", "encoder": encoder, "llms": {"bench": llm}}
    config.write_text(yaml.safe_dump(run), encoding="utf-8")
    return config


def respond(folder: Path, port: int, calls: int, in_flight: int) -> dict[str, object]:
    """Run ``waypost data responses``; return unanswered cells and the store's peak use in MB."""
    from waypost.pipelines.data.responses import run

    store = _Store()
    summary = run(_write_run(folder, port, calls, in_flight), watcher=store)
    return {"unanswered": sum(summary.unanswered.values()), "store_mb": store.most / 1e6}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--port", "--calls", "--in-flight"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.folder is None:
        found: dict[str, object] = {"characters": ask(given.port, given.calls, given.in_flight)}
    else:
        found = respond(given.folder, given.port, given.calls, given.in_flight)
    json.dump(found, sys.stdout)
