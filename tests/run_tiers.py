"""Runs the test tiers and sums them up.

    python -P tests/run_tiers.py [--long] [TIER ...] [-- PYTEST_ARGUMENT ...]

Without a name: every tier but gpu. A test that bears several tiers' markers runs once, in the
last of its tiers. The last line counts all tiers; the exit code is 1 where any tier failed.

The tier `kernels` repeats the numeric tests of the default tier, those of the folders in NUMERIC,
with a BLAS kernel that this processor has and does not use by itself. A processor without a second
kernel leaves the tier out.

Whole tiers run in several processes, those of WORKERS; a part of a tier, which PYTEST_ARGUMENTs
name, runs in one. The tiers of BESIDE compute at low priority while another tier waits; what they
print follows when both have ended.
"""

from __future__ import annotations

import compileall
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
MARKED = ("ray", "engine", "rl", "browser", "gpu", "e2e")
TIERS = ("default", "kernels", *MARKED)
ON_REQUEST = ("gpu",)
LONG = "long"
"""Marker of the tests that run by themselves: `make test-long`."""
WORKERS = {
    # a sixth of its time are waits
    "default": ("-n", "3", "--dist", "loadfile"),
    "kernels": ("-n", "2", "--dist", "loadfile"),
    # the scopes are those of tests/support/ray_groups.py, in their order; much of ray waits
    "ray": ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"),
    "engine": ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"),
    "rl": ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"),
    "e2e": ("-n", "2", "--dist", "loadscope", "--no-loadscope-reorder"),
}
"""Of the tiers that run in several processes; the others fill the machine by themselves."""

BESIDE = {"kernels": "ray"}
"""Tiers that run beside another one. They compute, and no test of theirs depends on the time."""

LOW_PRIORITY = ("nice", "-n", "10")

NUMERIC = (
    "tests/routers",
    *(f"tests/platform/{of}" for of in ("encoders", "metrics", "tune")),
)
"""What computes: the tier kernels repeats the tests of these folders."""

ENVIRONMENTS = {"rl": ".venv-router-r1-cpu"}
"""Of the tiers that run in another environment than this one; `make test-environments` makes it."""

ELSEWHERE = ("-o", "filterwarnings=", "-p", "no:cacheprovider")
"""Options of pytest in another environment: what its libraries warn of is not ours to mend."""

SOURCES = ("platform", "routers", "rl", "tests/support")
"""Folders of the modules that programs of the tests import."""

NO_TESTS = 5  # pytest's exit code where nothing was collected
SLOWEST = 15
AT_LEAST_S = 0.5
"""Tests that take less are not listed among the slowest of a tier."""


@dataclass(frozen=True)
class Kernel:
    """A set of OpenBLAS kernels that a processor may have.

    Attributes:
        name: As OPENBLAS_CORETYPE takes it.
        flags: What the processor must have for it, in the words of /proc/cpuinfo.
        alike: Names of kernels that multiply with the same instructions, in lower case.
        variables: The same choice for torch's own kernels, MKL and oneDNN.
    """

    name: str
    flags: frozenset[str]
    alike: frozenset[str]
    variables: dict[str, str]


_AVX512 = frozenset({"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"})
KERNELS = (
    Kernel(
        "Haswell",
        frozenset({"avx2", "fma"}),
        frozenset({"haswell", "zen", "excavator"}),
        {
            "ATEN_CPU_CAPABILITY": "avx2",
            "MKL_ENABLE_INSTRUCTIONS": "AVX2",
            "ONEDNN_MAX_CPU_ISA": "AVX2",
        },
    ),
    Kernel("SkylakeX", _AVX512, frozenset({"skylakex", "cooperlake", "sapphirerapids"}), {}),
    Kernel(
        "Sandybridge",
        frozenset({"avx"}),
        frozenset({"sandybridge"}),
        {
            "ATEN_CPU_CAPABILITY": "default",
            "MKL_ENABLE_INSTRUCTIONS": "AVX",
            "ONEDNN_MAX_CPU_ISA": "AVX",
        },
    ),
    Kernel("ARMV8", frozenset({"asimd"}), frozenset({"armv8"}), {}),
)
"""In the order in which a second one is looked for."""


