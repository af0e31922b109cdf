"""An engine of another distribution (tests/support/acme_engine), found by its entry point.

No file of ours names it: it passes the contract battery, serves in the gateway's process and in a
replica of Ray's.
"""

from __future__ import annotations

import json
import shutil
import urllib.request
import zipfile
from pathlib import Path

import pytest

from support.distribution import build_wheel
from support.gateway import chat, echo_pool, knn_artifact, running
from support.served import application, command
from waypost.contracts.errors import ConfigError, EngineServerError, PluginError, RegistryError
from waypost.engines import engine_class, engine_names, make_engine
from waypost.serve.config_file import validate_serve_config
from waypost.testing.engine_contract import CHECKS, EngineCase, Failure, check_name

QUESTIONS = (
    "one fish two fish red fish blue fish and many more words so that it takes a while to say",
    "the quick brown fox jumps over the lazy dog while the band plays on and on and on tonight",
    "Привет, мир! 日本語のテキスト、長い文章。 हिन्दी पाठ — καλημέρα κόσμε, naïve 🦊🌍 и ещё слова",
)
ACME = {"engine": "acme_reverse", "placement": "inline"}


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the installed distribution, built as its authors would build it."""
    folder = tmp_path_factory.mktemp("acme")
    project, out = folder / "project", folder / "dist"
    shutil.copytree(root / "tests" / "support" / "acme_engine", project)
    out.mkdir()
    with zipfile.ZipFile(build_wheel(project, out)) as wheel:
        wheel.extractall(folder / "site")
    return folder / "site"


@pytest.fixture(autouse=True)
def _installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))  # of the processes that are started


@pytest.fixture
def case() -> EngineCase:
    return EngineCase(
        make=lambda: make_engine("acme_reverse", {"token_s": 1 / 400}),
        questions=QUESTIONS,
        tokens=None,
        working=lambda engine: len(engine.calls),
        produced=lambda engine: engine.calls.output_tokens,
        failures=[
            Failure(lambda: make_engine("acme_reverse", {"breaks": True}), EngineServerError, True)
        ],
    )


@pytest.mark.parametrize("check", CHECKS, ids=check_name)
async def test_it_passes_the_contract(check, case: EngineCase) -> None:
    await check(case)


def test_it_is_listed_and_takes_no_built_in_name() -> None:
    assert {"acme_reverse", "acme_gone", "echo"} <= set(engine_names())
    assert engine_class("echo").__module__ == "waypost.engines.echo"
    with pytest.raises(RegistryError, match=r"'acme_revers' \(did you mean 'acme_reverse'\?\)"):
        engine_class("acme_revers")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("acme_gone", r"\(acme_engine:Gone\) does not load: AttributeError"),
        ("acme_named", r"\(acme_engine:Misnamed\): its class needs `name = 'acme_named'`"),
        ("acme_plain", r"\(acme_engine:NoEngine\): expected a class derived from"),
    ],
)
def test_one_that_does_not_load_is_a_named_fault_of_a_file(
    name: str, told: str, tmp_path: Path
) -> None:
    with pytest.raises(PluginError, match=f"engine {name} {told}"):
        engine_class(name)
    file = tmp_path / "graph.yaml"
    pool = [{"name": "cook", "engine": name, "placement": "inline"}]
    file.write_text(json.dumps({"applications": [application("a", tmp_path / "x", pool)]}))
    with pytest.raises(ConfigError, match=f"pool.0.engine: engine {name} {told}"):
        validate_serve_config(file)


async def test_it_serves_in_the_gateways_process(tmp_path: Path) -> None:
    pool = [{**entry, **ACME} for entry in echo_pool()]
    async with running(knn_artifact(tmp_path / "artifact"), pool=pool) as graph:
        answer = await graph.client.post("/v1/chat/completions", chat("What is 2 + 2?"))
    assert answer.status == 200
    assert answer.json()["choices"][0]["message"]["content"] == "2? + 2 is What "


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_it_serves_in_a_replica(tmp_path: Path) -> None:
    pool = echo_pool()
    pool[0] = {"name": "cook", "engine": "acme_reverse"}
    artifact = knn_artifact(tmp_path / "artifact")
    graph = application("acme", artifact, pool, router={"placement": "inline"})
    with command({"applications": [graph]}, tmp_path) as server:
        server.until(lambda: "Ctrl-C stops it" in server.said())
        body = json.dumps(chat("What is 2 + 2?", model="cook")).encode()
        asked = urllib.request.Request(
            f"{server.url}/acme/v1/chat/completions", body, {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=60) as answer:
            said = json.load(answer)["choices"][0]["message"]["content"]
    assert said == "2? + 2 is What "
