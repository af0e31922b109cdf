"""k8s/images: built from Debian's packages, without a registry; `waypost serve` in it answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
import yaml

from support.image_root import Root, mounted, why_not
from support.served import free_port
from waypost import __version__

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(why_not() is not None, reason=str(why_not())),
]

START_S = 300.0


@pytest.fixture(scope="module")
def image(root: Path) -> Iterator[Root]:
    """The image of the gateway, in which neither torch nor a compiler is."""
    build = [sys.executable, "-P", "k8s/images/build.py", "gateway", "--base", "debian"]
    done = subprocess.run(
        [*build, "--option=--isolation=chroot"], cwd=root, check=False, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**os.environ, "BUILDER": "buildah"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:]
    assert f"waypost/gateway:{__version__}: " in done.stdout.splitlines()[-1]
    assert "SBOM:" in done.stdout
    with mounted(f"waypost/gateway:{__version__}") as found:
        yield found


def said(image: Root, *words: str) -> str:
    done = subprocess.run(image.command(*words), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_serve_in_it_answers(image: Root) -> None:
    port = free_port()
    names = ("smollm2-135m", "qwen2.5-coder-0.5b")
    pool = [{"name": name, "engine": "echo", "placement": "inline"} for name in names]
    args = {"artifact": "serve_configs/starter/artifact", "pool": pool}
    app = {"name": "waypost", "import_path": "waypost.serve.app:build", "args": args}
    data = {"http_options": {"host": "127.0.0.1", "port": port}, "applications": [app]}
    # /tmp of the image is empty at its start, so the file comes as an argument
    script = 'import os, sys; open("/tmp/serve.yaml", "w").write(sys.argv[1]); '
    script += 'os.execvp("waypost", ["waypost", "serve", "/tmp/serve.yaml"])'
    command = image.command("python", "-c", script, yaml.safe_dump(data))
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            begin = time.monotonic()
            while True:
                assert process.poll() is None, process.communicate()[1]
                assert time.monotonic() < begin + START_S
                try:
                    if requests.get(f"{url}/readyz", timeout=5).status_code == 200:
                        break
                except requests.ConnectionError:
                    pass
                time.sleep(1)
            body = {"model": "auto", "messages": [{"role": "user", "content": "What is 12 * 7?"}]}
            answer = requests.post(f"{url}/v1/chat/completions", json=body, timeout=60)
            assert answer.status_code == 200
            # decided by the artifact and the encoder that the image has
            assert answer.headers["x-waypost-router"] == "knnrouter"
            assert answer.headers["x-waypost-model"] in names
        finally:
            process.kill()  # unshare blocks SIGTERM; its end is that of all below it
            process.communicate(timeout=60)


def test_what_kuberay_runs_in_it_is_there(image: Root) -> None:
    """The operator's containers start a login shell, whose path is Debian's, and call ray."""
    assert said(image, "/bin/bash", "-lc", "ray --version").startswith("ray, version 2.60.0")
    assert "usage" in said(image, "python", "-m", "waypost.serve.leave", "--help")


def test_it_has_no_torch_and_writes_nowhere(image: Root) -> None:
    names = ("torch", "pip", "pytest")
    find = f"import importlib.util as u; print(*(n for n in {names} if u.find_spec(n)))"
    assert said(image, "python", "-c", find).strip() == ""
    assert said(image, "id", "-u").strip() == "1000"
    write = "try: open('x', 'w')\nexcept OSError as error: print(type(error).__name__)"
    assert said(image, "python", "-c", write).strip() in ("OSError", "PermissionError")


def test_its_bill_of_materials_names_every_package(image: Root, root: Path) -> None:
    bill = json.loads(said(image, "cat", "sbom.json"))
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.5")
    found = {one["purl"].partition("?")[0] for one in bill["components"]}
    lock = (root / "k8s" / "images" / "gateway.txt").read_text(encoding="utf-8").splitlines()[1:]
    locked = {f"pkg:pypi/{line.partition(';')[0].replace('==', '@')}" for line in lock}
    assert locked <= found
    assert f"pkg:pypi/waypost@{__version__}" in found
    assert any(purl.startswith("pkg:deb/debian/python3.11@") for purl in found)


def test_ray_is_compiled_already(image: Root) -> None:
    """`ray health-check` of KubeRay's first container has a fifth of a core."""
    code = (
        "import ray, pathlib; print((pathlib.Path(ray.__file__).parent / '__pycache__').is_dir())"
    )
    assert said(image, "python", "-c", code).strip() == "True"