def second_kernel(in_use: str, flags: Collection[str]) -> Kernel | None:
    """Return kernels that the processor has beside those in use; None where there are none.

    Args:
        in_use: What OpenBLAS chose, as threadpoolctl calls it; empty where there is no OpenBLAS.
        flags: Of the processor.
    """
    if not in_use:
        return None
    fit = (one for one in KERNELS if one.flags <= set(flags) and in_use.lower() not in one.alike)
    return next(fit, None)


def kernel_in_use() -> str:
    """Return which kernels OpenBLAS takes in a new process of this environment."""
    code = "import json, numpy, threadpoolctl; print(json.dumps(threadpoolctl.threadpool_info()))"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    found = (one for one in json.loads(said.stdout) if one["internal_api"] == "openblas")
    return str(next(found, {}).get("architecture", ""))


def processor_flags() -> frozenset[str]:
    """Return the instruction sets of this processor; none where the system does not tell."""
    path = Path("/proc/cpuinfo")
    if platform.system() != "Linux" or not path.is_file():
        return frozenset()
    for line in path.read_text(encoding="utf-8").splitlines():
        name, _, values = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(values.split())
    return frozenset()


@dataclass(frozen=True)
class Outcome:
    """What one tier came to; a tier that broke before its tests counts as one failure."""

    tier: str
    seconds: float
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    slowest: tuple[tuple[float, str], ...] = ()

    def __str__(self) -> str:
        if not self.passed + self.failed + self.skipped:
            return f"{self.tier:<8} no tests"
        counts = f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"
        return f"{self.tier:<8} {counts} in {self.seconds:.1f} s"


def expression(tier: str, long: bool = False) -> str:
    """Return pytest's -m expression of a tier: of its long tests, or of all others."""
    which = LONG if long else f"not {LONG}"
    if tier in ("default", "kernels"):
        return " and ".join((*(f"not {marker}" for marker in MARKED), which))
    later = MARKED[MARKED.index(tier) + 1 :]
    return " and ".join((tier, *(f"not {marker}" for marker in later), which))


def files(tier: str) -> list[str]:
    """Return the test files and folders that a tier's tests are in; none means all.

    Of a tier with a marker these are the files in which the marker stands: to import all test files
    takes longer than some tiers' tests.
    """
    if tier not in MARKED:
        return [one for one in NUMERIC if tier == "kernels" and (ROOT / one).is_dir()]
    marker = re.compile(rf"\bmark\.{tier}\b")
    found = sorted((ROOT / "tests").rglob("test_*.py"))
    return [
        str(path.relative_to(ROOT))
        for path in found
        if marker.search(path.read_text(encoding="utf-8"))
    ]


def parallel(tier: str, arguments: Sequence[str]) -> bool:
    """Say whether a tier runs in several processes: to start them is dear for a part of it."""
    return tier in WORKERS and not arguments


def interpreter(tier: str) -> Path:
    """Return the Python of a tier's environment."""
    if tier in ENVIRONMENTS:
        return ROOT / ENVIRONMENTS[tier] / "bin" / "python"
    return Path(sys.executable)


def variables(
    tier: str, arguments: Sequence[str], output: TextIO | None = None
) -> dict[str, str] | None:
    """Return the environment of a tier; None where this processor cannot run it."""
    environment = dict(os.environ)
    if tier == "kernels":
        kernel = second_kernel(kernel_in_use(), processor_flags())
        if kernel is None:
            return None
        print(f"with kernels for {kernel.name}", file=output, flush=True)
        environment |= {"OPENBLAS_CORETYPE": kernel.name, **kernel.variables}
    if parallel(tier, arguments):
        environment.setdefault("OMP_NUM_THREADS", "1")  # a core for each process
    return environment


