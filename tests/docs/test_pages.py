"""The code in README and docs: Python runs, commands and files are those that Waypost takes."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import click
import numpy as np
import openai
import pytest
import uvicorn
import yaml
from click.testing import CliRunner
from jsonschema import ValidationError

from support.fans import fans_artifact
from support.gateway import knn_artifact, running
from support.manifests import KUSTOMIZATION_FIELDS
from support.prometheus import promtool
from waypost.bench.harness import Tell
from waypost.benchmarks.yaml_task import YamlTask
from waypost.cli import command
from waypost.config import parse
from waypost.contracts.generation import GenerateRequest
from waypost.contracts.questions import Question
from waypost.contracts.routing_data import read_routing_data
from waypost.engines import engine_config, engine_names
from waypost.engines.base import collect
from waypost.pipelines.data.config import DataConfig
from waypost.pipelines.evaluation.run import EvaluateConfig
from waypost.pipelines.train import TrainConfig
from waypost.serve.config import ServeArgs, UserConfig
from waypost.serve.config_file import validate_serve_config
from waypost.tune.config import TuneConfig
from waypost_rl.training.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
LOCAL = "http://127.0.0.1:8000"


class Block(NamedTuple):
    """A block of code, and where it stands."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks() -> Iterator[Block]:
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for found in FENCE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(page.relative_to(ROOT).as_posix(), line, found[1], found[2])


BLOCKS = list(blocks())


def of(*languages: str) -> list[Block]:
    return [block for block in BLOCKS if block.language in languages]


def test_every_block_says_its_language() -> None:
    known = {"json", "python", "sh", "text", "yaml"}
    assert [str(block) for block in BLOCKS if block.language not in known] == []


# -- Python ----------------------------------------------------------------------------------------


ARTIFACTS = {"docs/personal_routing.md": fans_artifact}
"""Makers of the routers that pages ask, other than knnrouter."""


@pytest.fixture
def served(block: Block, tmp_path: Path) -> Iterator[str]:
    """The address of a gateway with echo engines, on a port of its own."""
    ready = threading.Event()
    state: dict[str, Any] = {}
    artifact = ARTIFACTS.get(block.page, knn_artifact)(tmp_path / "artifact")

    async def serve() -> None:
        feedback = str(tmp_path / "feedback")
        async with running(artifact, feedback_dir=feedback, sessions="on") as graph:
            config = uvicorn.Config(graph.gateway, port=0, log_level="warning", lifespan="off")
            state["server"] = server = uvicorn.Server(config)
            task = asyncio.ensure_future(server.serve())
            while not server.started:
                await asyncio.sleep(0.01)
            state["port"] = server.servers[0].sockets[0].getsockname()[1]
            ready.set()
            await task

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(60)
    yield f"http://127.0.0.1:{state['port']}"
    state["server"].should_exit = True
    thread.join(30)


# Examples of docstrings are run by test_docstrings.py.
# docs/coming_from.md calls endpoints: test_roads.py runs it.
BLOCKS_HERE = [b for b in of("python") if ">>> " not in b.text and "coming_from" not in b.page]


