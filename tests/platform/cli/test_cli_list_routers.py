import json

import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.config import settings
from waypost.registry.classes import load_class
from waypost.registry.entries import list_routers


@pytest.fixture
def plugins(tmp_path, monkeypatch):
    for name, source in (
        (
            "goodone",
            '"""Does good."""\nfrom waypost_routers.best_single import BestSingle\n\n'
            "class Good(BestSingle):\n    pass\n",
        ),
        ("unfinished", "def broken(:\n"),
        ("needy", "import no_such_module\n"),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "router.py").write_text(source)
    monkeypatch.setenv("WAYPOST_PLUGINS", str(tmp_path))
    settings.cache_clear()
    yield
    settings.cache_clear()


def run(*arguments):
    result = CliRunner().invoke(command, ["list-routers", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_a_table_with_name_source_and_summary(plugins):
    lines = {line.split()[0]: line for line in run().splitlines()}
    assert "built-in" in lines["knnrouter"]
    assert "single-round" in lines["knnrouter"]
    assert "multi-round" in lines["automix"]
    assert "most similar training questions" in lines["knnrouter"]
    assert "folder" in lines["goodone"]
    assert "Does good." in lines["goodone"]
    assert "BROKEN" in lines["unfinished"]
    assert "line 1" in lines["unfinished"]


def test_json(plugins):
    found = {entry["name"]: entry for entry in json.loads(run("--json"))}
    assert found["knnrouter"]["error"] is None
    assert found["needy"]["error"] is None
    assert "line 1" in found["unfinished"]["error"]


def test_check_loads_each(plugins):
    found = {entry["name"]: entry for entry in json.loads(run("--check", "--json"))}
    assert found["goodone"]["error"] is None
    assert "no_such_module" in found["needy"]["error"]


@pytest.mark.parametrize(
    ("body", "family"),
    [
        ("class Mine(ScoreRouter):\n    pass\n", "single-round"),
        ("class Mine(StepRouter):\n    pass\n", "multi-round"),
        ("class Mine(waypost.TrainableStepRouter):\n    router_family = 'agentic'\n", "agentic"),
        ("class Mine(MetaRouter):\n    router_family: ClassVar[str] = 'personal'\n", "personal"),
        ("def broken(:\n", "single-round"),
    ],
)
def test_the_family_is_read_from_the_source(tmp_path, body, family):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "router.py").write_text(body)
    found = {entry.name: entry for entry in list_routers([tmp_path])}
    assert found["mine"].family == family


def test_the_source_of_a_built_in_router_says_the_family_of_its_class():
    own = [entry for entry in list_routers([]) if entry.source == "built-in"]
    assert {entry.name: load_class(entry).router_family for entry in own} == {
        entry.name: entry.family for entry in own
    }
