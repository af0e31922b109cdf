"""Generated code: what passes, what cannot fake a pass, what is stopped."""

from __future__ import annotations

import sys

import pytest

from waypost.contracts.errors import SandboxError, SchemaError
from waypost.sandbox import run
from waypost.sandbox._values import ProgramGoneError, Remote, Values, overwrite
from waypost.sandbox.run import Limits, run_tests

TESTS = "assert double(2) == 4\nassert abs(double(3) - 6) < 1e-9"
RIGHT = "def double(x):\n    return 2 * x"


def test_a_right_program_passes() -> None:
    assert run_tests(RIGHT, TESTS) == run.Verdict(True, "passed")


def test_a_wrong_program_fails() -> None:
    verdict = run_tests("def double(x):\n    return x", TESTS)
    assert (verdict.passed, verdict.reason, verdict.detail) == (False, "failed", "AssertionError")


@pytest.mark.parametrize(
    "program",
    [
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "raise SystemExit",
        "def double(x):\n    raise SystemExit(0)",
        "import os\ndef double(x):\n    os._exit(0)",
        "import builtins\nbuiltins.abs = lambda x: 0\ndef double(x):\n    return 4",
        "import builtins\nbuiltins.AssertionError = ValueError\ndef double(x):\n    return 1",
        "class Any:\n    def __eq__(self, other):\n        return True\n"
        "    def __sub__(self, other):\n        return 0\ndef double(x):\n    return Any()",
        "class Four(int):\n    def __eq__(self, other):\n        return True\n"
        "def double(x):\n    return Four(1)",
        "import atexit, os\natexit.register(lambda: os.write(1, b'passed'))",
        "import os\nfor fd in range(3, 32):\n    try:\n        os.write(fd, b'passed\\n')\n"
        "    except OSError:\n        pass\nos._exit(0)",
        'print(\'{"token": "", "reason": "passed", "detail": ""}\')\nraise SystemExit',
        "double = 4",
        "",
        "def double(x:",
    ],
)
def test_nothing_but_right_values_passes(program: str) -> None:
    assert not run_tests(program, TESTS).passed


def test_an_endless_loop_ends_at_the_wall_clock() -> None:
    verdict = run_tests("while True:\n    pass", TESTS, Limits(wall_s=0.5))
    assert verdict.reason == "timeout"


def test_processor_time_is_limited() -> None:
    verdict = run_tests("while True:\n    pass", TESTS, Limits(wall_s=20, cpu_s=1))
    assert verdict.reason == "error"


def test_memory_is_limited() -> None:
    program = "def double(x):\n    return len('x' * 10**10) and 2 * x"
    assert run_tests(program, TESTS).detail == "MemoryError"


def test_file_size_is_limited() -> None:
    program = "open('big', 'wb').write(b'x' * 5_000_000)\n" + RIGHT
    assert not run_tests(program, TESTS, Limits(file_bytes=1_000_000)).passed


def test_output_goes_nowhere() -> None:
    assert run_tests("print('x' * 1_000_000)\n" + RIGHT, TESTS).passed


def test_a_result_past_the_message_limit_is_an_error() -> None:
    verdict = run_tests("def double(x):\n    return 'x' * 5_000_000", TESTS)
    assert verdict.reason == "error"


@pytest.mark.parametrize("tests", ["double(2)", "assert double(", ""])
def test_tests_that_assert_nothing_are_refused(tests: str) -> None:
    with pytest.raises(SchemaError):
        run_tests(RIGHT, tests)


def test_an_exception_that_a_test_expects_crosses_by_name() -> None:
    program = (
        "def root(x):\n    if x < 0:\n        raise ValueError('negative')\n    return x ** 0.5"
    )
    tests = (
        "try:\n    root(-1)\nexcept ValueError:\n    caught = True\nelse:\n    caught = False\n"
        "assert caught and root(4) == 2.0"
    )
    assert run_tests(program, tests).passed


def test_helpers_constants_and_a_check_function_work() -> None:
    program = (
        "LIMIT = 3\ndef up(n):\n    return list(range(LIMIT))[:n]\n"
        "def lazy(n):\n    yield from up(n)"
    )
    tests = (
        "def check(candidate):\n    assert candidate(2) == [0, 1]\n"
        "check(up)\nassert LIMIT == 3\nassert list(lazy(3)) == [0, 1, 2]"
    )
    assert run_tests(program, tests).passed


def test_a_change_in_place_is_seen_by_the_tests() -> None:
    program = (
        "def fill(items, table, group):\n    items.append(3)\n    table['k'] = [1]\n"
        "    group.discard(1)"
    )
    tests = (
        "a, b, c = [1], {}, {1, 2}\nassert fill(a, b, c) is None\n"
        "assert (a, b, c) == ([1, 3], {'k': [1]}, {2})"
    )
    assert run_tests(program, tests).passed


def test_an_argument_that_is_only_read_stays_the_same_object() -> None:
    tests = "rows = [[1], [2]]\nfirst = rows[0]\nassert count(rows) == 2\nassert rows[0] is first"
    assert run_tests("def count(rows):\n    return len(rows)", tests).passed


