"""Start a copy of a suspended RayJob of this namespace: what a CronJob runs inside a cluster.

    python -m waypost.jobs.again waypost-retrain

The RayJob stays as it is, a pattern. Nothing is started while an earlier copy runs. Needs an
account that may get, list and create RayJobs, and nothing else.
"""

from __future__ import annotations

import json
import ssl
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waypost.config import environment_value
from waypost.contracts.errors import JobError

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where Kubernetes puts token, namespace and the certificate of the API server."""

OF = "waypost.dev/copy-of"
"""Label of a copy: the name of its pattern."""

ENDED = frozenset({"Complete", "Failed", "ValidationFailed"})
"""Values of ``status.jobDeploymentStatus`` of a RayJob that is over (KubeRay 1.7)."""

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Api:
    """The API server of Kubernetes, as a pod reaches it.

    Attributes:
        url: Its address.
        namespace: The pod's namespace.
        token: The account's token.
        certificate: File with the certificate of its authority; None for plain HTTP.
    """

    url: str
    namespace: str
    token: str
    certificate: Path | None = None

    @classmethod
    def of_pod(cls, account: Path = ACCOUNT) -> Api:
        """Return the API server of the pod that this process runs in.

        Raises:
            JobError: this is no pod, or its account has no token.
        """
        host, port = (environment_value(f"KUBERNETES_SERVICE_{part}") for part in ("HOST", "PORT"))
        if host is None or port is None:
            raise JobError("KUBERNETES_SERVICE_HOST and _PORT are not set: run this in a pod")
        try:
            token = (account / "token").read_text(encoding="utf-8").strip()
            namespace = (account / "namespace").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise JobError(f"the pod's account has no token here: {error}") from None
        shown = f"[{host}]" if ":" in host else host
        return cls(f"https://{shown}:{port}", namespace, token, account / "ca.crt")

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Return the answer about RayJobs of the namespace.

        Args:
            method: HTTP method.
            path: What follows ``rayjobs`` in the address.
            body: What is sent.

        Raises:
            JobError: see there.
        """
        where = f"/apis/ray.io/v1/namespaces/{self.namespace}/rayjobs{path}"
        request = urllib.request.Request(  # noqa: S310 - the address is the API server's
            self.url + where,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"authorization": f"Bearer {self.token}", "content-type": "application/json"},
        )
        context = None
        if self.certificate is not None:
            context = ssl.create_default_context(cafile=str(self.certificate))
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=context) as reply:  # noqa: S310
                return json.load(reply)
        except urllib.error.HTTPError as error:
            with error:
                said = error.read(2000).decode("utf-8", "replace")
            raise JobError(f"{method} {where}: {error.code}: {_message(said)}") from None
        except (OSError, ValueError) as error:
            raise JobError(f"{method} {where}: {error}") from None


def _message(said: str) -> str:
    try:
        return str(json.loads(said)["message"])
    except (ValueError, TypeError, KeyError):
        return said


def copy_of(pattern: Mapping[str, Any]) -> dict[str, Any]:
    """Return a RayJob like the pattern that starts at once; the server completes its name."""
    metadata = pattern["metadata"]
    name = metadata["name"]
    return {
        "apiVersion": pattern["apiVersion"],
        "kind": pattern["kind"],
        "metadata": {
            "generateName": f"{name}-",
            "namespace": metadata["namespace"],
            "labels": {**metadata.get("labels", {}), OF: name},
        },
        "spec": {**pattern["spec"], "suspend": False},
    }


def start_again(api: Api, name: str) -> str:
    """Start a copy of a RayJob, unless one runs; return what was done, in words.

    Raises:
        JobError: there is no such RayJob, or the server refuses.
    """
    for job in api.ask("GET", f"?labelSelector={OF}%3D{name}")["items"]:
        state = job.get("status", {}).get("jobDeploymentStatus", "")
        if state not in ENDED:
            running = job["metadata"]["name"]
            return f"{running} still runs ({state or 'just made'}): nothing is started"
    made = api.ask("POST", "", copy_of(api.ask("GET", f"/{name}")))
    return f"{made['metadata']['name']} is started"


def main(words: Sequence[str] | None = None) -> int:
    """Run the command; return the exit code."""
    given = sys.argv[1:] if words is None else list(words)
    if len(given) != 1:
        sys.stderr.write("usage: python -m waypost.jobs.again NAME-OF-A-RAYJOB\n")
        return 2
    try:
        sys.stdout.write(start_again(Api.of_pod(), given[0]) + "\n")
    except JobError as error:
        sys.stderr.write(f"again: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
