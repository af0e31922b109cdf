"""serveConfigV2: made by a command from serve_configs, and what `waypost serve` would accept."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from support.manifests import K8S, KUSTOMIZATION_FIELDS, graph_args, graphs, ray_service, rendered
from waypost.config import load_config
from waypost.serve.config import ServeArgs
from waypost.serve.config_file import validate_serve_config

GRAPHS = graphs()


@pytest.fixture(scope="module")
def made() -> ModuleType:
    """The command, k8s/serve_configs.py."""
    spec = importlib.util.spec_from_file_location("k8s_serve_configs", K8S / "serve_configs.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_the_files_are_what_the_command_makes(made: ModuleType) -> None:
    for path, text in made.files().items():
        assert path.read_text(encoding="utf-8") == text, "run `make k8s`"
    written = set(K8S.rglob("serve_config.yaml"))
    assert written == set(made.files())


@pytest.mark.parametrize("overlay", GRAPHS)
def test_the_rendered_config_is_the_file_with_the_named_changes(
    made: ModuleType, overlay: str
) -> None:
    table = made.table()
    entry = table.get(f"overlays/{overlay}", table["base"])
    found = yaml.safe_load(ray_service(rendered(overlay))["spec"]["serveConfigV2"])
    if overlay == "local" or f"overlays/{overlay}" in table:
        assert found == made.config(entry)
    # what nobody changed is as in the file
    source = yaml.safe_load((K8S.parent / entry["from"]).read_text(encoding="utf-8"))
    (application,), (served,) = source["applications"], found["applications"]
    assert served["import_path"] == application["import_path"]
    assert served["args"]["artifact"] == application["args"]["artifact"]
    assert [e["name"] for e in served["args"]["pool"]] == [
        e["name"] for e in application["args"]["pool"]
    ]


@pytest.mark.parametrize("overlay", GRAPHS)
def test_waypost_serve_would_accept_it(overlay: str, tmp_path: Path) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(ray_service(rendered(overlay))["spec"]["serveConfigV2"], encoding="utf-8")
    checked = validate_serve_config(file)
    assert checked.host == "0.0.0.0"
    assert isinstance(checked.args["waypost"], ServeArgs)


def test_on_gpus_every_llm_is_vllm_in_the_environment_of_its_image() -> None:
    for overlay in ("gpu", "production"):
        for entry in graph_args(rendered(overlay))["pool"]:
            assert entry["engine"] == "vllm"
            assert "environment" not in entry
            assert entry["ray_actor_options"]["num_gpus"] == 1


def test_an_llm_that_may_rest_gives_its_gpu_back() -> None:
    documents = rendered("gpu")
    resting = [
        entry
        for entry in graph_args(documents)["pool"]
        if entry["autoscaling"]["min_replicas"] == 0
    ]
    assert resting
    groups = ray_service(documents)["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    for entry in resting:
        (resource,) = entry["ray_actor_options"]["resources"]
        (group,) = [g for g in groups if resource in g["rayStartParams"]["resources"]]
        assert (group["replicas"], group["minReplicas"]) == (0, 0)
        assert group["idleTimeoutSeconds"] > 0


@pytest.mark.parametrize(
    ("path", "value", "read"),
    [
        ("http_options.port", 9000, lambda c, a: c["http_options"]["port"]),
        ("args.limits.max_in_flight", 3, lambda c, a: a["limits"]["max_in_flight"]),
        ("args.log.format", "json", lambda c, a: a["log"]["format"]),
        ("args.pool.*.tier", "full", lambda c, a: a["pool"][0]["tier"]),
        ("args.pool.qwen2.5-coder-0.5b.tier", "full", lambda c, a: a["pool"][1]["tier"]),
        ("args.artifact", None, lambda c, a: a.get("artifact")),
    ],
)
def test_a_path_sets_what_it_names(made: ModuleType, path: str, value: Any, read: Any) -> None:
    entry = {"from": "serve_configs/router.yaml", "set": {path: value}}
    config = made.config(entry)
    assert read(config, config["applications"][0]["args"]) == value


def test_a_path_to_no_entry_of_the_pool_is_refused(made: ModuleType) -> None:
    entry = {"from": "serve_configs/router.yaml", "set": {"args.pool.gpt.tier": "full"}}
    with pytest.raises(KeyError, match=r"no such entry of the pool; there are smollm2-135m"):
        made.config(entry)


@pytest.mark.parametrize("folder", sorted(K8S.rglob("kustomization.yaml")), ids=str)
def test_old_and_new_kubectl_know_every_field(folder: Path) -> None:
    kustomization = yaml.safe_load(folder.read_text(encoding="utf-8"))
    assert set(kustomization) <= KUSTOMIZATION_FIELDS
    for base in kustomization.get("bases", ()):
        assert (folder.parent / base / "kustomization.yaml").is_file()


def test_every_file_of_a_folder_is_used() -> None:
    for file in K8S.rglob("kustomization.yaml"):
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
        used = {*read.get("resources", ()), *read.get("patchesStrategicMerge", ())}
        used |= {patch["path"] for patch in read.get("patchesJson6902", ())}
        for generator in read.get("configMapGenerator", ()):
            used |= {name.partition("=")[2] or name for name in generator.get("files", ())}
        there = {path.name for path in file.parent.glob("*.*")} - {file.name}
        assert there == {name for name in used if "/" not in name}, file.parent


def test_the_questions_of_the_router_r1_job_are_a_data_file() -> None:
    from waypost.pipelines.data.config import DataConfig

    load_config(DataConfig, K8S / "overlays" / "jobs" / "questions.yaml")


def test_the_trial_of_a_real_cluster_is_sound_shell(root: Path) -> None:
    """It was not run on one: this, and the overlay that it applies, is what is known of it."""
    if shutil.which("shellcheck") is None:
        pytest.skip("needs shellcheck (Debian: shellcheck)")
    done = subprocess.run(
        ["shellcheck", "k8s/trial.sh"], cwd=root, capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
    assert (root / "k8s" / "overlays" / "production" / "kustomization.yaml").is_file()
