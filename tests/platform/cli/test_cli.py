import json
import subprocess
import sys

import click
import pytest
from click.testing import CliRunner

import waypost
from waypost.cli import COMMANDS, WaypostGroup, command
from waypost.contracts.errors import ConfigError, Fault, MissingExtraError, SchemaError
from waypost.contracts.routing_data import write_routing_data
from waypost.testing.synthetic import planted


def run(*arguments, group=command):
    return CliRunner().invoke(group, list(arguments))


def failing(error):
    """A waypost command line with one command that raises ``error``."""

    @click.command("fail")
    def fail():
        raise error

    group = WaypostGroup(
        "waypost", params=[click.Option(["--debug"], is_flag=True)], callback=lambda debug: None
    )
    group.add_command(fail)
    return group


def test_help_lists_every_command_with_an_example():
    result = run("--help")
    assert result.exit_code == 0
    assert all(name in result.output for name in COMMANDS)
    assert "Example: waypost train" in result.output


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_and_its_line_in_the_list(name):
    found = command.get_command(click.Context(command), name)
    assert isinstance(found, click.Command)
    inside = click.Context(found)
    parts = (
        [found.get_command(inside, one) for one in found.list_commands(inside)]
        if isinstance(found, click.Group)
        else [found]
    )
    for part in parts:
        assert "Example: waypost" in (part.epilog or "")
    assert found.name == name
    assert found.get_short_help_str(200).rstrip(".") == COMMANDS[name][1].rstrip(".")


def test_bench_encoder_prints_json(tmp_path):
    write_routing_data(tmp_path, planted(80))
    arguments = ("--encoder", "hashing", "--repeats", "1", "--json")
    result = run("bench", "encoder", "--data", str(tmp_path), *arguments)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["rows"][0]["encoder"].startswith("hashing")
    assert "embedding 80 queries" in result.stderr


def test_version():
    assert run("--version").output == f"waypost, version {waypost.__version__}\n"


def test_an_unknown_command_is_wrong_input():
    result = run("fly")
    assert result.exit_code == 2
    assert "No such command 'fly'." in result.output
    assert "did you mean" not in result.output


def test_a_similar_command_is_suggested():
    result = run("serv")
    assert result.exit_code == 2
    assert "No such command 'serv'. (did you mean 'serve'?)" in result.stderr
    assert "(did you mean 'tune'?)" in run("bench", "tun").stderr


def test_an_error_is_one_message_on_stderr():
    result = run("fail", group=failing(SchemaError("the table is bad")))
    assert result.exit_code == 1
    assert result.stderr == "error: the table is bad\n"
    assert result.stdout == ""


def test_a_missing_extra_shows_the_command():
    result = run("fail", group=failing(MissingExtraError("torch", "train")))
    assert result.exit_code == 1
    assert 'pip install "waypost[train]"' in result.stderr


def test_every_config_fault_is_listed():
    error = ConfigError([Fault("a.yaml: x", "is wrong"), Fault("a.yaml: y", "is missing")])
    result = run("fail", group=failing(error))
    assert result.exit_code == 2
    assert result.stderr == (
        "2 things are wrong:\n  a.yaml: x: is wrong\n  a.yaml: y: is missing\n"
    )


def test_an_unexpected_error_is_one_line_without_its_message():
    result = run("fail", group=failing(KeyError("a secret of the user")))
    assert result.exit_code == 1
    assert result.stderr.startswith("internal error: KeyError at cli/test_cli.py:")
    assert "--debug" in result.stderr
    assert "secret" not in result.stderr
    assert result.stderr.count("\n") == 1


def test_debug_lets_the_error_through():
    for error in (SchemaError("the table is bad"), KeyError("x")):
        assert run("--debug", "fail", group=failing(error)).exception is error


def test_an_interrupt_ends_with_130():
    result = run("fail", group=failing(KeyboardInterrupt()))
    assert result.exit_code == 130
    assert result.stderr == "interrupted\n"


@pytest.mark.parametrize(
    ("words", "work", "what_next"),
    [
        (("tune", "--config", "c"), "waypost.tune.sweep.run_sweep", "continues the sweep"),
        (("evaluate", "best_single"), "waypost.pipelines.evaluation.write.evaluate_to",
         "starts again"),
        (("train", "--router", "best_single"), "waypost.pipelines.train.train",
         "starts again; stored embeddings are kept"),
    ],
)  # fmt: skip
def test_an_interrupt_tells_what_the_same_command_does(
    words, work, what_next, tmp_path, monkeypatch
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(work, interrupt)
    space = {"k": {"type": "choice", "values": [3, 5]}}
    sweep = {"router": "knnrouter", "space": space, "budget": {"trials": 2}}
    (tmp_path / "c").write_text(json.dumps(sweep))
    monkeypatch.chdir(tmp_path)
    result = run(*words, "--data", str(tmp_path), "--out", str(tmp_path / "out"))
    assert result.exit_code == 130, result.output
    assert result.stderr == f"interrupted; the same command {what_next}\n"


def test_commands_of_other_packages_are_listed_without_loading_and_run(monkeypatch):
    loaded = []

    class Point:
        name, value = "more", "another.cli:command"

        def load(self):
            loaded.append(self.name)
            return click.Command("more", callback=lambda: click.echo("ran"))

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point()])
    assert "more" in run("--help").output
    assert not loaded
    assert run("more").output == "ran\n"


def test_a_foreign_command_that_is_none(monkeypatch):
    class Point:
        name, value = "more", "json:loads"

        def load(self):
            return len

    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [Point()])
    result = run("more")
    assert result.exit_code == 1
    assert "is not a click command" in result.output


# -- in a process of its own ----------------------------------------------------------------

LOADED = """
import sys
from click.testing import CliRunner
from waypost.cli import command
result = CliRunner().invoke(command, sys.argv[1:])
assert result.exit_code == 0, result.output
heavy = {"numpy", "pandas", "pyarrow", "torch", "ray", "sklearn", "transformers", "tokenizers"}
print(sorted(heavy & set(sys.modules)))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["list-routers"], ["list-routers", "--json"]])
def test_help_and_listing_import_no_heavy_library(arguments, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *arguments],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert done.stdout == "[]\n"


def test_a_closed_pipe_is_quiet():
    script = f"{sys.executable} -m waypost.cli list-routers --json | true"
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
