"""The counts of the house, on a house of four files."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import house

FILES = {
    "platform/waypost/__init__.py": "",
    "platform/waypost/loading.py": "from waypost.contracts import records\n",
    "platform/waypost/contracts/__init__.py": "",
    "platform/waypost/contracts/records.py": "import numpy\n",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_imports_that_run_one_way_are_no_circle(root: Path) -> None:
    known = house.modules(root)
    graph = house.imports(known)
    assert graph["waypost.loading"] == {"waypost.contracts.records"}
    assert house.circles(graph) == house.circles(house.by_package(graph)) == []
    assert house.lonely(known, graph) == [
        "waypost.contracts.records (1 lines, imported by waypost.loading)"
    ]


def test_an_import_inside_a_function_closes_a_circle(root: Path) -> None:
    records = root / "platform/waypost/contracts/records.py"
    records.write_text("def late():\n    from waypost.loading import load\n")
    graph = house.imports(house.modules(root))
    assert house.circles(graph) == [["waypost.contracts.records", "waypost.loading"]]
    assert house.circles(house.by_package(graph)) == [["waypost.contracts", "waypost.loading"]]


def test_a_module_of_many_importers_is_no_small_room(root: Path) -> None:
    (root / "platform/waypost/episode.py").write_text("import waypost.contracts.records\n")
    known = house.modules(root)
    assert house.lonely(known, house.imports(known)) == []