@pytest.mark.parametrize("block", BLOCKS_HERE, ids=str)
def test_python_runs(block: Block, served: str, monkeypatch, capsys) -> None:
    monkeypatch.chdir(ROOT)
    text = block.text.replace(LOCAL, served)
    module = ModuleType("block_of_docs")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    space = vars(module)
    exec(compile(text, str(block), "exec"), space)
    for client in (one for one in space.values() if isinstance(one, openai.OpenAI)):
        client.close()  # a program of some lines ends with its connections, a test run does not
    if "ByLength" in space:
        router = space["ByLength"](limit=20).fit(read_routing_data("serve_configs/starter/data"))
        assert router.route_single("x" * 21).model == router.model_names[router.best_]
    if "Products" in space:
        row = {"question": "Who makes this?", "brand": "Acme"}
        assert space["Products"]().question(row).ground_truth == "Acme"
        assert space["score"]("It is acme.", "Acme", None, "") == 1.0
    if "Briefest" in space:
        data = read_routing_data("serve_configs/starter/data")
        assert space["Briefest"]().fit(data).route_single("x").model in data.names
    if "Capitals" in space:
        row = {"country": "France", "capital": "Paris"}
        assert space["BENCHMARK"].read(row).metric == "short_answer"
    if "starts_with" in space:
        said = space["starts_with"]("Paris, of course.", ["paris"])
        assert said == 1.0 != space["starts_with"]("It is Paris.", "Paris")
    if "ShoutEngine" in space:
        engine = space["ShoutEngine"](space["Config"]())
        answer = asyncio.run(collect(engine, GenerateRequest("id-1", prompt="a b")))
        assert (answer.text, answer.usage.output_tokens) == ("A B", 2)
    if "ROW" in space:
        gained = SimpleNamespace(difference=np.array([0.5, 0.0, -1.0, 1.0]))
        assert space["ROW"].of(gained) == 0.5
    if "QUICK" in space:
        options = space["Options"](data="serve_configs/starter/data", **space["QUICK"])
        assert len(space["run"](options, Tell()).figures["ms"]) == 1
    if isinstance(space.get("command"), click.Command):
        ran = CliRunner().invoke(space["command"], ["--data", "serve_configs/starter/data"])
        assert (ran.exit_code, ran.output) == (0, "457\n")
    if "favourite" in space:
        assert space["after"] == space["favourite"] != space["before"] == space["of_bob"]
    if "print(" in text:
        assert capsys.readouterr().out.strip()


# -- commands --------------------------------------------------------------------------------------


def commands() -> list[tuple[str, list[str]]]:
    """Return each line of a shell that names one of our commands, and its words."""
    found = []
    for block in of("sh"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z0-9_]+=.*", words[0]):
                words.pop(0)
            if words:
                found.append((f"{block}: {line}", words))
    return found


COMMANDS = commands()
OTHERS = {"bash", "curl", "export", "helm", "kubectl", "pip", "ray", "serve", "source"}


@pytest.mark.parametrize(("line", "words"), COMMANDS, ids=[line for line, _ in COMMANDS])
def test_a_command_is_one_that_there_is(line: str, words: list[str]) -> None:
    name = words[0].removeprefix(".venv/bin/")
    if name == "waypost":
        taken(command, words[1:])
    elif name == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in (word for word in words[1:] if "=" not in word):
            assert re.search(rf"^{re.escape(target)}:", makefile, flags=re.MULTILINE)
    else:
        assert name in OTHERS
    for word in words:
        if word.startswith(("serve_configs/", "tune_configs/", "k8s/", "requirements/", "docs/")):
            assert (ROOT / word.partition(":")[0]).exists()


def taken(one: click.Command, words: list[str]) -> None:
    """See that click takes the words; nothing is run."""
    context = click.Context(one, info_name="waypost", **one.context_settings)
    while isinstance(one, click.Group):
        name, inner, words = one.resolve_command(context, words)
        assert inner is not None, name
        one, context = inner, click.Context(inner, info_name=name, parent=context)
    if one.name == "submit" and "--" in words:
        taken(command, words[words.index("--") + 2 :])
    try:
        one.make_context(one.name, list(words), parent=context.parent)
    except click.BadParameter as error:
        if "does not exist" not in error.message:  # a file of the reader's
            raise


# -- files -----------------------------------------------------------------------------------------


