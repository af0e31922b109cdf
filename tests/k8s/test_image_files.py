"""What the images are made of, without building one (tests/e2e/test_images.py builds one)."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from support.manifest_rules import images_made
from support.manifests import K8S

IMAGES = K8S / "images"


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """The command, k8s/images/build.py."""
    spec = importlib.util.spec_from_file_location("k8s_images_build", IMAGES / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def dockerfile() -> str:
    return (IMAGES / "Dockerfile").read_text(encoding="utf-8")


def test_the_images_that_manifests_name_are_built(build: ModuleType) -> None:
    assert {f"waypost/{name}" for name in build.IMAGES} == images_made()
    assert set(build.IMAGES) == {"gateway", "cpu-llm", "router-r1", "trainer"}


def test_the_files_of_the_images_are_there(build: ModuleType, root: Path) -> None:
    for name in build.FILES:
        assert (root / name).exists()


def test_an_unknown_image_is_refused(build: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        build.main(["gatway"])
    assert "no image is named gatway; there are cpu-llm, gateway" in capsys.readouterr().err


def test_debian_packages_are_of_images_that_there_are(build: ModuleType) -> None:
    lines = (IMAGES / "debian.txt").read_text(encoding="utf-8").splitlines()
    named = {line.split()[0] for line in lines if not line.startswith("#")}
    assert named <= set(build.IMAGES)


def test_an_image_runs_as_the_user_of_the_manifests_and_needs_no_shell(dockerfile: str) -> None:
    assert re.findall(r"^USER (.*)$", dockerfile, re.MULTILINE) == ["1000:1000"]
    for word in ("ENTRYPOINT", "CMD"):
        for line in re.findall(rf"^\s*{word} (.*)$", dockerfile, re.MULTILINE):
            assert line.startswith("["), f"{word} in a shell: {line}"
    assert len(re.findall(r"^FROM ", dockerfile, re.MULTILINE)) == 3
    assert "latest" not in dockerfile


def test_a_pod_has_the_paths_of_its_image(dockerfile: str) -> None:
    said = dict(re.findall(r"^(?:ENV|   ) ?(\w+)=(\S+)", dockerfile, re.MULTILINE))
    manifest = (K8S / "base" / "rayservice.yaml").read_text(encoding="utf-8")
    for name in ("WAYPOST_ROOT", "WAYPOST_CACHE", "HF_HOME", "HOME"):
        assert f"{{name: {name}, value: {said[name]}}}" in manifest
    assert said["WAYPOST_SHIPPED"].startswith(said["WAYPOST_ROOT"])