def run(
    tier: str, arguments: Sequence[str], long: bool = False, output: TextIO | None = None
) -> Outcome:
    """Run one tier in a process of its own.

    Args:
        tier: Name of the tier.
        arguments: Of pytest; none for the whole tier.
        long: Whether the long tests run, and not all others.
        output: File of what is said, of a tier that runs beside another one at low priority; None
            is the terminal.
    """
    print(f"== {tier}", file=output, flush=True)
    begin = time.perf_counter()
    environment = variables(tier, arguments, output)
    if environment is None:
        print("left out: this processor has no second BLAS kernel", file=output, flush=True)
        return Outcome(tier, time.perf_counter() - begin)
    python = interpreter(tier)
    if not python.is_file():
        missing = f"{python} does not exist; make it: make test-environments"
        print(missing, file=output, flush=True)
        return Outcome(tier, time.perf_counter() - begin, failed=1)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = list(LOW_PRIORITY) if output is not None else []
        command += [str(python), "-P", "-m", "pytest", "-q", "--tb=short", "-m"]
        command += [expression(tier, long), f"--junit-xml={report}", *arguments]
        if tier in ENVIRONMENTS:
            command += ELSEWHERE
        if parallel(tier, arguments):
            command += WORKERS[tier]
        if not arguments:
            taken = files(tier)
            if tier in MARKED and not taken:
                return Outcome(tier, time.perf_counter() - begin)
            command += taken
        code = subprocess.run(
            command, cwd=ROOT, check=False, env=environment, stdout=output, stderr=output
        ).returncode
        seconds = time.perf_counter() - begin
        if code == NO_TESTS:
            return Outcome(tier, seconds)
        return outcome(tier, seconds, code, report)


def run_all(tiers: Sequence[str], arguments: Sequence[str], long: bool = False) -> list[Outcome]:
    """Run tiers in turn, and those of BESIDE at the same time as theirs; return them in order."""
    whole = not arguments and not long
    beside = {one: of for one, of in BESIDE.items() if whole and one in tiers and of in tiers}
    found: dict[str, Outcome] = {}
    for tier in (one for one in tiers if one not in beside):
        with tempfile.TemporaryFile("w+") as said, ThreadPoolExecutor() as other:
            begun = {
                one: other.submit(run, one, arguments, long, said)
                for one, of in beside.items()
                if of == tier
            }
            found[tier] = run(tier, arguments, long)
            found |= {one: future.result() for one, future in begun.items()}
            said.seek(0)
            print(said.read(), end="", flush=True)
    return [found[tier] for tier in tiers]


def outcome(tier: str, seconds: float, code: int, report: Path) -> Outcome:
    """Count a finished tier by pytest's JUnit report, which a crash may have left unwritten."""
    passed = failed = skipped = 0
    took: list[tuple[float, str]] = []
    if report.is_file():
        tree = ElementTree.parse(report)
        for case in tree.iter("testcase"):  # its time is that of its fixtures, too
            name = f"{case.get('classname', '')}::{case.get('name', '')}"
            took.append((float(case.get("time", 0)), name))
        for suite in tree.iter("testsuite"):
            bad = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            failed += bad
            skipped += int(suite.get("skipped", 0))
            passed += int(suite.get("tests", 0)) - bad - int(suite.get("skipped", 0))
    slowest = tuple(sorted((one for one in took if one[0] >= AT_LEAST_S), reverse=True)[:SLOWEST])
    return Outcome(tier, seconds, max(passed, 0), failed or int(code != 0), skipped, slowest)


def compile_sources() -> None:
    """Write the bytecode of our modules, each of which hundreds of processes import.

    Where PYTHONDONTWRITEBYTECODE is set, as in many containers, each would compile them anew.
    """
    for folder in SOURCES:
        compileall.compile_dir(ROOT / folder, quiet=1)


def main(arguments: Sequence[str]) -> int:
    """Run the tiers named (all but those on request where none is), print the sums."""
    tiers, further = list(arguments), []
    if "--" in tiers:
        cut = tiers.index("--")
        tiers, further = tiers[:cut], tiers[cut + 1 :]
    long = f"--{LONG}" in tiers
    tiers = [tier for tier in tiers if tier != f"--{LONG}"]
    unknown = [tier for tier in tiers if tier not in TIERS]
    if unknown:
        print(f"no tier is named {', '.join(unknown)}; there are: {', '.join(TIERS)}")
        return 2
    chosen = tiers or [tier for tier in TIERS if tier not in ON_REQUEST]
    compile_sources()
    begin = time.perf_counter()
    outcomes = run_all(chosen, further, long)
    total_s = time.perf_counter() - begin
    for one in outcomes:
        if one.slowest:
            print(f"\n== {one.tier}: slowest tests")
            print("\n".join(f"{test_s:7.1f} s  {name}" for test_s, name in one.slowest))
    print("\n== tiers")
    for one in outcomes:
        print(one)
    print(f"total    {total_s:.1f} s")
    failed = sum(one.failed for one in outcomes)
    passed, skipped = sum(o.passed for o in outcomes), sum(o.skipped for o in outcomes)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
