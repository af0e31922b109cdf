"""Groups of tests that run in one process, and their order, where a tier runs in two processes.

Tests of the ray tier that share a Ray are a group; elsewhere a file is one.

Groups are derived from test ids and not from the marker `xdist_group`, which pytest-xdist 3.8 does
not see under pytest 9.2.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath

import pytest

GROUPS = {
    "ray": (
        "test_bench_rounds", "test_bench_tuned", "test_evaluate_live", "test_registry_ray",
        "test_responses",
        "test_tune_ray", "test_tune_resume", "test_verdicts_run",
    ),
    "plain": (
        "test_handle_pool", "test_load_changes", "test_serve_ray", "test_serve_way",
        "test_serve_ways", "test_served_chat", "test_served_feedback", "test_served_prometheus",
        "test_served_routers",
    ),
    "throughput": ("test_load_soak",),
    "keys": ("test_served_hostile", "test_served_schema"),
    "continuing": ("test_continuing",),
    "learning": ("test_learning",),
    "vllm": ("test_engine_vllm_environments",),
    "fine-tuning": ("test_causallm_router",),
    "generating": ("test_load_generating",),
    "quick start": ("test_quick_start",),
    # while the quick start keeps the cores busy, what mostly waits; then vLLM
    "humaneval": ("test_sandbox_humaneval",),
    "extras": ("test_extras",),
    "vllm pool": ("test_vllm_pool",),
}  # fmt: skip
"""Group -> files that share `ray_here`, or `served` in one mode or with keys; then the files of
other tiers that take longest. Sorted by time, so that two processes end at about the same time."""

MODES = re.compile(r"\[.*\b(plain|throughput)\b.*\]$")
"""Pattern of test ids in files that serve in several modes."""


def group(test: str) -> str:
    """Return the group of a test id; a file that shares no Ray is its own group."""
    path, _, name = test.partition("::")
    stem = PurePosixPath(path).stem
    found = next((group for group, files in GROUPS.items() if stem in files), None)
    mode = MODES.search(name) if "serve" in path else None
    return found or (mode[1] if mode else path)


def place(test: str) -> int:
    """Return the sort key of a test's group; files in no group come last, in their order."""
    return list(GROUPS).index(found) if (found := group(test)) in GROUPS else len(GROUPS)


def scheduler(config: pytest.Config, log: object) -> object:
    """Return a scheduler of pytest-xdist that hands out group by group."""
    # imported here: some tests run in the environments of engines, which have no pytest-xdist
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return group(nodeid)

    return Scheduling(config, log)
