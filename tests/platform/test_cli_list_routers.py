import json

import pytest
from click.testing import CliRunner

from waypost.cli import command
from waypost.config import settings


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
