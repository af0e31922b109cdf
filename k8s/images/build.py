"""Build images of Waypost: ``waypost/IMAGE:VERSION`` for each list of packages beside this file.

    .venv/bin/python -P k8s/images/build.py gateway cpu-llm        (make images)

Packages are fetched as wheels by this machine's pip, so with its own configuration (which build of
torch, and from where). With ``--base debian`` the base image, too, is made here, from Debian's
packages (mmdebstrap), without an image registry.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from waypost import __version__
from waypost.encoders import distill

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

IMAGES = tuple(sorted(path.stem for path in HERE.glob("*.txt") if path.stem != "debian"))

ENCODER = ("sentence-transformers/all-MiniLM-L6-v2", 256)
"""The query encoder of the router that comes with Waypost: a gateway with it needs no torch."""

FILES = ("serve_configs", "tune_configs", "rl/waypost_rl/configs", "LICENSE")
"""What configs and jobs name, from the repository's root."""

OWN_BASE = "localhost/waypost-base:12"


def run(*words: str) -> str:
    """Run a command with its output shown, and return its standard output."""
    done = subprocess.run(words, cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE)
    return done.stdout


def builder() -> str:
    """Return docker, podman or buildah: the one of BUILDER, else the first that works here.

    Raises:
        SystemExit: there is none.
    """
    if given := os.environ.get("BUILDER"):
        return given
    for name in ("docker", "podman", "buildah"):
        # docker's client may be there without its service
        if shutil.which(name) is None:
            continue
        if subprocess.run([name, "info"], capture_output=True, check=False).returncode == 0:
            return name
    raise SystemExit("images need docker, podman or buildah (Debian: apt-get install buildah)")


def make_base(tool: str, work: Path) -> str:
    """Make an image of Debian 12 from its packages; return its name."""
    root = work / "root.tar"
    run("mmdebstrap", "--quiet", "--variant=minbase", "bookworm", str(root))
    if tool == "buildah":
        container = run("buildah", "from", "scratch").strip()
        run("buildah", "add", "--quiet", container, str(root), "/")
        run("buildah", "commit", "--quiet", "--rm", container, OWN_BASE)
    else:
        run(tool, "import", str(root), OWN_BASE)
    root.unlink()
    return OWN_BASE


def collect(context: Path, image: str) -> None:
    """Put what an image is made of into a folder: wheels, files, the encoder."""
    wheels, files = context / "wheels", context / "files"
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--wheel-dir", str(wheels))
    run(*pip, "--requirement", str(HERE / f"{image}.txt"))
    run(*pip, "--no-deps", "--no-build-isolation", str(ROOT))
    for name in FILES:
        source, target = ROOT / name, files / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
    encoder = distill.locate(*ENCODER)
    shutil.copytree(encoder, files / "shipped" / "encoders" / encoder.name)
    shutil.copy(HERE / "sbom.py", files)
    shutil.copy(HERE / "debian.txt", context)


def build(tool: str, image: str, base: str | None, options: Sequence[str], work: Path) -> str:
    """Build one image and return its name; the build's log ends with its packages and its size."""
    name = f"waypost/{image}:{__version__}"
    context = work / image
    _tell(f"{name}: fetching the packages of k8s/images/{image}.txt")
    collect(context, image)
    revision = run("git", "rev-parse", "HEAD").strip()
    values = {"IMAGE": image, "VERSION": __version__, "REVISION": revision}
    if base is not None:
        values["BASE"] = base
    words = [tool, "build", "--tag", name, "--file", str(HERE / "Dockerfile"), *options]
    # an image of the OCI's form has no health command
    words += ["--format", "docker"] if tool != "docker" else []
    words += [word for key, value in values.items() for word in ("--build-arg", f"{key}={value}")]
    _tell(f"{name}: building with {tool}")
    subprocess.run([*words, str(context)], cwd=ROOT, check=True)
    shutil.rmtree(context)
    _tell(f"{name}: {size(tool, name) / 1e6:,.0f} MB")
    return name


def size(tool: str, name: str) -> int:
    """Return the size of an image in bytes, layers of its base included."""
    if tool == "buildah":
        (listed,) = json.loads(run("buildah", "images", "--json", name))
        value, unit = listed["size"].split()
        return int(float(value) * {"KB": 1e3, "MB": 1e6, "GB": 1e9}[unit])
    return int(run(tool, "image", "inspect", "--format", "{{.Size}}", name))


def _tell(line: str) -> None:
    sys.stderr.write(line + "\n")


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE", help=f"default: {', '.join(IMAGES)}")
    parser.add_argument("--base", help="the base image; `debian` makes it from Debian's packages")
    parser.add_argument("--option", action="append", default=[], help="of the tool that builds")
    given = parser.parse_args(words)
    if unknown := sorted({*given.images} - {*IMAGES}):
        parser.error(f"no image is named {unknown[0]}; there are {', '.join(IMAGES)}")
    tool = builder()
    with tempfile.TemporaryDirectory(prefix="waypost-images-", dir=os.environ.get("TMPDIR")) as at:
        work = Path(at)
        base = make_base(tool, work) if given.base == "debian" else given.base
        for image in given.images or IMAGES:
            build(tool, image, base, given.option, work)
    return 0


if __name__ == "__main__":
    sys.exit(main())
