"""What ``waypost serve`` and its ``--check`` find before Ray starts."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from support.gateway import arguments, echo_pool
from support.served import application, free_port
from waypost import secrets
from waypost.cli import command
from waypost.contracts.errors import (
    ArtifactFormatError,
    ConfigError,
    MissingExtraError,
    PoolMismatchError,
)
from waypost.serve import checks, launch, stopping
from waypost.serve.config_file import validate_serve_config

KEYED = {
    "name": "prover", "engine": "openai", "placement": "inline",
    "config": {"base_url": "http://127.0.0.1:9/v1", "model": "m", "service": "example"},
}  # fmt: skip
NO_KEY = "app/prover would not serve here: no key for the service 'example'; set it in API_KEYS"


@pytest.fixture(autouse=True)
def no_keys(monkeypatch):
    for name in checks.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    secrets.key_ring.cache_clear()
    yield
    secrets.key_ring.cache_clear()


def file(tmp_path: Path, artifact: Path, entry: dict[str, Any] | None = None, **args: Any) -> Path:
    plain = arguments(artifact, **args)
    app = {**application("app", artifact, []), "args": plain, **(entry or {})}
    data = {"http_options": {"host": "127.0.0.1", "port": free_port()}, "applications": [app]}
    path = tmp_path / "file.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def check(path: Path) -> Result:
    return CliRunner().invoke(command, ["serve", "--check", str(path)])


def test_a_good_file_has_no_fault_and_no_remark(artifact, tmp_path):
    done = check(file(tmp_path, artifact))
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.endswith("file.yaml: no fault found\n")


def test_names_that_the_artifact_lacks_are_a_fault(artifact, tmp_path):
    pool = [*echo_pool(), {"name": "stranger", "engine": "echo", "placement": "inline"}]
    path = file(tmp_path, artifact, pool=pool)
    done = check(path)
    assert done.exit_code == 1
    assert "no router was trained on stranger; expected cook, prover" in done.stderr
    with pytest.raises(PoolMismatchError):
        checks.plans_of(validate_serve_config(path))


def test_names_of_a_user_config_are_compared_too(artifact, tmp_path):
    changes = {"deployments": [{"name": "Gateway", "user_config": {"retired": ["stranger"]}}]}
    path = file(tmp_path, artifact, changes)
    assert "user_config: stranger is not in the pool" in check(path).stderr
    with pytest.raises(PoolMismatchError):
        checks.plans_of(validate_serve_config(path))


def test_an_artifact_that_is_not_there_is_a_remark(tmp_path):
    done = check(file(tmp_path, tmp_path / "gone"))
    assert done.exit_code == 0
    assert f"but {tmp_path / 'gone'} does not exist yet: `waypost train` writes it" in done.stderr


@pytest.mark.parametrize("by_name", [False, True])
def test_a_missing_artifact_names_the_commands_of_its_router(tmp_path, by_name):
    missing = tmp_path / ("mine" if by_name else "router_r1")
    args = arguments(missing)
    if by_name:
        args |= {"artifact": None, "routers": {"router_r1": str(missing)}}
    path = file(tmp_path, missing, {"args": args})
    wanted = "`waypost rl import` or `waypost rl export`"
    assert f"{missing} does not exist yet: {wanted} writes it" in check(path).stderr
    with pytest.raises(ArtifactFormatError, match=f"expected a folder written by {wanted}"):
        checks.plans_of(validate_serve_config(path))


def test_an_llm_without_a_key_is_a_remark(artifact, tmp_path, monkeypatch):
    path = file(tmp_path, artifact, pool=[echo_pool()[0], KEYED])
    done = check(path)
    assert (done.exit_code, done.stderr) == (0, f"but {NO_KEY}\n")
    monkeypatch.setenv("API_KEYS", '{"example": "a-key"}')
    secrets.key_ring.cache_clear()
    assert check(path).stderr == ""


@pytest.mark.parametrize("where", ["application", "gateway"])
def test_keys_that_the_file_gives_the_replicas_are_not_missed(artifact, tmp_path, where):
    environment = {"env_vars": {"WAYPOST_API_KEYS_FILE": "/run/keys"}}
    entry, args = {"runtime_env": environment}, {}
    if where == "gateway":
        entry, args = {}, {"gateway": {"ray_actor_options": {"runtime_env": environment}}}
    pool = [echo_pool()[0], KEYED]
    path = file(tmp_path, artifact, entry, pool=pool, api_keys=True, **args)
    assert check(path).stderr == ""
    assert set(checks.plans_of(validate_serve_config(path))) == {"app"}


def test_a_chat_page_without_its_extra_is_told_with_what_installs_it(
    artifact, tmp_path, monkeypatch
):
    config = validate_serve_config(file(tmp_path, artifact, chat="on"))
    assert checks.examine(config) == []
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    (remark,) = checks.examine(config)
    assert remark.startswith("chat: gradio is not installed")
    assert 'pip install "waypost[chat]"' in remark
    with pytest.raises(MissingExtraError):
        checks.plans_of(config)


def test_required_keys_of_clients_that_are_missing(artifact, tmp_path):
    path = file(tmp_path, artifact, api_keys=True)
    done = check(path)
    assert (done.exit_code, "'waypost-clients'" in done.stderr) == (0, True)
    with pytest.raises(ConfigError, match="waypost-clients"):
        checks.plans_of(validate_serve_config(path))


def test_an_environment_that_is_missing_is_a_remark(artifact, tmp_path):
    pool = [{"name": "cook", "engine": "echo", "environment": "none-such"}]
    done = check(file(tmp_path, artifact, pool=pool))
    assert done.exit_code == 0
    assert "run `make env-none-such`" in done.stderr


@pytest.fixture
def no_ray(monkeypatch) -> SimpleNamespace:
    """`waypost serve` on a Ray that is not there; Ctrl-C comes once all is ready."""
    found = SimpleNamespace(failed={"app": frozenset()}, started=None)

    def start(config, **options):
        found.started = config

    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(launch, "set_environment", lambda **_: None)
    monkeypatch.setattr(launch, "start", start)
    monkeypatch.setattr(launch, "wait_until_running", lambda tell, ours: None)
    monkeypatch.setattr(launch, "wait_until_ready", lambda config, tell: found.failed)
    monkeypatch.setattr(stopping, "stop_gracefully", lambda config, door: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr("time.sleep", interrupt)
    return found


def test_the_command_says_what_serves_and_how_it_stops(artifact, tmp_path, no_ray):
    no_ray.failed = {"app": frozenset({"prover"})}
    port = free_port()
    args = ["serve", str(file(tmp_path, artifact)), "--port", str(port)]
    done = CliRunner().invoke(command, args)
    assert (done.exit_code, no_ray.started.port) == (0, port)
    assert f"app: http://127.0.0.1:{port}/app/v1 serves auto, cook, tiny\n" in done.stdout
    assert done.stderr == "starting Ray\nstopping: open requests have up to 25 s\nstopped\n"


def test_the_command_says_where_no_llm_serves(artifact, tmp_path, no_ray):
    no_ray.failed = {"app": frozenset({"cook", "prover", "tiny"})}
    done = CliRunner().invoke(command, ["serve", str(file(tmp_path, artifact))])
    assert "app: no LLM serves\n" in done.stderr
    assert "try:" not in done.stdout
