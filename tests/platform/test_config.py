from pathlib import Path

import pytest

from waypost.config import (
    Settings,
    StrictModel,
    apply_overrides,
    environment_value,
    load_config,
    parse,
    read_yaml,
    resolve_path,
)
from waypost.contracts.errors import ConfigError


class Engine(StrictModel):
    kind: str
    threads: int = 1


class Config(StrictModel):
    name: str
    lam: float = 0.0
    engine: Engine | None = None


def problems(call, *args):
    with pytest.raises(ConfigError) as caught:
        call(*args)
    return [str(fault) for fault in caught.value.faults]


def write(folder, text):
    path = folder / "c.yaml"
    path.write_text(text)
    return path


def test_a_file_with_overrides(tmp_path):
    path = write(tmp_path, "name: x\nengine: {kind: echo}\n")
    config = load_config(Config, path, ["engine.threads=4", "lam=0.5"])
    assert config == Config(name="x", lam=0.5, engine=Engine(kind="echo", threads=4))


def test_every_fault_has_file_key_and_what_was_expected(tmp_path):
    path = write(tmp_path, "lam: much\nspeed: 1\nengine: {kind: echo, threads: x, extra: 1}\n")
    found = problems(load_config, Config, path)
    assert len(found) == 5
    assert f"{path}: name: missing; it is required" in found
    assert f"{path}: speed: unknown key" in found
    assert f"{path}: engine.extra: unknown key" in found
    assert any("lam: expected a number, found" in fault for fault in found)
    assert any("engine.threads: expected a whole number, found" in fault for fault in found)


def test_infinite_numbers_are_refused():
    assert problems(parse, Config, {"name": "x", "lam": float("inf")})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\na: 2\n", "'a' is given twice"),
        ("- 1\n", "expected keys and values, found a list"),
        ("a: [\n", "is not valid YAML"),
        ("a: !!python/object:os.system {}\n", "is not valid YAML"),
    ],
)
def test_wrong_yaml(tmp_path, text, problem):
    assert problem in problems(read_yaml, write(tmp_path, text))[0]


def test_an_empty_file_is_an_empty_mapping(tmp_path):
    assert read_yaml(write(tmp_path, "# nothing\n")) == {}


def test_a_missing_file(tmp_path):
    assert "no such file" in problems(read_yaml, tmp_path / "none.yaml")[0]


def test_overrides_are_yaml_scalars_and_leave_the_source_alone():
    data = {"a": {"b": 1}}
    result = apply_overrides(data, ["a.c=[1, 2]", "a.b=null", "d=true", "e=text", "f=a=b"])
    assert result == {"a": {"b": None, "c": [1, 2]}, "d": True, "e": "text", "f": "a=b"}
    assert data == {"a": {"b": 1}}


def test_every_wrong_override_is_named():
    found = problems(apply_overrides, {"a": 1}, ["nothing", "=1", "a.b=2", "c=[", "d=1"])
    assert len(found) == 4
    assert "a is a number, not a mapping" in found[2]


def test_settings_of_an_empty_environment(tmp_path):
    settings = Settings.from_env({"HOME": str(tmp_path)})
    assert settings.root == Path.cwd()
    assert settings.cache == tmp_path / ".cache" / "waypost"
    assert settings.plugin_paths == (
        Path.cwd() / "custom_routers",
        tmp_path / ".waypost" / "plugins",
    )
    assert (settings.offline, settings.pool) == (False, "small")


def test_settings_of_a_full_environment(tmp_path):
    settings = Settings.from_env(
        {
            "HOME": str(tmp_path),
            "WAYPOST_ROOT": str(tmp_path / "root"),
            "WAYPOST_CACHE": str(tmp_path / "cache"),
            "WAYPOST_PLUGINS": "one::two",
            "WAYPOST_POOL": "full",
            "HF_HUB_OFFLINE": "1",
            "WAYPOST_ENV_ROUTER_R1": "python3",
        }
    )
    assert settings.root == tmp_path / "root"
    assert settings.cache == tmp_path / "cache"
    assert settings.plugin_paths[2:] == (Path("one"), Path("two"))
    assert (settings.offline, settings.pool) == (True, "full")
    assert settings.environments == {"router-r1": Path("python3")}


def test_paths_resolve_against_the_root(tmp_path):
    assert resolve_path("a/b", tmp_path) == tmp_path / "a" / "b"
    assert resolve_path(tmp_path, Path("elsewhere")) == tmp_path


def test_an_empty_variable_is_unset(monkeypatch):
    monkeypatch.setenv("WAYPOST_TEST", "")
    assert environment_value("WAYPOST_TEST") is None
