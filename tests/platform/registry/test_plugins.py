"""Plug-in folders in each of their places, from listing to serving; broken ones are named."""

import json
import shutil

import pytest
from click.testing import CliRunner

from support.gateway import arguments, chat, running
from waypost import load_router
from waypost.cli import command
from waypost.cli.new_router import write_plugin
from waypost.config import settings
from waypost.contracts.artifact import read_manifest
from waypost.contracts.errors import ConfigError
from waypost.contracts.routing_data import write_routing_data
from waypost.contracts.tables import write_llms
from waypost.registry import router_class
from waypost.serve.backends.messages import read_reply
from waypost.serve.backends.router_replica import Routers
from waypost.serve.config import ServeArgs
from waypost.serve.config_file import validate_serve_config
from waypost.serve.plan import make_plan
from waypost.testing.synthetic import ENCODER_ID, LLMS, planted
from waypost.tune.config import check_against, load_tune_config

PLACES = ("./custom_routers", "~/.waypost/plugins", "WAYPOST_PLUGINS")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory and an empty home folder."""
    (tmp_path / "cwd").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WAYPOST_PLUGINS", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    settings.cache_clear()
    return tmp_path


def place(here, which):
    folders = (here / "cwd" / "custom_routers", here / "home" / ".waypost/plugins", here / "two")
    return folders[PLACES.index(which)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_routing_data(folder, planted(60))
    return folder


def run(*arguments, code=0):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output
    return result


def train(name, data, out, *more, code=0):
    start = ("train", "--router", name, "--data", data, "--out", out, "--encoder", ENCODER_ID)
    return run(*start, *more, code=code)


def route(artifact, query):
    result = run("route", "--artifact", artifact, "--query", query, "--json")
    return json.loads(result.stdout)["model_name"]


# -- from the listing to an answer ----------------------------------------------------------


@pytest.mark.parametrize("which", PLACES)
def test_a_plain_router_is_found_trained_and_asked(here, data, which):
    folder = write_plugin("by_length", "plain", place(here, which))
    found = {row["name"]: row for row in json.loads(run("list-routers", "--json").stdout)}
    assert found["by_length"]["source"] == "folder"
    assert found["by_length"]["location"] == str(folder)
    said = train("by_length", data, here / "a").stdout
    assert "nothing to fit: the router decides by a rule among 3 LLMs" in said
    assert "the whole training split, 60 queries, lambda 0:" in said
    assert route(here / "a", "Why?") == "tiny"
    assert route(here / "a", "Why? " * 50) == "prover"


def test_a_score_router_is_found_trained_and_asked(here, data):
    write_plugin("mine", "score", place(here, PLACES[0]))
    said = train("mine", data, here / "a", "alpha=0.5").stdout
    assert "quality      1.0000" in said
    assert read_manifest(here / "a").parameters == {"alpha": 0.5}
    assert route(here / "a", planted(2, seed=3).queries[1]) == "prover"


def test_the_artifact_is_enough_without_the_folder(here, data, monkeypatch):
    write_plugin("by_length", "plain", place(here, PLACES[0]))
    train("by_length", data, here / "a", "characters=10")
    manifest = read_manifest(here / "a")
    assert (manifest.kind, manifest.plugins) == ("meta", ("by_length",))
    assert sorted(name for name in manifest.files if name.startswith("plugin/")) == [
        "plugin/by_length/config.yaml",
        "plugin/by_length/router.py",
    ]
    monkeypatch.chdir(here)
    settings.cache_clear()
    router = load_router(here / "a", allow_plugin_code=True)
    assert router.route_single("a longer question").model == "prover"
    assert router.version == manifest.version


def test_code_that_is_found_here_needs_no_leave(here, data):
    folder = write_plugin("by_length", "plain", place(here, PLACES[0]))
    train("by_length", data, here / "a")
    (folder / "test_by_length.py").write_text("# tests are no part of it\n")
    (folder / "__pycache__").mkdir()
    assert route(here / "a", "Why?") == "tiny"
    make_plan(ServeArgs.model_validate(arguments(here / "a")))


@pytest.mark.parametrize("file", ["router.py", "config.yaml", "one_more.txt", None])
def test_other_code_runs_only_when_it_is_allowed(here, data, file):
    folder = write_plugin("by_length", "plain", place(here, PLACES[0]))
    train("by_length", data, here / "a", "--folds", "0")
    if file is None:
        folder.rename(here / "elsewhere")
    else:
        with (folder / file).open("a") as source:
            source.write("# changed\n")
    asked = ("route", "--artifact", here / "a", "--query", "q")
    refused = run(*asked, code=1).stderr
    why = "is not" if file is None else "differs from the code"
    assert f"plug-in by_length, which {why} on this machine" in refused
    assert "--allow-plugin-code" in refused
    assert run(*asked, "--allow-plugin-code").stdout.startswith("tiny")
    with pytest.raises(ConfigError, match=r"allow_plugin_code: is not true.*by_length"):
        make_plan(ServeArgs.model_validate(arguments(here / "a")))
    make_plan(ServeArgs.model_validate(arguments(here / "a", allow_plugin_code=True)))


def test_a_plug_in_tells_its_data_and_endpoint_as_llmrouters_do(here, data):
    folder = write_plugin("by_length", "plain", place(here, PLACES[0]))
    with (folder / "config.yaml").open("a") as source:
        source.write("\ndata: set\napi_endpoint: https://api.example.com/v1\n")
    shutil.copytree(data, folder / "set")
    run("train", "--router", "by_length", "--out", here / "a", "--folds", "0")
    manifest = read_manifest(here / "a")
    assert {llm.api_endpoint for llm in manifest.llms} == {"https://api.example.com/v1"}
    assert "data" not in manifest.parameters
    run("train", "--router", "best_single", "--out", here / "b", code=2)
    with (folder / "config.yaml").open("a") as source:
        source.write("api_endpoint: 3\n")
    run("train", "--router", "by_length", "--out", here / "b", code=2)


def test_a_plain_router_needs_no_more_than_the_list_of_llms(here, tmp_path):
    write_plugin("by_length", "plain", place(here, PLACES[0]))
    (tmp_path / "llms").mkdir()
    write_llms(tmp_path / "llms" / "llms.json", LLMS)
    said = train("by_length", tmp_path / "llms", here / "a").stdout
    assert "not validated" in said
    assert route(here / "a", "Why?") == "tiny"
    refused = train("knnrouter", tmp_path / "llms", here / "b", code=1)
    assert "routing_train.parquet: no such file" in refused.stderr


def test_a_table_of_decisions_without_scores(here, data):
    write_plugin("by_length", "plain", place(here, PLACES[0]))
    train("by_length", data, here / "a")
    shown = run("route", "--artifact", here / "a", "--allow-plugin-code", "--query", "Why?").stdout
    assert shown.splitlines()[0] == "tiny: a short question"
    assert shown.splitlines()[2].split()[0] == "tiny"


# -- serving --------------------------------------------------------------------------------


async def test_changing_the_artifact_is_all_that_serving_needs(here, data):
    write_plugin("by_length", "plain", place(here, PLACES[0]))
    train("by_length", data, here / "a")
    async with running(here / "a") as gateway:
        reply = await gateway.client.post("/v1/chat/completions", chat("Why?"))
        assert reply.status == 200
        assert reply.headers["x-waypost-model"] == "tiny"
        assert reply.headers["x-waypost-router"] == "by_length"
        extras = {"waypost": {"allowed_models": ["cook", "prover"]}}
        reply = await gateway.client.post("/v1/chat/completions", chat("Why?", **extras))
        assert reply.headers["x-waypost-model"] == "cook"
        assert (await gateway.client.post("/v1/route", chat("Why? " * 50))).status == 200


@pytest.mark.parametrize(("name", "kind"), [("by_length", "plain"), ("mine", "score")])
def test_in_the_main_graph_one_path_is_changed(here, root, monkeypatch, name, kind):
    write_plugin(name, kind, place(here, PLACES[0]))
    starter = here / "data"  # a copy: training keeps embeddings beside the data
    shutil.copytree(root / "serve_configs" / "starter" / "data", starter)
    options = ("--folds", "0", "--encoder", ENCODER_ID) if kind == "score" else ()
    run("train", "--router", name, "--data", starter, "--out", here / "a", *options)
    text = (root / "serve_configs" / "router.yaml").read_text()
    path = here / "router.yaml"
    path.write_text(text.replace("serve_configs/starter/artifact", str(here / "a")))
    data = validate_serve_config(path).data
    args = ServeArgs.model_validate(data["applications"][0]["args"])
    routers = Routers(make_plan(args).router)
    routers.load()
    replies = routers.decide([({"query": "Why?"}, "auto"), ({"query": "Why? " * 50}, "auto")])
    decisions = [read_reply(reply) for reply in replies]
    assert [decision.router for decision in decisions] == [name, name]
    if kind == "plain":  # the cheaper and the dearer of the two that are served
        models = [decision.model for decision in decisions]
        assert models == ["smollm2-135m", "qwen2.5-coder-0.5b"]


FAILING = '''"""Fails."""
from waypost import Decision, MetaRouter


class Failing(MetaRouter):
    def route_single(self, query):
        text = query if isinstance(query, str) else query["query"]
        if "garbage" in text:
            return text
        if "raise" in text:
            raise RuntimeError(text)
        return Decision("cook", ("cook",))
'''


async def test_a_plain_router_that_fails_fails_its_own_requests_alone(here, data):
    folder = place(here, PLACES[0]) / "failing"
    folder.mkdir(parents=True)
    (folder / "router.py").write_text(FAILING)
    run("train", "--router", "failing", "--data", data, "--out", here / "a", "--folds", "0")
    lines = here / "lines.jsonl"
    lines.write_text('"fine"\n"raise it"\n')
    start = ("route", "--artifact", here / "a", "--allow-plugin-code", "--input", lines)
    assert (
        "query 2: router failing: failed on a query: RuntimeError at" in run(*start, code=1).stderr
    )
    async with running(here / "a", allow_plugin_code=True) as gateway:
        for text in ("garbage: my secret", "raise: my secret", "fine"):
            reply = await gateway.client.post("/v1/route", chat(text))
            assert (reply.status == 200) == (text == "fine")
            assert "secret" not in json.dumps(reply.json())


# -- tuning ---------------------------------------------------------------------------------


def test_a_sweep_knows_the_parameters_of_a_plugin(here):
    write_plugin("mine", "score", place(here, PLACES[0]))
    path = here / "mine.yaml"
    space = "{alpha: {type: loguniform, low: 0.01, high: 100}}"
    path.write_text(f"router: mine\nspace: {space}\nbudget: {{trials: 3}}\n")
    config = load_tune_config(path)
    check_against(config, router_class(config.router).parameter_constraints, str(path))
    path.write_text(f"router: mine\nfixed: {{beta: 1}}\nspace: {space}\nbudget: {{trials: 3}}\n")
    config = load_tune_config(path)
    with pytest.raises(ConfigError, match="beta: unknown parameter; known are: alpha"):
        check_against(config, router_class(config.router).parameter_constraints, str(path))


# -- broken ones ----------------------------------------------------------------------------

BROKEN = {
    "syntax": ("def broken(:\n", None, "line 1"),
    "importing": ("import no_such_module\n", None, "No module named 'no_such_module'"),
    "raising": ("raise RuntimeError('no licence')\n", None, "RuntimeError: no licence"),
    "leaving": ("raise SystemExit(3)\n", None, "SystemExit: 3"),
    "twice": (FAILING + "\n\nclass Other(Failing):\n    pass\n", None, "found Failing, Other"),
    "empty": ("", None, "found none"),
    "based": (FAILING.replace("(MetaRouter)", ""), None, "Failing is not derived from it"),
    "abstract": (FAILING.replace("route_single", "decide"), None, "does not define route_single"),
    "knnrouter": (FAILING, None, "the name is taken by the built-in router"),
    "noyaml": (FAILING, "a: [", "config.yaml: is not valid YAML"),
    "unknownkey": (FAILING, "speed: 1", "config.yaml: speed: unknown parameter"),
}


def test_every_broken_plugin_is_listed_with_its_reason_and_hides_nothing(here, data):
    parent = place(here, PLACES[0])
    for name, (source, config, _) in BROKEN.items():
        (parent / name).mkdir(parents=True)
        (parent / name / "router.py").write_text(source)
        if config is not None:
            (parent / name / "config.yaml").write_text(config)
    (parent / "without").mkdir()
    write_plugin("fine", "plain", place(here, PLACES[2]))

    rows = json.loads(run("list-routers", "--check", "--json").stdout)
    found = {row["name"]: row for row in rows if row["source"] == "folder"}
    for name, (_, _, reason) in BROKEN.items():
        assert reason in found[name]["error"], name
    assert "router.py does not exist" in found["without"]["error"]
    assert found["fine"]["error"] is None
    assert [row for row in rows if row["source"] == "built-in" and row["name"] == "knnrouter"]

    shown = run("list-routers", "--check").stdout
    assert shown.count("BROKEN: ") == len(BROKEN) + 1
    for name in (*BROKEN, "without"):
        if name == "knnrouter":
            continue
        failed = train(name, data, here / "a", code=2)
        reason = BROKEN.get(name, ("", None, "does not exist"))[2]
        assert reason in failed.stderr, name
        assert not (here / "a").exists()
    train("fine", data, here / "a")
