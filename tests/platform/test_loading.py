import json
import logging
import shutil

import numpy as np
import pytest

from waypost import load_router
from waypost.config import settings
from waypost.contracts.artifact import (
    MANIFEST,
    TRAINING,
    _version,
    read_artifact,
    read_manifest,
    write_artifact,
)
from waypost.contracts.errors import (
    ArtifactError,
    EncoderMismatchError,
    NotFittedError,
    PluginError,
    PoolMismatchError,
    RegistryError,
)
from waypost.encoders import make_encoder
from waypost.loading import save_router
from waypost.registry import make_router
from waypost.testing.fitted_routers import new_router
from waypost.testing.synthetic import ENCODER_ID, planted

DATA = planted(60)


class Rebuilt:
    """The hashing encoder with its columns in another order: other vectors, same id."""

    id = ENCODER_ID
    dimension = 64

    def encode(self, texts):
        return make_encoder(ENCODER_ID).encode(texts)[:, ::-1].copy()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("artifacts") / "knn"
    router = new_router("knnrouter", k=7).fit(DATA)
    save_router(router, folder, DATA, metrics={"quality": 0.9}, seed=3)
    return router, folder


def test_a_loaded_router_routes_as_the_fitted_one(saved):
    router, folder = saved
    loaded = load_router(folder)
    texts = planted(20, seed=5).queries
    assert loaded.route_batch(texts) == router.route_batch(texts)
    assert loaded.version == read_manifest(folder).version == router.version
    assert loaded.get_params() == router.get_params()


def test_the_manifest_says_what_it_was_made_of(saved):
    manifest = read_manifest(saved[1])
    assert manifest.router == "knnrouter"
    assert [llm.name for llm in manifest.llms] == list(DATA.names)
    assert (manifest.encoder.id, manifest.encoder.dimension) == (ENCODER_ID, 64)
    assert manifest.data_digest == DATA.digest
    assert manifest.metrics == {"quality": 0.9}
    assert manifest.seed == 3
    assert {"python", "waypost", "numpy"} <= manifest.versions.keys()


def test_no_answer_of_an_llm_is_kept(saved):
    from waypost.contracts.tables import read_routing_table

    table = read_routing_table(saved[1] / TRAINING / "routing_train.parquet")
    assert table["response"].null_count == table.num_rows


def test_the_expected_pool_in_its_order(saved):
    load_router(saved[1], llms=DATA.names)
    with pytest.raises(PoolMismatchError, match="in another order"):
        load_router(saved[1], llms=DATA.names[::-1])
    with pytest.raises(PoolMismatchError, match="other models"):
        load_router(saved[1], llms=["cook"])


def test_another_encoder_is_refused(saved):
    with pytest.raises(EncoderMismatchError, match="was trained with encoder hashing"):
        load_router(saved[1], encoder=make_encoder("hashing+d32+t512"))


def test_a_rebuilt_encoder_fits_again_from_the_stored_questions(saved, caplog):
    with caplog.at_level(logging.WARNING):
        loaded = load_router(saved[1], encoder=Rebuilt())
    assert "fitting the router again" in caplog.text
    assert loaded.version.endswith("-refit")
    np.testing.assert_array_equal(loaded.memory_, DATA.embeddings[:, ::-1])
    other = planted(20, seed=5)
    expected = saved[0].predict_quality(other.batch())
    rebuilt = other.with_embeddings(other.embeddings[:, ::-1], ENCODER_ID)
    np.testing.assert_allclose(loaded.predict_quality(rebuilt.batch()), expected, atol=1e-6)


def test_a_rebuilt_encoder_without_stored_questions_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("waypost.loading.MAX_TRAINING_ROWS", 10)
    save_router(new_router("knnrouter").fit(DATA), tmp_path / "a", DATA)
    assert not (tmp_path / "a" / TRAINING).exists()
    with pytest.raises(EncoderMismatchError, match="run `waypost train`"):
        load_router(tmp_path / "a", encoder=Rebuilt())


