"""Generated code: what passes, what cannot fake a pass, what is stopped."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import pytest

from waypost.benchmarks import sandbox
from waypost.benchmarks._harness import Opaque, ProgramGoneError, decode, encode
from waypost.benchmarks.sandbox import Limits, barrier, run_tests
from waypost.contracts.errors import SandboxError, SchemaError

TESTS = "assert double(2) == 4\nassert abs(double(3) - 6) < 1e-9"
RIGHT = "def double(x):\n    return 2 * x"


def test_a_right_program_passes() -> None:
    assert run_tests(RIGHT, TESTS) == sandbox.Verdict(True, "passed")


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


def test_environment_is_empty_and_folder_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WAYPOST_CANARY_KEY", "sk-canary")
    program = (
        "import os\ndef keys():\n    return [k for k in os.environ if 'CANARY' in k]\n"
        "def files():\n    return os.listdir('.')"
    )
    assert run_tests(program, "assert keys() == []\nassert files() == ['program.py']").passed


def test_the_folder_is_removed() -> None:
    program = "import os\nopen('made', 'w').close()\ndef where():\n    return os.getcwd()"
    tests = "assert where() == ''"
    assert not run_tests(program, tests).passed
    made = list(Path(tempfile.gettempdir()).glob("waypost-code-*/made"))
    assert made == []


@pytest.mark.skipif(barrier() == "none", reason="no namespaces on this system")
def test_there_is_no_network_where_namespaces_exist() -> None:
    program = (
        "import os\ndef interfaces():\n    return sorted(os.listdir('/sys/class/net'))\n"
        "import socket\ndef reach():\n    try:\n"
        "        socket.create_connection(('127.0.0.1', 9), 0.5)\n"
        "    except OSError as error:\n        return error.errno"
    )
    # 101: network unreachable, even the loopback device being down
    assert run_tests(program, "assert reach() == 101").passed


@pytest.mark.skipif(barrier() != "namespaces", reason="no process namespaces on this system")
def test_other_processes_are_out_of_sight_where_namespaces_exist() -> None:
    program = (
        "import os\ndef seen():\n    return sorted(p for p in os.listdir('/proc') if p.isdigit())"
    )
    assert run_tests(program, "assert len(seen()) <= 2").passed


def test_without_a_barrier_the_verdict_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "barrier", lambda: "none")
    assert run_tests(RIGHT, TESTS).passed
    assert not run_tests("import os\nos._exit(0)", TESTS).passed


def test_processes_left_behind_are_ended(tmp_path: Path) -> None:
    mark = tmp_path / "alive"
    program = (
        f"import os, time\nif os.fork() == 0:\n    time.sleep(0.4)\n    open({str(mark)!r}, 'w')\n"
        "    os._exit(0)\n" + RIGHT
    )
    run_tests(program, TESTS)
    time.sleep(0.7)
    assert not mark.exists()


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


@pytest.mark.parametrize(
    "value",
    [None, True, 10**30, 1.5, float("inf"), "ü\ud800", b"x", (1, [2]), {1, 2}, frozenset({3}),
     {(1, 2): {"a": None}}, 1 + 2j, [], {}],
)  # fmt: skip
def test_plain_values_cross_unchanged(value: object) -> None:
    crossed = decode(encode(value))
    assert crossed == value
    assert type(crossed) is type(value)


def test_a_foreign_object_equals_nothing() -> None:
    assert isinstance(decode(encode(object())), Opaque)


@pytest.mark.parametrize(
    "data", [["x", []], ["l"], ["c", [1]], ["b", "zz"], ["d", [1]], ["s", [["l", []]]]]
)
def test_malformed_messages_are_refused(data: object) -> None:
    with pytest.raises(ProgramGoneError):
        decode(data)


def test_a_missing_interpreter_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    monkeypatch.setattr(sandbox, "barrier", lambda: "none")
    with pytest.raises(SandboxError, match="cannot start"):
        run_tests(RIGHT, TESTS)
