"""Print what jobs and images need of a lock in requirements.

main: the base and the extras data, train and tune. router-r1: what trains Router-R1 with the
sampler of transformers, without vLLM and what its engine needs. Ray itself is left out of both: a
cluster brings its own, of the same version. The images of k8s/images bring it; that of the gateway
has nothing that only engines of its process and other encoders need. Run where the lock is
installed:

    .venv/bin/python -P requirements/lock_jobs.py main > requirements/jobs.txt
    .venv-router-r1/bin/python -P requirements/lock_jobs.py router-r1 > requirements/rl_jobs.txt
    .venv/bin/python -P requirements/lock_jobs.py images/gateway > k8s/images/gateway.txt
"""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
LOCK = {
    "images/gateway": "main",
    "images/cpu-llm": "main",
    "images/trainer": "main",
    "images/router-r1": "router-r1",
}
"""The lock of a list, where it has another name."""
EXTRAS = {
    "main": ("data", "train", "tune"),
    "router-r1": ("router-r1",),
    "images/gateway": ("serve",),
    "images/cpu-llm": ("serve",),
    "images/trainer": ("serve", "data", "train", "tune"),
    "images/router-r1": ("router-r1",),
}
# torch, and what is of use with it or with other encoders than the static ones
HEAVY = {
    "torch", "transformers", "accelerate", "gguf", "huggingface-hub", "onnxruntime", "faiss-cpu",
    "model2vec", "skeletoken", "llguidance",
}  # fmt: skip
LEFT_OUT = {"router-r1": {"vllm", "llguidance"}, "images/gateway": HEAVY}
# also where something that is needed asks for it
OF_THE_CLUSTER = {"main": {"ray"}, "router-r1": {"ray"}}


def needed(roots: list[str]) -> set[str]:
    """Return the canonical names of these requirements and of all that they need here."""
    found: set[str] = set()
    seen: set[tuple[str, str]] = set()
    open_ends = [Requirement(text) for text in roots]
    while open_ends:
        one = open_ends.pop()
        name = canonicalize_name(one.name)
        found.add(name)
        for extra in ("", *sorted(one.extras)):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for text in requires(name) or ():
                below = Requirement(text)
                if below.marker is None or below.marker.evaluate({"extra": extra}):
                    open_ends.append(below)
    return found


def lines(lock: str) -> list[str]:
    """Return the lines of a lock that jobs or an image need, without its header."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    roots = [*project["dependencies"]]
    roots += [text for name in EXTRAS[lock] for text in project["optional-dependencies"][name]]
    names = needed([one for one in roots if Requirement(one).name not in LEFT_OUT.get(lock, ())])
    names -= OF_THE_CLUSTER.get(lock, set())
    whole = ROOT / "requirements" / f"{LOCK.get(lock, lock)}.txt"
    locked = whole.read_text(encoding="utf-8").splitlines()
    return [line for line in locked if canonicalize_name(line.partition("==")[0]) in names]


if __name__ == "__main__":
    name = sys.argv[1]
    sys.stdout.write(f"# Made by `make lock` from {LOCK.get(name, name)}.txt; do not edit.\n")
    sys.stdout.writelines(f"{line}\n" for line in lines(name))
