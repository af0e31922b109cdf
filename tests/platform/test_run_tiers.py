"""The tier runner: which tests a tier takes, and how its report is counted."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType

import pytest

MARKERS = ("ray", "engine", "rl", "browser", "gpu", "e2e", "long")


@pytest.fixture(scope="module")
def runner(root: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("run_tiers", root / "tests" / "run_tiers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_the_default_tier_takes_what_bears_no_marker(runner: ModuleType) -> None:
    assert runner.expression("default") == (
        "not ray and not engine and not rl and not browser and not gpu and not e2e and not long"
    )


def test_a_long_test_is_in_no_tier_but_on_request(runner: ModuleType) -> None:
    flags = {marker: marker in {"ray", "long"} for marker in MARKERS}
    for long, tiers in ((False, []), (True, ["ray"])):
        found = [t for t in runner.TIERS if eval(runner.expression(t, long), {}, flags)]
        assert found == tiers


@pytest.mark.parametrize(
    ("borne", "tier"),
    [
        (set(), "default"),
        ({"ray", "engine"}, "engine"),
        ({"engine", "gpu"}, "gpu"),
        ({"ray", "engine", "e2e"}, "e2e"),
    ],
)
def test_a_test_runs_in_the_last_of_its_tiers_only(
    runner: ModuleType, borne: set[str], tier: str
) -> None:
    flags = {marker: marker in borne for marker in MARKERS}
    taking = [one for one in runner.TIERS if eval(runner.expression(one), {}, flags)]
    assert taking == [tier] + ["kernels"] * (tier == "default")  # of some folders, again


def test_only_whole_tiers_run_in_several_processes(runner: ModuleType) -> None:
    whole = [tier for tier in runner.TIERS if runner.parallel(tier, [])]
    assert whole == ["default", "kernels", "ray", "engine", "rl", "e2e"]
    assert not runner.parallel("default", ["tests/k8s"])


def test_only_files_with_a_tiers_marker_are_collected_and_all_of_its_tests(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take seconds
    folder = tmp_path / "tests" / "sub"
    folder.mkdir(parents=True)
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\naddopts = -p xdist.plugin\nmarkers =\n  e2e\n  engine\n"
    )
    (folder / "test_none.py").write_text("raise ImportError('markdown, benchmark.e2e')\n")
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    assert runner.files("e2e") == []
    assert str(runner.run("e2e", [])) == "e2e      no tests"
    (folder / "test_whole.py").write_text(
        "import pytest\npytestmark = [pytest.mark.engine, pytest.mark.e2e]\ndef test_it(): pass\n"
    )
    (folder / "test_one.py").write_text(
        "import pytest\n"
        "@pytest.mark.parametrize('n', [1, pytest.param(2, marks=pytest.mark.e2e)])\n"
        "def test_it(n): assert n == 2\n"
    )
    assert runner.files("e2e") == ["tests/sub/test_one.py", "tests/sub/test_whole.py"]
    assert runner.files("default") == []
    found = runner.run("e2e", [])
    assert (found.passed, found.failed, found.skipped) == (2, 0, 0)


@pytest.mark.parametrize(
    ("in_use", "flags", "expected"),
    [
        ("SkylakeX", "avx avx2 fma avx512f", "Haswell"),
        ("Zen", "avx avx2 fma", "Sandybridge"),
        ("Haswell", "avx avx2 fma avx512f avx512bw avx512cd avx512dq avx512vl", "SkylakeX"),
        ("Haswell", "avx avx2 fma avx512f", "Sandybridge"),
        ("Sandybridge", "avx", None),
        ("neoversen1", "fp asimd", "ARMV8"),
        ("", "avx avx2 fma", None),
    ],
)
def test_the_second_kernel_is_one_that_the_processor_has_and_does_not_use(
    runner: ModuleType, in_use: str, flags: str, expected: str | None
) -> None:
    found = runner.second_kernel(in_use, flags.split())
    assert (found.name if found else None) == expected


def test_the_tier_kernels_multiplies_with_another_kernel(runner: ModuleType) -> None:
    first = runner.kernel_in_use()
    environment = runner.variables("kernels", [])
    if environment is None:
        pytest.skip(f"this processor has no kernel beside {first or 'that of its own BLAS'}")
    code = "import runpy, sys; m = runpy.run_path(sys.argv[1]); print(m['kernel_in_use']())"
    said = subprocess.check_output(
        [sys.executable, "-c", code, runner.__file__], env=environment, text=True
    )
    assert said.strip() not in ("", first)


def test_a_processor_without_a_second_kernel_leaves_the_tier_out(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "processor_flags", lambda: frozenset({"fp"}))
    assert str(runner.run("kernels", [])) == "kernels  no tests"
    assert "no second BLAS kernel" in capsys.readouterr().out


def test_processes_of_one_core_each_are_counted_as_one_tier(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real plug-in, over files of each outcome: all processes' tests are in the report."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # the others take seconds
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -p xdist.plugin\n")
    (tmp_path / "test_one.py").write_text("def test_passes(): pass\ndef test_fails(): assert 0\n")
    (tmp_path / "test_two.py").write_text(
        "import os, pytest\n"
        "def test_core(): assert os.environ['OMP_NUM_THREADS'] == '1'\n"
        "def test_other(): assert os.environ['PYTEST_XDIST_WORKER_COUNT'] == '3'\n"
        "def test_skips(): pytest.skip('why not')\n"
    )
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    found = runner.run("default", [])
    assert (found.passed, found.failed, found.skipped) == (3, 1, 1)


def test_a_tier_that_computes_runs_beside_one_that_waits(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    at_once, order = threading.Barrier(2), []

    def run(tier, arguments, long=False, output=None):
        if tier in {"ray", "kernels"}:
            at_once.wait(60)  # each waits for the other
        print(f"of {tier}", file=output)
        order.append(tier)
        return runner.Outcome(tier, 1.0, passed=1)

    monkeypatch.setattr(runner, "run", run)
    tiers = ["default", "kernels", "ray", "engine"]
    assert [one.tier for one in runner.run_all(tiers, [])] == tiers
    assert order[0] == "default"
    assert order[3] == "engine"
    assert capsys.readouterr().out.split("\n") == [
        "of default", "of ray", "of kernels", "of engine", "",
    ]  # fmt: skip


def test_a_tier_that_runs_without_its_companion_or_in_part_runs_in_turn(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []

    def run(tier, arguments, long=False, output=None):
        order.append((tier, output))
        return runner.Outcome(tier, 1.0)

    monkeypatch.setattr(runner, "run", run)
    for tiers, arguments in ((["kernels", "default"], []), (["kernels", "ray"], ["tests/x"])):
        order.clear()
        runner.run_all(tiers, arguments)
        assert order == [(tier, None) for tier in tiers]


def test_our_modules_are_compiled_where_python_is_told_to_write_no_bytecode(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for folder in runner.SOURCES:
        (tmp_path / folder / "sub").mkdir(parents=True)
        (tmp_path / folder / "sub" / "mine.py").write_text("x = 1\n")
    runner.compile_sources()
    found = [path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("mine.*.pyc")]
    assert sorted(found) == sorted(Path(folder).parts[0] for folder in runner.SOURCES)


def report(folder: Path, **counts: int) -> Path:
    attributes = " ".join(f'{name}="{count}"' for name, count in counts.items())
    path = folder / "report.xml"
    path.write_text(f"<testsuites><testsuite {attributes}/></testsuites>", encoding="utf-8")
    return path


def test_the_slowest_tests_are_listed_by_all_of_their_time(
    runner: ModuleType, tmp_path: Path
) -> None:
    cases = "".join(
        f'<testcase classname="tests.test_{i}" name="test_it" time="{i / 2}"/>' for i in range(20)
    )
    path = tmp_path / "report.xml"
    path.write_text(f'<testsuites><testsuite tests="20">{cases}</testsuite></testsuites>')
    found = runner.outcome("ray", 60.0, 0, path).slowest
    assert found[0] == (9.5, "tests.test_19::test_it")
    assert [seconds for seconds, _ in found] == [9.5 - i / 2 for i in range(15)]


def test_errors_count_as_failed_and_the_rest_as_passed(runner: ModuleType, tmp_path: Path) -> None:
    path = report(tmp_path, tests=10, failures=1, errors=2, skipped=3)
    found = runner.outcome("ray", 1.5, 1, path)
    assert (found.passed, found.failed, found.skipped) == (4, 3, 3)
    assert str(found) == "ray      4 passed, 3 failed, 3 skipped in 1.5 s"


def test_a_tier_that_broke_without_a_report_has_failed(runner: ModuleType, tmp_path: Path) -> None:
    assert runner.outcome("ray", 1.0, 3, tmp_path / "none.xml").failed == 1


def test_a_broken_end_of_a_green_tier_has_failed(runner: ModuleType, tmp_path: Path) -> None:
    path = report(tmp_path, tests=2, failures=0, errors=0, skipped=0)
    assert runner.outcome("ray", 1.0, 3, path).failed == 1


def test_a_tier_without_tests_says_so(runner: ModuleType) -> None:
    assert str(runner.Outcome("rl", 0.4)) == "rl       no tests"


def test_an_unknown_tier_is_refused(runner: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["defualt"]) == 2
    assert "no tier is named defualt" in capsys.readouterr().out
