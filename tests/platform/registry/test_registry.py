import importlib.metadata

import pytest

from waypost.config import settings
from waypost.contracts.errors import (
    ConfigError,
    MissingExtraError,
    PluginError,
    RegistryError,
)
from waypost.contracts.router import MetaRouter
from waypost.registry import (
    ENTRY_POINT_GROUP,
    PLATFORM_ROUTERS,
    check_router,
    find_router,
    list_routers,
    make_router,
    router_class,
    searching,
)

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
    assert found["knnrouter"].summary.startswith("Average each LLM's scores")
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
        ("x = 1\n", "expected exactly one router class.*found none"),
        (PLUGIN + "\n\nclass Second(First):\n    pass\n", "found First, Second"),
        (PLUGIN.replace("(MetaRouter)", ""), r"found none \(First is not derived from it\)"),
        (PLUGIN.replace("def route_single", "def route"), "First does not define route_single"),
        ("raise RuntimeError('no licence')\n", r"RuntimeError: no licence \(router.py, line 1\)"),
        ("raise SystemExit('bye')\n", "SystemExit: bye"),
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


def test_a_built_in_router_is_found_without_a_search_of_packages_and_folders(monkeypatch):
    def searched(*_, **__):
        raise AssertionError("searched")

    monkeypatch.setattr(importlib.metadata, "entry_points", searched)
    monkeypatch.setattr("waypost.registry.entries._folders", searched)
    assert find_router("knnrouter", []).location == "waypost_routers.knnrouter"
    assert find_router("auto", []).location == PLATFORM_ROUTERS["auto"]
    with pytest.raises(AssertionError, match="searched"):
        find_router("mine", [])


def test_a_plugin_that_extends_a_built_in_router_has_its_own_name(tmp_path):
    source = (
        "from waypost_routers.knnrouter import KNNRouter\n\n\nclass Mine(KNNRouter):\n    pass\n"
    )
    add_plugin(tmp_path, "mine", source)
    assert router_class("mine", [tmp_path]).name == "mine"
    assert router_class("knnrouter", [tmp_path]).name == "knnrouter"


@pytest.mark.parametrize(
    ("named", "problem"),
    [("nowhere", "no such folder"), ("first", "is a plug-in itself"), ("file", "no such folder")],
)
def test_a_wrong_place_is_said(tmp_path, monkeypatch, named, problem):
    add_plugin(tmp_path, "first")
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("WAYPOST_PLUGINS", str(tmp_path / named))
    settings.cache_clear()
    (entry,) = [e for e in list_routers() if e.source == "folder"]
    assert (entry.name, entry.location) == (named, str(tmp_path / named))
    assert problem in entry.error
    with pytest.raises(PluginError, match=problem):
        find_router(named)


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
    point = importlib.metadata.EntryPoint(name, value, ENTRY_POINT_GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [point] if group else [])


def test_an_entry_point_names_a_class_or_a_module(monkeypatch):
    for value in ("waypost_routers.best_single:BestSingle", "waypost_routers.best_single"):
        entry_point(monkeypatch, "best_single", value)
        assert issubclass(router_class("best_single", []), MetaRouter)


def test_an_entry_point_is_listed_with_its_summary_and_not_loaded(monkeypatch, tmp_path):
    (tmp_path / "acme_routing").mkdir()
    source = '"""Never imported here."""\nraise RuntimeError("imported")\n'
    (tmp_path / "acme_routing" / "remote.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    entry_point(monkeypatch, "remote", "acme_routing.remote:Router")
    (entry,) = [e for e in list_routers([]) if e.name == "remote"]
    assert (entry.source, entry.error) == ("entry point", None)
    assert entry.summary == "Never imported here."
    with pytest.raises(PluginError, match=r"remote .*: RuntimeError: imported"):
        router_class("remote", [])


def test_an_entry_point_without_its_package_shows_in_the_listing(monkeypatch):
    entry_point(monkeypatch, "remote", "no_such_module:Router")
    (entry,) = [e for e in list_routers([]) if e.name == "remote"]
    assert entry.error == "no module named 'no_such_module' is installed"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("no_such_module:Router", "no module named 'no_such_module'"),
        ("json.nothing:Router", "ModuleNotFoundError"),
        ("json:nothing", "has no attribute 'nothing'"),
        ("json:loads", "loads is not a subclass of waypost.MetaRouter"),
        ("json:JSONEncoder", "JSONEncoder is not a subclass of waypost.MetaRouter"),
        ("waypost.contracts.router:ScoreRouter", "ScoreRouter does not define _fit, _predict"),
    ],
)
def test_a_broken_entry_point_is_a_named_error(monkeypatch, value, problem):
    entry_point(monkeypatch, "remote", value)
    with pytest.raises(PluginError, match=rf"plug-in remote[\s\S]*{problem}"):
        router_class("remote", [])