def as_ray_up_does(data: dict[str, Any]) -> None:
    """See that Ray's launcher takes a file, and a shell the commands of it."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    whole = prepare_config(data)
    validate_config(whole)
    assert whole["max_workers"] == len(data["provider"]["worker_ips"])
    for key in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        for line in data[key]:
            subprocess.run(["bash", "-n", "-c", line], check=True)
    with pytest.raises(ValidationError, match="worker_ip"):
        validate_config({**whole, "worker_ip": []})


def checked(data: Any, tmp_path: Path) -> None:
    """See that data of a YAML is what one of our files may hold."""
    if "applications" in data:
        (tmp_path / "serve.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
        validate_serve_config(tmp_path / "serve.yaml")
    elif "deployments" in data:
        for deployment in data["deployments"]:
            parse(UserConfig, deployment["user_config"])
    elif "candidates" in data:
        parse(RunConfig, data)
    elif "llms" in data or "benchmarks" in data:
        parse(DataConfig, data)
    elif "space" in data:
        parse(TuneConfig, data)
    elif "source" in data:
        parse(YamlTask, data)
    elif "routers" in data:
        parse(EvaluateConfig, data)
    elif "router" in data:
        parse(TrainConfig, data)
    elif "engine" in data:
        parse(engine_config(data["engine"]), data["config"])
    elif "cluster_name" in data:
        as_ray_up_does(data)
    elif data.get("kind") == "Kustomization":
        assert set(data) <= KUSTOMIZATION_FIELDS
    elif "scrape_configs" in data:
        (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(data), encoding="utf-8")
        check = [promtool(), "check", "config", "--syntax-only", tmp_path / "prometheus.yml"]
        subprocess.run(check, check=True, capture_output=True)
    elif set(data) == set(engine_names()):
        pass  # docs/reference.py checks each
    elif {*data} <= {*ServeArgs.model_fields}:  # some keys of a Serve file's args
        parse(ServeArgs, {"artifact": "a", "pool": [{"name": "m", "engine": "echo"}], **data})
    else:
        raise AssertionError(f"no file of ours has the keys {', '.join(data)}")


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_a_file_is_valid(block: Block, tmp_path: Path) -> None:
    checked(yaml.safe_load(block.text), tmp_path)


@pytest.mark.parametrize("block", of("json"), ids=str)
def test_a_question_is_valid(block: Block) -> None:
    Question.model_validate(json.loads(block.text))


@pytest.mark.parametrize(
    "file", sorted((ROOT / "docs" / "examples").glob("*.yaml")), ids=lambda file: file.name
)
def test_an_example_file_is_valid(file: Path, tmp_path: Path) -> None:
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    if isinstance(data, dict):
        checked(data, tmp_path)


# -- the pages -------------------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 6 * 1024


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "findings/README.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]
    local = [link for link in links if link and "://" not in link]
    assert [link for link in local if not (ROOT / page).parent.joinpath(link).exists()] == []


def test_files_that_pages_name_are_there() -> None:
    tops = "docs|findings|k8s|platform|requirements|rl|routers|serve_configs|tests|tune_configs"
    pages = [page for page in {block.page for block in BLOCKS} if "/reference/" not in page]
    for page in pages:
        text = (ROOT / page).read_text(encoding="utf-8")
        for path in re.findall(rf"`((?:{tops})/[^\s`]*)`", text):
            assert list(ROOT.glob(re.sub("NAME|<[^>]*>", "*", path).rstrip("/"))), f"{page}: {path}"


def test_files_that_architecture_names_are_there() -> None:
    found = {file.relative_to(ROOT).as_posix() for file in ROOT.glob("*/waypost*/**/*.py")}
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    pictures = (ROOT / "docs" / "pictures.py").read_text(encoding="utf-8").partition('"""')[2]
    for name in re.findall(r"[\w/]+\.py", page + pictures):
        known = name.endswith(("/NAME.py", "pictures.py")) or any(
            one.endswith(f"/{name}") for one in found
        )
        assert known, name


def test_each_table_that_a_target_makes_has_its_place() -> None:
    targets = re.findall(r"--insert (\S+):(\S+)", (ROOT / "Makefile").read_text(encoding="utf-8"))
    assert len(targets) >= 6
    for file, marker in targets:
        text = (ROOT / file).read_text(encoding="utf-8")
        assert text.count(f"<!-- {marker} begin -->") == 1
        assert text.count(f"<!-- {marker} end -->") == 1
        table = text.partition(f"<!-- {marker} begin -->")[2].partition("<!-- ")[0]
        assert re.search(r"^Measured \d{4}-\d\d-\d\d, (?:commit|version) ", table, re.MULTILINE)
