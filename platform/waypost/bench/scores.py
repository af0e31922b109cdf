"""Compare the scorers with the test cases of Math-Verify and of lm-evaluation-harness.

The cases are read from the packages' source distributions, which pip downloads; nothing of them is
kept. Each case on which we differ has a verdict here: who is right, and why.

Example: waypost bench scores --package math-verify
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from waypost.bench import harness
from waypost.bench.harness import BenchError, Result, Table, Tell, at_most
from waypost.scorers.letters import letter_match
from waypost.scorers.maths import maths_match

PACKAGES = {"math-verify": "0.9.0", "lm-eval": "0.4.13"}
OURS, THEIRS, CHOICE = "we", "they", "a choice"

_COMMA = (CHOICE, "a comma separates thousands or values here; it is never a decimal point")
_GOLD = (CHOICE, "their ground truth is a whole solution; a data set here gives the value alone")

VERDICTS: dict[tuple[str, str, int], tuple[str, str]] = {
    ("test_all", "test_number_extraction", 5): _COMMA,
    ("test_all", "test_number_extraction", 6): _COMMA,
    ("test_all", "test_number_extraction", 7): _COMMA,
    ("test_all", "test_number_extraction", 17): _COMMA,
    ("test_all", "test_latex_notation", 5): (OURS, "a formula may begin on a new line"),
    ("test_all", "test_latex_notation", 6): (OURS, "a formula may begin on a new line"),
    ("test_all", "test_latex_notation_math", 2): _GOLD,
    ("test_all", "test_latex_notation_math", 3): _GOLD,
    ("test_all", "test_latex_notation_math", 4): _GOLD,
    ("test_all", "test_complex_math_expressions", 7): (
        CHOICE, "they round to two decimals there; we ask for six",
    ),
    ("test_all", "test_complex_math_expressions", 13): (
        CHOICE, "they round to four decimals there; we ask for six",
    ),
    ("test_all", "test_math_extraction_additional_cases", 24): (
        CHOICE, "a blank after the comma of thousands is a slip of the pen, not a second value",
    ),
    ("test_all", "test_set_rel_assymetry", 3): (
        OURS, "an interval and the inequality that says the same are equal, either way round",
    ),
    ("test_strict", "test_strict_variable_comparison", 1): (
        CHOICE, "they are lenient with names of variables there; we are not",
    ),
    ("test_yujianll", "test_string_extraction", 9): (
        OURS, "the sign differs; their parser stops at the upright e and keeps a part only",
    ),
}  # fmt: skip
"""(file, test, number of the case) -> who is right, and why."""


class Options(harness.Options):
    """Options of ``waypost bench scores``."""

    package: str | None = Field(
        None, description=f"Only the cases of this package.  [default: {' and '.join(PACKAGES)}]"
    )


QUICK: dict[str, Any] = {}


@dataclass(frozen=True)
class Case:
    """A case of a test suite.

    Attributes:
        package: Its distribution.
        file: Name of its file, without suffix.
        test: Name of the test.
        number: Its place in the test.
        metric: ``math`` or ``letter``.
        response: The answer to score.
        truth: The ground truth.
        expected: Whether the suite counts the answer as right.
        choices: Options of a multiple-choice question.
    """

    package: str
    file: str
    test: str
    number: int
    metric: str
    response: str
    truth: str
    expected: bool
    choices: tuple[dict[str, str], ...] = ()

    @property
    def key(self) -> tuple[str, str, int]:
        """File, test and number."""
        return self.file, self.test, self.number

    def agrees(self) -> bool:
        """Return whether our scorer says what the suite expects."""
        if self.metric == "letter":
            score = letter_match(self.response, self.truth, self.choices)
        else:
            score = maths_match(self.response, self.truth)
        return (score == 1.0) == self.expected


def run(options: Options, tell: Tell) -> Result:
    """Score every case.

    Returns:
        Figures: ``suites`` (package, file, cases, differ) and ``differences`` (package, file, test,
        number, right, why).

    Raises:
        BenchError: A source distribution cannot be downloaded.
    """
    wanted = [options.package] if options.package else list(PACKAGES)
    if unknown := set(wanted) - set(PACKAGES):
        raise BenchError(f"--package {unknown.pop()}: expected {' or '.join(PACKAGES)}")
    cases: list[Case] = []
    with tempfile.TemporaryDirectory(prefix="waypost-bench-") as folder:
        for package in wanted:
            version = PACKAGES[package]
            tell(f"reading the tests of {package} {version}")
            tests = download(package, version, Path(folder)) / "tests"
            cases += [
                case for file in sorted(tests.glob("test_*.py")) for case in read(file, package)
            ]
    tell(f"scoring {len(cases)} answers")
    differ = [case for case in cases if not case.agrees()]
    counts = Counter((case.package, case.file) for case in cases)
    wrong = Counter((case.package, case.file) for case in differ)
    suites = [
        {"package": package, "file": file, "cases": count, "differ": wrong[package, file]}
        for (package, file), count in counts.items()
    ]
    nobody = ("nobody knows yet", "no verdict in waypost.bench.scores")
    differences = [
        {"package": case.package, "file": case.file, "test": case.test, "number": case.number}
        | dict(zip(("right", "why"), VERDICTS.get(case.key, nobody), strict=True))
        for case in differ
    ]
    lacking = [one for one in differences if one["right"] == nobody[0]]
    read_files = {case.file for case in cases}
    stale = sorted({k for k in VERDICTS if k[0] in read_files} - {case.key for case in differ})
    failed = {f"{one['test']} {one['number']}": "differs without a verdict" for one in lacking}
    failed |= {
        f"{test} {number}": "has a verdict, but no longer differs" for _, test, number in stale
    }
    aims = [
        at_most("cases where they are right", sum(d["right"] == THEIRS for d in differences), 0),
    ]
    figures = {"suites": suites, "differences": differences}
    facts = "; ".join(f"{package} {version}" for package, version in PACKAGES.items())
    return Result(tables(figures), f"Cases of {facts}.", aims, figures, failed)


def tables(figures: dict[str, Any]) -> list[Table]:
    """Return the suites, and the cases on which we differ."""
    suites = [
        (s["package"], s["file"], str(s["cases"]), str(s["differ"])) for s in figures["suites"]
    ]
    differences = [
        (d["package"], f"{d['file']}: {d['test']}", str(d["number"]), d["right"], d["why"])
        for d in figures["differences"]
    ]
    return [
        Table("Cases and differences", ("package", "file", "cases", "differ"), suites),
        Table("Where we differ", ("package", "test", "case", "who is right", "why"), differences),
    ]


def download(package: str, version: str, folder: Path) -> Path:
    """Download and unpack a source distribution; return its folder.

    Raises:
        BenchError: pip fails.
    """
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:",
               "--no-build-isolation", f"--dest={folder}", f"{package}=={version}"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    archives = list(folder.glob(f"{package.replace('-', '_')}-*.tar.gz"))
    if done.returncode or not archives:
        raise BenchError(
            f"{package} {version}: pip cannot download its source: {done.stderr[-300:]}"
        )
    with tarfile.open(archives[0]) as archive:
        archive.extractall(folder, filter="data")
    return folder / archives[0].name.removesuffix(".tar.gz")


def read(file: Path, package: str) -> Iterator[Case]:
    """Yield the cases of a test file that our scorers can score; nothing of it is run."""
    for test in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(test, ast.FunctionDef):
            yield from _parametrized(test, file.stem, package)
            yield from _choices(test, file.stem, package)


def _parametrized(test: ast.FunctionDef, file: str, package: str) -> Iterator[Case]:
    for decorator in test.decorator_list:
        if not (isinstance(decorator, ast.Call) and len(decorator.args) == 2):
            continue
        named, listed = (_literal(arg) for arg in decorator.args)
        names = [one.strip() for one in named.split(",")] if isinstance(named, str) else named
        if not isinstance(listed, list) or not isinstance(names, list):
            continue
        for number, values in enumerate(listed):
            parts = values if len(names) > 1 else [values]
            row = dict(zip(names, parts if isinstance(parts, list | tuple) else (), strict=False))
            if (pair := _pair(test.name, row)) is not None:
                yield Case(package, file, test.name, number, "math", *pair)


def _pair(test: str, row: dict[str, Any]) -> tuple[str, str, bool] | None:
    """Return answer, ground truth and whether they are equal; None for what is no such case."""
    expected = row.get("expected", row.get("result", True))
    if isinstance(row.get("gold"), str) and isinstance(row.get("pred"), str):
        return row["pred"], row["gold"], bool(expected)
    if isinstance(row.get("x1"), str) and "different" in test:
        return row["x2"], row["x1"], False
    if isinstance(row.get("answer"), str) and "itself" in test:
        return row["answer"], row["answer"], True
    return None


def _choices(test: ast.FunctionDef, file: str, package: str) -> Iterator[Case]:
    """Yield the cases that assert a letter for an answer that names an option."""
    known: dict[str, Any] = {
        target.id: _literal(node.value)
        for node in ast.walk(test)
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    number = 0
    for node in ast.walk(test):
        if not (isinstance(node, ast.Assert) and isinstance(node.test, ast.Compare)):
            continue
        call, wanted = node.test.left, _literal(node.test.comparators[0])
        if not (isinstance(call, ast.Call) and len(call.args) == 2):
            continue
        said, about = (  # of any form: what does not fit is no such case
            known.get(arg.id, ()) if isinstance(arg, ast.Name) else _literal(arg)
            for arg in call.args
        )
        try:
            response, letter = said[0][0], str(wanted[0][0]).strip("()")
            texts = about[0]["choices"]
        except (TypeError, KeyError, IndexError, AttributeError):
            continue
        options = tuple({"label": chr(65 + i), "text": text} for i, text in enumerate(texts))
        yield Case(package, file, test.name, number, "letter", response, letter, True, options)
        number += 1


def _literal(node: ast.expr) -> Any:
    """Return the value of a literal; of ``pytest.param`` its values; None of anything else."""
    if isinstance(node, ast.List):
        return [_literal(one) for one in node.elts]
    if isinstance(node, ast.Call):
        values = [_literal(one) for one in node.args]
        return values[0] if len(values) == 1 else values
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
