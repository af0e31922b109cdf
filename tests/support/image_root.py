"""The root of an image that buildah built, run as Kubernetes would: read-only, as another user."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

WRITABLE = ("tmp", "models", "data", "dev/shm")
"""What the manifests mount; the rest cannot be written."""

USER = 1000


def why_not() -> str | None:
    """Return why images cannot be built and run here; None where they can."""
    missing = [name for name in ("mmdebstrap", "buildah") if shutil.which(name) is None]
    if missing:
        return f"needs {' and '.join(missing)} (Debian: apt-get install {' '.join(missing)})"
    if os.geteuid() != 0:
        return "needs root: the image's root is mounted"
    able = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    return None if able.returncode == 0 else "needs mount namespaces"


@dataclass(frozen=True)
class Root:
    """A mounted image.

    Attributes:
        path: Where its root is.
        environment: Its variables.
        folder: Its working folder.
    """

    path: Path
    environment: Mapping[str, str]
    folder: str

    def command(self, *words: str, **variables: str) -> list[str]:
        """Return the command that runs words in it, in a mount and process namespace of its own."""
        mounts = [f"mount --bind {self.path} {self.path}", f"cd {self.path}"]
        mounts += [f"mkdir -p {at} && mount -t tmpfs -o mode=1777 tmpfs {at}" for at in WRITABLE]
        mounts += ["mount --rbind /sys sys", "mount -t proc proc proc"]
        for device in ("null", "zero", "urandom", "random", "full", "tty"):
            mounts.append(f"touch dev/{device}; mount --bind /dev/{device} dev/{device}")
        # names of this machine: a pod gets them from Kubernetes
        for file in ("hosts", "resolv.conf"):
            mounts.append(f"touch etc/{file}; mount --bind /etc/{file} etc/{file}")
        mounts.append(f"mount -o remount,bind,ro {self.path}")
        values = {**self.environment, **variables}
        script = " && ".join(mounts) + ' && exec "$@"'
        return [
            "unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, "sh",
            "chroot", f"--userspec={USER}:{USER}", str(self.path),
            "/usr/bin/env", "-i", f"--chdir={self.folder}",
            *(f"{name}={value}" for name, value in values.items()), *words,
        ]  # fmt: skip


@contextmanager
def mounted(image: str) -> Iterator[Root]:
    """Mount an image during the block."""

    def buildah(*words: str) -> str:
        done = subprocess.run(["buildah", *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    container = buildah("from", "--pull-never", image)
    try:
        form = "{{range .OCIv1.Config.Env}}{{println .}}{{end}}"
        variables = buildah("inspect", "--format", form, container).splitlines()
        environment = dict(line.split("=", 1) for line in variables if "=" in line)
        folder = buildah("inspect", "--format", "{{.OCIv1.Config.WorkingDir}}", container)
        user = buildah("inspect", "--format", "{{.OCIv1.Config.User}}", container)
        assert user == f"{USER}:{USER}"
        yield Root(Path(buildah("mount", container)), environment, folder)
    finally:
        buildah("umount", container)
        buildah("rm", container)