def test_a_router_without_embeddings_stores_no_encoder_and_no_questions(tmp_path):
    save_router(new_router("best_single").fit(DATA), tmp_path / "a", DATA)
    assert read_manifest(tmp_path / "a").encoder is None
    assert not (tmp_path / "a" / TRAINING).exists()
    assert load_router(tmp_path / "a").encoder is None


def test_saving_needs_a_fitted_router_with_its_encoder(tmp_path):
    with pytest.raises(NotFittedError):
        save_router(new_router("knnrouter"), tmp_path / "a", DATA)
    router = make_router("knnrouter").fit(DATA)
    with pytest.raises(ArtifactError, match=r"set \.encoder"):
        save_router(router, tmp_path / "a", DATA)


# -- plug-ins -------------------------------------------------------------------------------

PLUGIN = '''"""The last model."""

import numpy as np

from waypost.contracts.router import Prediction, ScoreRouter


class Last(ScoreRouter):
    """Prefers the last column."""

    needs_embeddings = False

    def _fit(self, data):
        self.scores_ = np.arange(len(data.llms)) / len(data.llms)

    def _predict(self, batch):
        return Prediction(quality=np.repeat(self.scores_[None], len(batch), axis=0))
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    folder = tmp_path / "plugins" / "lastrouter"
    folder.mkdir(parents=True)
    (folder / "router.py").write_text(PLUGIN)
    (folder / ".key").write_text("not to be packed")
    monkeypatch.setenv("WAYPOST_PLUGINS", str(tmp_path / "plugins"))
    settings.cache_clear()
    router = make_router("lastrouter").fit(DATA)
    save_router(router, tmp_path / "artifact", DATA)
    monkeypatch.delenv("WAYPOST_PLUGINS")
    settings.cache_clear()
    yield tmp_path / "artifact"
    settings.cache_clear()


def test_plugin_code_runs_only_when_allowed(plugin):
    with pytest.raises(ArtifactError, match="allow_plugin_code: true"):
        load_router(plugin)
    for _ in range(2):  # loading leaves nothing in the artifact that a second load refuses
        loaded = load_router(plugin, allow_plugin_code=True)
        assert loaded.route_single("q").model == "tiny"
        assert loaded.route_single("q").router == "lastrouter"


def test_a_packed_plugin_is_covered_by_the_digests(plugin):
    assert read_manifest(plugin).plugins == ("lastrouter",)
    assert "plugin/lastrouter/router.py" in read_manifest(plugin).files
    assert not (plugin / "plugin" / "lastrouter" / ".key").exists()
    (plugin / "plugin" / "lastrouter" / "router.py").write_text(PLUGIN + "\n")
    with pytest.raises(ArtifactError, match="was changed"):
        load_router(plugin, allow_plugin_code=True)


def test_a_plugin_that_no_longer_loads_is_named(plugin, tmp_path):
    broken = tmp_path / "broken"

    def add(partial):
        shutil.copytree(plugin / "plugin", partial / "plugin")
        (partial / "plugin" / "lastrouter" / "router.py").write_text("import no_such_module\n")

    write_artifact(broken, read_manifest(plugin), {"scores_": np.ones(3)}, add)
    with pytest.raises(PluginError, match="lastrouter"):
        load_router(broken, allow_plugin_code=True)


def test_manifest_is_plain_json(saved):
    json.loads((saved[1] / MANIFEST).read_text(), parse_constant=lambda name: pytest.fail(name))


# -- routers made of others -----------------------------------------------------------------

TEAM = '''"""The mean of its members' scores."""

import numpy as np

from waypost.contracts.router import Prediction, ScoreRouter
from waypost.registry import make_trainable