def test_an_entry_point_to_a_router_of_another_name_leaves_that_one_its_name(monkeypatch):
    entry_point(monkeypatch, "renamed", "waypost_routers.knnrouter:KNNRouter")
    assert router_class("renamed", []).name == "renamed"
    assert router_class("knnrouter", []).name == "knnrouter"


# -- config files and parameters ------------------------------------------------------------


def test_a_broken_config_file_shows_in_the_listing_and_names_its_line(tmp_path):
    add_plugin(tmp_path, "first", config="model: [\n")
    (entry,) = [e for e in list_routers([tmp_path]) if e.name == "first"]
    assert "config.yaml: is not valid YAML" in entry.error
    with pytest.raises(PluginError, match=r"plug-in first .*config\.yaml"):
        make_router("first", None, [tmp_path])


def test_unknown_keys_of_the_config_file_and_of_the_call_are_named_together(tmp_path):
    add_plugin(tmp_path, "first", config="modl: x\ncolor: red\n")
    with pytest.raises(ConfigError) as caught:
        make_router("first", {"speed": 1}, [tmp_path])
    said = [str(fault) for fault in caught.value.faults]
    assert len(said) == 3
    near = "(did you mean 'model'?)"
    assert said[0].endswith(f"config.yaml: modl: unknown parameter {near}; known are: model")
    assert said[2] == "first: speed: unknown parameter; known are: model"


def test_a_parameter_that_has_no_default_is_asked_for(tmp_path):
    add_plugin(tmp_path, "first", PLUGIN.replace('model="first"', "model"))
    with pytest.raises(ConfigError, match="first: missing a required argument: 'model'"):
        make_router("first", None, [tmp_path])


def test_a_constructor_that_raises_is_the_plugins_fault(tmp_path):
    add_plugin(tmp_path, "first", PLUGIN.replace("self.model = model", "self.model = {}[model]"))
    with pytest.raises(PluginError, match=r"plug-in first .*cannot be built: KeyError at first/"):
        make_router("first", None, [tmp_path])


def test_a_check_says_what_a_router_is(tmp_path):
    add_plugin(tmp_path, "first")
    plain = check_router(find_router("first", [tmp_path]))
    assert (plain.kind, plain.trainable, plain.needs_embeddings) == ("meta", False, False)
    knn = check_router(find_router("knnrouter", []))
    assert (knn.kind, knn.trainable, knn.needs_embeddings) == ("score", True, True)
    assert knn.new_model_support == "few-shot"


# -- where is searched ----------------------------------------------------------------------


def test_of_two_plugins_of_one_name_the_nearer_is_used_and_the_other_said_to_be_shadowed(tmp_path):
    add_plugin(tmp_path / "near", "first")
    add_plugin(tmp_path / "far", "first", PLUGIN.replace('"first"', '"far"'))
    places = [tmp_path / "near", tmp_path / "far"]
    assert make_router("first", None, places).model == "first"
    (shadowed,) = [e for e in list_routers(places) if e.name == "first" and e.error]
    assert shadowed.location == str(tmp_path / "far" / "first")
    assert "taken by the folder router at" in shadowed.error


def test_searching_replaces_the_places_of_the_settings_for_a_while(tmp_path):
    add_plugin(tmp_path, "first")
    with searching([tmp_path]):
        assert make_router("first").name == "first"
        with searching([]), pytest.raises(RegistryError):
            find_router("first")
    with pytest.raises(RegistryError):
        find_router("first")


def test_a_router_of_the_platform_is_listed_where_its_module_is(monkeypatch):
    from waypost.registry import entries

    table = {"nothing": "waypost.tune.no_such_module", "space": "waypost.tune.config"}
    monkeypatch.setattr(entries, "PLATFORM_ROUTERS", table)
    found = {entry.name: entry for entry in list_routers([])}
    assert "nothing" not in found
    assert (found["space"].source, found["space"].location) == ("built-in", "waypost.tune.config")
    assert set(PLATFORM_ROUTERS) >= {"auto", "router_r1"}
