import importlib.metadata

import pytest

from waypost import registry
from waypost.contracts.errors import (
    ConfigError,
    MissingExtraError,
    PluginError,
    RegistryError,
)
from waypost.contracts.router import MetaRouter
from waypost.registry import find_router, list_routers, make_router, router_class

BUILTIN = {
    "best_single",
    "cheapest_llm",
    "knnrouter",
    "largest_llm",
    "randomrouter",
    "smallest_llm",
}

PLUGIN = '''"""Always the first model."""

from waypost import Decision, MetaRouter


class First(MetaRouter):
    """Takes one parameter."""

    def __init__(self, model="first"):
        self.model = model

    def route_single(self, query):
        return Decision(self.model, (self.model,), router=self.name)
'''


def add_plugin(folder, name, source=PLUGIN, config=None):
    path = folder / name
    path.mkdir(parents=True)
    if source is not None:
        (path / "router.py").write_text(source)
    if config is not None:
        (path / "config.yaml").write_text(config)
    return path


def test_built_in_routers_are_found_by_module_name():
    found = {e.name: e for e in list_routers([])}
    assert found.keys() >= BUILTIN
    assert found["knnrouter"].location == "waypost_routers.knnrouter"
    assert found["knnrouter"].summary.startswith("Averages what each LLM scored")
    assert not [name for name in found if name.startswith("_")]


def test_listing_is_sorted():
    names = [entry.name for entry in list_routers([])]
    assert names == sorted(names)


def test_an_unknown_router_lists_those_there_are():
    with pytest.raises(RegistryError, match=r"no router is named 'knn'; there are: .*knnrouter"):
        find_router("knn", [])


def test_make_router_sets_parameters():
    router = make_router("knnrouter", {"k": 7}, [])
    assert router.name == "knnrouter"
    assert router.get_params()["k"] == 7


def test_make_router_names_every_wrong_parameter():
    with pytest.raises(ConfigError) as caught:
        make_router("knnrouter", {"k": 0, "weights": "odd", "speed": 1}, [])
    assert len(caught.value.faults) == 3


# -- plug-in folders ------------------------------------------------------------------------


def test_a_plugin_folder_is_listed_with_its_summary_and_loads(tmp_path):
    folder = add_plugin(tmp_path, "first")
    (entry,) = [e for e in list_routers([tmp_path]) if e.source == "folder"]
    assert (entry.name, entry.summary) == ("first", "Always the first model.")
    assert entry.location == str(folder)
    decision = make_router("first", None, [tmp_path]).route_single("q")
    assert (decision.model, decision.router) == ("first", "first")


def test_config_yaml_gives_a_plugin_its_defaults_and_parameters_win(tmp_path):
    add_plugin(tmp_path, "first", config="model: from-file\n")
    assert make_router("first", None, [tmp_path]).model == "from-file"
    assert make_router("first", {"model": "given"}, [tmp_path]).model == "given"


def test_a_parameter_the_plugin_does_not_take(tmp_path):
    add_plugin(tmp_path, "first")
    with pytest.raises(ConfigError, match=r"first: .*speed"):
        make_router("first", {"speed": 1}, [tmp_path])


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        (None, "does not exist"),
        ("def broken(:\n", "line 1"),
        ("import no_such_module\n", "ModuleNotFoundError"),
        ("x = 1\n", "expected exactly one router class, found none"),
        (PLUGIN + "\n\nclass Second(First):\n    pass\n", "found First, Second"),
        (PLUGIN.replace("(MetaRouter)", ""), "found none"),
    ],
)
def test_a_broken_plugin_is_a_named_error_and_the_rest_works(tmp_path, source, problem):
    add_plugin(tmp_path, "broken", source)
    add_plugin(tmp_path, "fine")
    with pytest.raises(PluginError, match=rf"broken[\s\S]*{problem}"):
        router_class("broken", [tmp_path])
    assert {"fine", "knnrouter"} <= {e.name for e in list_routers([tmp_path]) if not e.error}
    make_router("fine", None, [tmp_path])


def test_a_syntax_error_shows_in_the_listing(tmp_path):
    add_plugin(tmp_path, "broken", '"""Doc."""\ndef broken(:\n')
    (entry,) = [e for e in list_routers([tmp_path]) if e.name == "broken"]
    assert "line 2" in entry.error


def test_a_missing_extra_of_a_plugin_is_passed_on(tmp_path):
    source = (
        "from waypost.contracts.errors import MissingExtraError\n\n"
        'raise MissingExtraError("torch", "train")\n'
    )
    add_plugin(tmp_path, "heavy", source)
    with pytest.raises(MissingExtraError, match=r"pip install .*waypost\[train\]"):
        router_class("heavy", [tmp_path])


def test_a_plugin_cannot_take_a_built_in_name(tmp_path):
    add_plugin(tmp_path, "knnrouter")
    assert router_class("knnrouter", [tmp_path]).__module__ == "waypost_routers.knnrouter"
    taken = [e for e in list_routers([tmp_path]) if e.name == "knnrouter" and e.error]
    assert "taken by the built-in router" in taken[0].error


def test_a_plugin_that_extends_a_built_in_router_has_its_own_name(tmp_path):
    source = (
        "from waypost_routers.knnrouter import KNNRouter\n\n\nclass Mine(KNNRouter):\n    pass\n"
    )
    add_plugin(tmp_path, "mine", source)
    assert router_class("mine", [tmp_path]).name == "mine"
    assert router_class("knnrouter", [tmp_path]).name == "knnrouter"


def test_hidden_and_private_folders_are_no_plugins(tmp_path):
    add_plugin(tmp_path, ".git")
    add_plugin(tmp_path, "_shared")
    assert not [e for e in list_routers([tmp_path]) if e.source == "folder"]


def test_loading_leaves_no_bytecode_in_the_folder(tmp_path):
    folder = add_plugin(tmp_path, "first")
    router_class("first", [tmp_path])
    assert [path.name for path in folder.iterdir()] == ["router.py"]


def test_changed_source_takes_effect_at_the_next_load(tmp_path):
    folder = add_plugin(tmp_path, "first")
    router_class("first", [tmp_path])
    (folder / "router.py").write_text(PLUGIN.replace('"first"', '"other"'))
    assert make_router("first", None, [tmp_path]).model == "other"


# -- entry points ---------------------------------------------------------------------------


def entry_point(monkeypatch, name, value):
    point = importlib.metadata.EntryPoint(name, value, registry.ENTRY_POINT_GROUP)
    monkeypatch.setattr(
        registry.importlib.metadata, "entry_points", lambda group: [point] if group else []
    )


def test_an_entry_point_names_a_class_or_a_module(monkeypatch):
    for value in ("waypost_routers.best_single:BestSingle", "waypost_routers.best_single"):
        entry_point(monkeypatch, "best_single", value)
        assert issubclass(router_class("best_single", []), MetaRouter)


def test_an_entry_point_is_listed_without_loading(monkeypatch):
    entry_point(monkeypatch, "remote", "no_such_module:Router")
    (entry,) = [e for e in list_routers([]) if e.name == "remote"]
    assert (entry.source, entry.error) == ("entry point", None)


@pytest.mark.parametrize("value", ["no_such_module:Router", "json:loads", "json:JSONEncoder"])
def test_a_broken_entry_point_is_a_named_error(monkeypatch, value):
    entry_point(monkeypatch, "remote", value)
    with pytest.raises(PluginError, match="remote"):
        router_class("remote", [])
