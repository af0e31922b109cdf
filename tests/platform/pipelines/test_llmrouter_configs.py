import pytest
import yaml

from waypost.config import load_config
from waypost.pipelines.data.llmrouter.configs import _PARAMETERS, map_config, write_config
from waypost.pipelines.train import TrainConfig, new_router
from waypost.registry import list_routers, router_class


def config(folder, name, **data):
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


@pytest.mark.parametrize(
    ("name", "theirs", "ours", "unmapped"),
    [
        (
            "mlprouter",
            {"hidden_layer_sizes": [64, 64], "activation": "relu", "lr": 0.01, "epochs": 30},
            {"hidden": 64, "layers": 2, "learning_rate": 0.01, "epochs": 30},
            ("hparam.activation",),
        ),
        (
            "mlprouter",
            {"hidden_layer_sizes": [128, 64], "alpha": 0.0001},
            {"weight_decay": 0.0001},
            ("hparam.hidden_layer_sizes",),
        ),
        (
            "svmrouter",
            {"kernel": "rbf", "C": 1.0, "gamma": "scale", "probability": True},
            {"kernel": "rbf"},
            ("hparam.C", "hparam.gamma", "hparam.probability"),
        ),
        (
            "mfrouter",
            {"latent_dim": 32, "text_dim": 768, "lr": 0.002, "epochs": 5, "noise_alpha": 0.1},
            {"width": 32, "learning_rate": 0.002},
            ("hparam.text_dim", "hparam.epochs", "hparam.noise_alpha"),
        ),
        ("knnrouter", {"n_neighbors": 0}, {}, ("hparam.n_neighbors",)),  # ours allows from 1 on
        (
            "knnrouter",
            {"n_neighbors": 3, "weights": "distance"},
            {"k": 3, "weights": "softmax"},
            (),
        ),
        ("elorouter", {}, {}, ()),
    ],
)
def test_a_config_maps_to_one_that_trains(tmp_path, name, theirs, ours, unmapped):
    path = config(tmp_path, name, data_path={"llm_data": "x.json"}, hparam=theirs)
    found = map_config(path)
    if name not in {entry.name for entry in list_routers()}:
        assert found.router is None
        return
    assert found.router == name
    assert found.train.get("parameters", {}) == ours
    assert found.unmapped == unmapped
    write_config(tmp_path / found.file_name, found)
    settings = load_config(TrainConfig, tmp_path / f"train-{name}.yaml")
    assert {key: new_router(settings).get_params()[key] for key in ours} == ours


def test_dcrouter_is_routerdc_and_its_sections_are_searched(tmp_path):
    path = config(
        tmp_path,
        "dcrouter",
        model_path={"save_model_path": "saved/dcrouter/x.pth", "backbone_model": "m"},
        training={"training_steps": 50, "top_k": 3, "H": 2, "seed": 1, "device": "cpu"},
        data_preprocessing={"n_clusters": 4},
    )
    found = map_config(path)
    assert found.train == {
        "router": "routerdc",
        "parameters": {
            "steps": 50,
            "positives": 3,
            "cluster_negatives": 2,
            "device": "cpu",
            "clusters": 4,
        },
        "seed": 1,
    }
    assert found.unmapped == ("model_path.backbone_model",)


def test_the_router_is_told_by_where_its_model_is_saved(tmp_path):
    path = config(tmp_path, "mine", model_path={"save_model_path": "saved/svmrouter/x.pkl"})
    assert map_config(path).router == "svmrouter"
    assert map_config(config(tmp_path, "tsrouter", hparam={"alpha": 1})).router is None


def test_the_parameters_that_are_mapped_to_exist():
    """Of the routers that are here; a renamed parameter would silently map to nothing."""
    here = {entry.name for entry in list_routers()}
    for router in here & set(_PARAMETERS):
        known = getattr(router_class(router), "parameter_constraints", {})
        assert set(_PARAMETERS[router].values()) <= set(known), router
