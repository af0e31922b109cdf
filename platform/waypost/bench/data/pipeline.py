"""``waypost data responses`` on made-up questions, as a process of its own with its own Ray.

``python -m waypost.bench.data.pipeline --port P --calls 6400 --in-flight 64 --folder DIR``
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from waypost.bench.data.questions import MODEL, write_questions


class _Store:
    """Most bytes that were taken of Ray's object store, as the run's watcher sees it."""

    def __init__(self) -> None:
        self.most = 0.0

    def __call__(self, states: Sequence[object], seconds: float) -> None:
        import ray

        have, free = ray.cluster_resources(), ray.available_resources()
        taken = have.get("object_store_memory", 0.0) - free.get("object_store_memory", 0.0)
        self.most = max(self.most, taken)


def write_run(folder: Path, port: int, calls: int, in_flight: int) -> Path:
    """Write questions and config of a run; returns the config's path."""
    (folder / "data").mkdir(parents=True)
    write_questions(folder / "data" / "queries_train.jsonl", calls)
    llm = {
        "engine": "openai",
        "config": {
            "base_url": f"http://127.0.0.1:{port}/v1",
            "model": MODEL,
        },
        "concurrency": in_flight,
        "input_price": 0.1,
        "output_price": 0.2,
    }
    config = folder / "data.yaml"
    encoder = {"kind": "hashing", "dimension": 32}  # embeddings are not what is measured
    run = {"out": "data", "encoder": encoder, "llms": {"bench": llm}}
    config.write_text(yaml.safe_dump(run), encoding="utf-8")
    return config


def main(folder: Path, port: int, calls: int, in_flight: int) -> dict[str, object]:
    """Run it; returns cells, unanswered ones, seconds, and the store's most use in MB."""
    from waypost.pipelines.data.responses import run

    store = _Store()
    summary = run(write_run(folder, port, calls, in_flight), watcher=store)
    return {
        "cells": summary.cells,
        "unanswered": sum(summary.unanswered.values()),
        "seconds": summary.seconds,
        "store_mb": store.most / 1e6,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--port", "--calls", "--in-flight"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    json.dump(main(**vars(parser.parse_args())), sys.stdout)