class Team(ScoreRouter):
    """Composes two routers of the registry."""

    kind = "ensemble"
    needs_embeddings = False
    members = ("lastrouter", "best_single")

    def plugin_names(self):
        return (self.name, *self.members)

    def _fit(self, data):
        self._made = [make_trainable(name).fit(data) for name in self.members]

    def get_state(self):
        arrays, values = super().get_state()
        for member in self._made:
            own, values[member.name] = member.get_state()
            arrays |= {f"{member.name}/{key}": value for key, value in own.items()}
        return arrays, values

    def set_state(self, llms, arrays, values):
        own = {key: value for key, value in arrays.items() if "/" not in key}
        rest = {key: value for key, value in values.items() if key not in self.members}
        super().set_state(llms, own, rest)
        self._made = []
        for name in self.members:
            part = {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith(f"{name}/")}
            self._made.append(make_trainable(name))
            self._made[-1].set_state(llms, part, values[name])

    def _predict(self, batch):
        return Prediction(np.mean([m.predict(batch).quality for m in self._made], axis=0))
'''


@pytest.fixture
def team(tmp_path, monkeypatch):
    for name, source in {"lastrouter": PLUGIN, "team": TEAM}.items():
        (tmp_path / "plugins" / name).mkdir(parents=True)
        (tmp_path / "plugins" / name / "router.py").write_text(source)
    monkeypatch.setenv("WAYPOST_PLUGINS", str(tmp_path / "plugins"))
    settings.cache_clear()
    router = make_router("team").fit(DATA)
    save_router(router, tmp_path / "artifact", DATA)
    monkeypatch.delenv("WAYPOST_PLUGINS")
    settings.cache_clear()
    shutil.rmtree(tmp_path / "plugins")
    return router, tmp_path / "artifact"


def test_the_plugins_of_members_are_packed_and_found_where_it_is_allowed(team):
    router, folder = team
    manifest = read_manifest(folder)
    assert (manifest.kind, manifest.plugins) == ("ensemble", ("team", "lastrouter"))
    with pytest.raises(ArtifactError, match="code of plug-in team, lastrouter"):
        load_router(folder)
    loaded = load_router(folder, allow_plugin_code=True)
    assert loaded.route_single("q").to_dict() == router.route_single("q").to_dict()
    with pytest.raises(RegistryError):  # found for the loading only
        make_router("lastrouter")


# -- kinds and older artifacts --------------------------------------------------------------


def test_a_router_that_changed_its_kind_is_refused(saved, tmp_path):
    manifest, arrays = read_artifact(saved[1])
    write_artifact(tmp_path / "a", manifest.model_copy(update={"kind": "step"}), arrays)
    with pytest.raises(ArtifactError, match="of kind step; knnrouter is now of kind score"):
        load_router(tmp_path / "a")


def test_a_router_that_is_not_installed_names_what_made_the_artifact(saved, tmp_path):
    manifest, arrays = read_artifact(saved[1])
    made = {"router": "acme", "versions": {"acme-routing": "1.2"}}
    write_artifact(tmp_path / "a", manifest.model_copy(update=made), arrays)
    with pytest.raises(RegistryError, match=r"made with acme-routing 1\.2: no router is named"):
        load_router(tmp_path / "a")


@pytest.mark.parametrize(("old", "new"), [("lastrouter", ("lastrouter",)), (None, ())])
def test_a_manifest_of_one_plugin_is_still_read(plugin, old, new):
    path = plugin / MANIFEST
    data = json.loads(path.read_text())
    del data["plugins"], data["kind"], data["digest"]
    data["plugin"] = old
    data["version"] = _version(data)
    path.write_text(json.dumps(data))
    manifest = read_manifest(plugin)
    assert (manifest.kind, manifest.plugins) == ("score", new)
    if old:
        assert load_router(plugin, allow_plugin_code=True).route_single("q").model == "tiny"


def test_the_shipped_artifact_is_one_of_scores(root):
    manifest = read_manifest(root / "serve_configs" / "starter" / "artifact")
    assert manifest.kind == "score"
    assert manifest.plugins == ()
