"""Runs the test tiers one after another and sums them up.

    python -P tests/run_tiers.py [TIER ...] [-- PYTEST_ARGUMENT ...]

Without a name: every tier but gpu. A test that bears several tiers' markers runs once, in the
last of its tiers. The last line counts all tiers; the exit code is 1 where any tier failed.

The whole default tier runs in two processes; a part of it, which PYTEST_ARGUMENTs name, in one.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
MARKED = ("ray", "engine", "rl", "browser", "gpu", "e2e")
TIERS = ("default", *MARKED)
ON_REQUEST = ("gpu",)
WORKERS = ("-n", "2", "--dist", "loadfile")
"""Of the default tier: the others start programs that fill the machine by themselves."""

NO_TESTS = 5  # pytest's exit code where nothing was collected


@dataclass(frozen=True)
class Outcome:
    """What one tier came to; a tier that broke before its tests counts as one failure."""

    tier: str
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __str__(self) -> str:
        if not self.passed + self.failed + self.skipped:
            return f"{self.tier:<8} no tests"
        counts = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        return f"{self.tier:<8} {counts} in {self.seconds:.1f} s"


def expression(tier: str) -> str:
    """Return pytest's -m expression of a tier."""
    if tier == "default":
        return " and ".join(f"not {marker}" for marker in MARKED)
    later = MARKED[MARKED.index(tier) + 1 :]
    return " and ".join((tier, *(f"not {marker}" for marker in later)))


def parallel(tier: str, arguments: Sequence[str]) -> bool:
    """Say whether a tier runs in several processes: to start them is dear for a part of it."""
    return tier == "default" and not arguments


def run(tier: str, arguments: Sequence[str]) -> Outcome:
    """Run one tier in a process of its own; its output goes straight to the terminal."""
    print(f"== {tier}", flush=True)
    begin = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-P", "-m", "pytest", "-q", "--tb=short", "-m"]
        command += [expression(tier), f"--junit-xml={report}", *arguments]
        environment = dict(os.environ)
        if parallel(tier, arguments):
            command += WORKERS
            environment.setdefault("OMP_NUM_THREADS", "1")  # a core for each process
        code = subprocess.run(command, cwd=ROOT, check=False, env=environment).returncode
        seconds = time.perf_counter() - begin
        if code == NO_TESTS:
            return Outcome(tier, seconds)
        return outcome(tier, seconds, code, report)


def outcome(tier: str, seconds: float, code: int, report: Path) -> Outcome:
    """Count a finished tier by pytest's JUnit report, which a crash may have left unwritten."""
    passed = failed = skipped = 0
    if report.is_file():
        for suite in ElementTree.parse(report).iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            failed += bad
            skipped += int(suite.get("skipped", 0))
            passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    return Outcome(tier, seconds, max(passed, 0), failed or int(code != 0), skipped)


def main(arguments: Sequence[str]) -> int:
    """Run the tiers named (all but those on request where none is), print the sums."""
    tiers, further = list(arguments), []
    if "--" in tiers:
        cut = tiers.index("--")
        tiers, further = tiers[:cut], tiers[cut + 1 :]
    unknown = [tier for tier in tiers if tier not in TIERS]
    if unknown:
        print(f"no tier is named {', '.join(unknown)}; there are: {', '.join(TIERS)}")
        return 2
    chosen = tiers or [tier for tier in TIERS if tier not in ON_REQUEST]
    outcomes = [run(tier, further) for tier in chosen]
    print("\n== tiers")
    for one in outcomes:
        print(one)
    print(f"total    {sum(one.seconds for one in outcomes):.1f} s")
    failed = sum(one.failed for one in outcomes)
    passed, skipped = sum(o.passed for o in outcomes), sum(o.skipped for o in outcomes)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
