"""Count the product's files and lines and find import circles, for `make check`.

    python -P tests/support/house.py

The exit code is 1 if modules, or packages of the platform, import each other in a circle. Imports
inside functions and for type checkers count as well.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("platform/waypost", "routers/waypost_routers", "rl/waypost_rl")
SMALL = 60
"""Files with fewer lines and only one importer are listed."""

Graph = Mapping[str, frozenset[str]]


def modules(root: Path) -> dict[str, Path]:
    """Return the product's modules by dotted name."""
    found = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to((root / package).parent).with_suffix("").parts
            found[".".join(part for part in parts if part != "__init__")] = path
    return found


def imports(known: Mapping[str, Path]) -> dict[str, frozenset[str]]:
    """Return the product's modules that each module imports by name."""
    roots = {
        name for name in known if "." not in name
    }  # importing a module imports its root anyway
    return {
        name: frozenset(_named(ast.parse(path.read_text(encoding="utf-8")), known)) - {name} - roots
        for name, path in known.items()
    }


def _named(tree: ast.AST, known: Mapping[str, Path]) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                if full in known:
                    yield full
                elif node.module in known:
                    yield node.module


def by_package(graph: Graph) -> dict[str, frozenset[str]]:
    """Return the imports between the packages and top-level modules of the platform."""

    def part(name: str) -> str:
        return ".".join(name.split(".")[:2])

    names = {name for name in graph if name.startswith("waypost.")}
    edges: dict[str, set[str]] = {part(name): set() for name in names}
    for name in names:
        edges[part(name)] |= {part(other) for other in graph[name] if other in names}
    return {name: frozenset(others - {name}) for name, others in edges.items()}


def circles(graph: Graph) -> list[list[str]]:
    """Return the groups of names that reach each other, sorted (Tarjan, 1972)."""
    order: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        order[name] = low[name] = len(order)
        stack.append(name)
        for other in sorted(graph[name]):
            if other not in order:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], order[other])
        if low[name] == order[name]:
            group = stack[stack.index(name) :]
            del stack[len(stack) - len(group) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in order:
            visit(name)
    return sorted(found)


def lonely(known: Mapping[str, Path], graph: Graph) -> list[str]:
    """Return the small modules that exactly one other module imports."""
    importers = {name: [o for o, named in graph.items() if name in named] for name in known}
    return [
        f"{name} ({lines(path)} lines, imported by {importers[name][0]})"
        for name, path in known.items()
        if len(importers[name]) == 1 and lines(path) < SMALL and path.name != "__init__.py"
    ]


def lines(path: Path) -> int:
    """Return the number of lines of a file."""
    return len(path.read_text(encoding="utf-8").splitlines())


def main() -> int:
    """Print the counts; return the exit code."""
    known = modules(ROOT)
    graph = imports(known)
    small, loops = lonely(known, graph), circles(graph) + circles(by_package(graph))
    total = sum(lines(path) for path in known.values())
    print(f"{len(known)} product files, {total:,} lines")
    print(f"{len(small)} files below {SMALL} lines with one importer")
    for each in small:
        print(f"  {each}")
    print(f"{len(loops)} import circles")
    for loop in loops:
        print(f"  {' <-> '.join(loop)}")
    return int(bool(loops))


if __name__ == "__main__":
    sys.exit(main())
