"""Generated pages are those of the code, and each part of the product is on its page."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from waypost.metrics.table import BY_KEY
from waypost.registry import list_routers


@pytest.fixture(scope="module")
def scripts(root: Path) -> Iterator[None]:
    """The scripts of docs can be imported."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "docs")
        yield


@pytest.fixture(scope="module")
def reference(scripts: None) -> ModuleType:
    return import_module("reference")


@pytest.fixture(scope="module")
def made(reference: ModuleType) -> dict[str, str]:
    return reference.pages()


def test_no_generated_page_is_stale(reference: ModuleType, made: dict[str, str]) -> None:
    assert reference.stale(made) == [], "run make docs-reference"


def test_a_changed_and_a_missing_page_are_stale(
    reference: ModuleType, made: dict[str, str]
) -> None:
    changed = {**made, "reference/scorers.md": "other"}
    changed["reference/more.md"] = changed.pop("reference/engines.md")
    stale = ["reference/engines.md", "reference/more.md", "reference/scorers.md"]
    assert reference.stale(changed) == stale


def test_each_router_has_a_page_that_says_its_family(made: dict[str, str]) -> None:
    for entry in list_routers([]):
        if entry.source == "built-in":
            assert f"| family | {entry.family}: " in made[f"routers/{entry.name}.md"]
            assert f"[{entry.name}]({entry.name}.md) | {entry.family} |" in made["routers/index.md"]


def test_each_command_of_the_help_is_on_its_page(made: dict[str, str]) -> None:
    page = made["reference/commands.md"]
    listed = re.search(r"Commands:\n(.*?)\n\n", page, flags=re.DOTALL)
    assert listed is not None
    for name in re.findall(r"^  ([a-z-]+)  ", listed[1], flags=re.MULTILINE):
        assert f"\n## waypost {name}\n" in page
    assert "\n### waypost data run\n" in page


def test_the_check_of_the_command_line_lists_what_is_stale(
    reference: ModuleType, made: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(pages: dict[str, str]) -> object:
        monkeypatch.setattr(reference, "pages", lambda: pages)
        with pytest.raises(SystemExit) as ended:
            reference.main()
        return ended.value.code

    monkeypatch.setattr(sys, "argv", ["reference.py", "--check"])
    assert check(made) == 0
    assert "scorers.md; run make docs-reference" in str(check({**made, "reference/scorers.md": ""}))


def test_pictures_are_those_of_their_script(
    root: Path, scripts: None, monkeypatch, tmp_path: Path
) -> None:
    pictures = import_module("pictures")
    monkeypatch.setattr(pictures, "IMAGES", tmp_path)
    pictures.main()
    drawn = {file.name: file.read_text() for file in tmp_path.iterdir()}
    kept = {file.name: file.read_text() for file in (root / "docs" / "images").iterdir()}
    assert drawn == kept, "run make docs-pictures"


def test_the_metrics_that_the_guide_names_are_in_the_table(root: Path) -> None:
    page = (root / "docs" / "evaluation.md").read_text(encoding="utf-8")
    section = page.partition("\n## Metrics\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", section))
    assert len(named) > 20
    assert named <= set(BY_KEY)