STACK = """
from dataclasses import dataclass

@dataclass
class Pair:
    a: int
    b: int

class Stack:
    limit = 9
    def __init__(self): self.items, self.next = [], None
    def push(self, x): self.items.append(x)
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __getitem__(self, i): return self.items[i]
    def __iter__(self): return iter(self.items)
    def __eq__(self, other): return True
    def __sub__(self, other): return 0

def widest(pairs): return max(pair.b - pair.a for pair in pairs)
"""


def test_classes_of_the_program_can_be_used_by_the_tests() -> None:
    tests = """
s = Stack()
s.push(4); s.push(5)
assert len(s) == 2 and s[0] == 4 and list(s) == [4, 5] and s.pop() == 5 and s.items == [4]
s.next = Stack()
s.next.push(7)
assert s.next.items == [7] and Stack.limit == 9
assert widest([Pair(1, 2), Pair(3, 9)]) == 6
"""
    assert run_tests(STACK, tests) == run.Verdict(True, "passed")


@pytest.mark.parametrize("test", ["Stack() == 3", "Stack() == Stack()", "Stack() - 3 < 1"])
def test_comparison_and_arithmetic_of_the_program_s_classes_do_not_count(test: str) -> None:
    assert run_tests(STACK, f"assert {test}").reason == "failed"


def test_an_object_is_itself_each_time_it_comes_back() -> None:
    program = "class Node: pass\nROOT = Node()\ndef root():\n    return ROOT"
    assert run_tests(program, "assert root() is root() and root() == ROOT").passed


def test_a_module_that_the_program_imported_is_the_tests_own() -> None:
    program = "import math\nmath.sqrt = lambda x: 0\ndef f():\n    return 0"
    assert not run_tests(program, "assert f() == math.sqrt(4)").passed


def test_a_function_of_the_tests_does_not_cross_and_says_so() -> None:
    verdict = run_tests("def call(f):\n    return f()", "assert call(lambda: 1) == 1")
    assert (verdict.reason, verdict.detail) == ("failed", "TypeError")


def test_numbers_of_numpy_and_exact_ones_cross_as_numbers() -> None:
    program = (
        "import numpy, decimal, fractions\ndef f():\n    return numpy.int64(3)\n"
        "def g():\n    return numpy.bool_(True)\ndef h():\n    return decimal.Decimal('0.50')\n"
        "def k():\n    return fractions.Fraction(1, 3)"
    )
    tests = (
        "from fractions import Fraction\nassert f() == 3 and g() is True\nassert h() == 0.5\n"
        "assert k() == Fraction(1, 3)"
    )
    assert run_tests(program, tests).passed


@pytest.mark.parametrize(
    "value",
    [None, True, 10**30, 1.5, float("inf"), "ü\ud800", b"x", (1, [2]), {1, 2}, frozenset({3}),
     {(1, 2): {"a": None}}, 1 + 2j, [], {}],
)  # fmt: skip
def test_plain_values_cross_unchanged(value: object) -> None:
    crossed = Values().decode(Values().encode(value))
    assert crossed == value
    assert type(crossed) is type(value)


def test_a_foreign_object_crosses_as_a_handle_and_back_as_itself() -> None:
    class Anything:
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = None  # type: ignore[assignment]

    thing = Anything()
    program = Values(keep=True)
    checker = Values(remote=lambda number: Remote(None, number))
    handle = checker.decode(program.encode(thing))
    assert handle != 4
    assert program.decode(checker.encode(handle)) is thing


def test_overwrite_changes_containers_of_one_kind_only() -> None:
    items, table = [1], {1: 2}
    overwrite(items, [2, 3])
    overwrite(table, [1])
    overwrite(7, 8)
    assert (items, table) == ([2, 3], {1: 2})


@pytest.mark.parametrize(
    "data",
    [["x", []], ["l"], ["c", [1]], ["b", "zz"], ["d", [1]], ["s", [["l", []]]], ["o", 5],
     ["m", "os"], ["n", ["Decimal", "x"]], ["n", ["Fraction", "1/0"]], ["h", "z"]],
)  # fmt: skip
def test_malformed_messages_are_refused(data: object) -> None:
    with pytest.raises(ProgramGoneError):
        Values().decode(data)


def test_a_missing_interpreter_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    monkeypatch.setattr(run, "_namespaces", tuple)
    monkeypatch.setattr(run, "barrier", tuple)
    with pytest.raises(SandboxError, match="cannot start"):
        run_tests(RIGHT, TESTS)


def test_a_barrier_that_fails_to_come_up_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "barrier", lambda: ("moat",))
    with pytest.raises(SandboxError, match="not active: moat"):
        run_tests(RIGHT, TESTS)


def test_barriers_that_the_system_lacks_are_named_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(run, "_namespaces", tuple)
    found = run.barrier.__wrapped__()
    assert "network" not in found
    assert "network (a network namespace: no network at all)" in caplog.text
