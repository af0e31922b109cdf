"""A step router as a plug-in: a plan, two sub-questions at a time, and a merged answer."""

from __future__ import annotations

import json
from pathlib import Path

from waypost.contracts.records import LLMInfo
from waypost.contracts.tables import split_path, write_llms, write_routing_table

SOURCE = '''"""Plan, ask twice, merge."""

from waypost.contracts.records import Decision
from waypost.contracts.step_router import Call, Delegate, FinalAnswer, TrainableStepRouter


class Rounds(TrainableStepRouter):
    needs_embeddings = False

    def __init__(self, merger="cook", limit=16):
        self.merger = merger
        self.limit = limit

    def _fit(self, data):
        pass

    def route_single(self, query):
        return Decision("tiny", ("tiny", "cook"), router=self.name, router_version=self.version)

    def step(self, state):
        text = state.query.text
        if not state.steps:
            return Delegate((Call("cook", f"Plan: {text}", self.limit, purpose="plan"),))
        if len(state.steps) == 1:
            asked = (("tiny", "First"), ("cook", "Second"))
            return Delegate(
                tuple(Call(m, f"{p}: {text}", self.limit, purpose="step") for m, p in asked)
            )
        if len(state.steps) == 2:
            known = " and ".join(result.text or "missing" for result in state.steps[1])
            prompt = f"Merge: {text}: {known}"
            return Delegate((Call(self.merger, prompt, purpose="merge", final=True),))
        return FinalAnswer(None)
'''

PRICES = {"tiny": (1.0, 1.0), "cook": (10.0, 20.0)}
"""USD per million prompt and generated tokens."""


def write_plugin(folder: Path) -> Path:
    """Write the plug-in ``rounds`` below ``folder``; return the folder of plug-ins."""
    (folder / "plugins" / "rounds").mkdir(parents=True)
    (folder / "plugins" / "rounds" / "router.py").write_text(SOURCE)
    return folder / "plugins"


def write_sums(folder: Path, n: int) -> Path:
    """Write routing data of n sums in each split; the answer to sum k is k.

    Both LLMs answered 7, tiny within 1 s and cook within 2 s.
    """
    llms = [
        LLMInfo(name=name, size="1B", input_price=prices[0], output_price=prices[1])
        for name, prices in PRICES.items()
    ]
    for split in ("train", "test"):
        cells = [(k, llm.name) for k in range(n) for llm in llms]
        write_routing_table(
            split_path(folder, split),
            {
                "query_id": [f"{split}-{k}" for k, _ in cells],
                "task_name": ["sums"] * len(cells),
                "query": [f"What is {k} + 0 in {split}?" for k, _ in cells],
                "ground_truth": [str(k) for k, _ in cells],
                "metric": ["number"] * len(cells),
                "model_name": [name for _, name in cells],
                "response": ["It is 7"] * len(cells),
                "performance": [float(k == 7) for k, _ in cells],
                "input_tokens": [10] * len(cells),
                "output_tokens": [5] * len(cells),
                "cost_usd": [sum(PRICES[name]) * 5e-6 for _, name in cells],
                "latency_s": [1.0 if name == "tiny" else 2.0 for _, name in cells],
            },
        )
    write_llms(folder / "llms.json", llms)
    return folder


def write_pool(path: Path, url: str, **settings: object) -> Path:
    """Write the file of a data run whose LLMs are those of `write_sums`, at an endpoint.

    Args:
        path: The file.
        url: ``base_url`` of the endpoint.
        settings: Further keys of the file, and ``concurrency`` of each LLM.
    """
    concurrency = settings.pop("concurrency", 4)
    patient = {"max_retries": 0, "connect_timeout_s": 90.0, "first_token_timeout_s": 90.0}
    llms = {
        name: {
            "engine": "openai",
            "concurrency": concurrency,
            "config": {"base_url": url, "model": name} | patient,
            "input_price": prices[0],
            "output_price": prices[1],
        }
        for name, prices in PRICES.items()
    }
    path.write_text(json.dumps({"out": "data", "llms": llms, **settings}))
    return path
