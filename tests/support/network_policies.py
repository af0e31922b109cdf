"""What NetworkPolicies admit, as Kubernetes decides: a connection needs both ends to agree."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

HOME = "waypost"
"""Namespace of the policies."""


@dataclass(frozen=True)
class End:
    """One end of a connection.

    Attributes:
        labels: Labels of the pod; empty for what is no pod.
        namespace: Its namespace; None for an address outside of the cluster.
        address: The address of what is no pod.
    """

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str | None = HOME
    address: str | None = None


def _matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    assert set(selector) <= {"matchLabels"}, f"the simulation does not know {selector}"
    return all(labels.get(name) == value for name, value in selector.get("matchLabels", {}).items())


def _is_peer(peer: Mapping[str, Any], end: End) -> bool:
    if "ipBlock" in peer:
        if end.address is None:
            return False
        address, block = ipaddress.ip_address(end.address), peer["ipBlock"]
        outside = any(address in ipaddress.ip_network(one) for one in block.get("except", ()))
        return address in ipaddress.ip_network(block["cidr"]) and not outside
    if end.namespace is None:
        return False
    if "namespaceSelector" in peer:
        names = {"kubernetes.io/metadata.name": end.namespace}
        if not _matches(peer["namespaceSelector"], names):
            return False
    elif end.namespace != HOME:
        return False
    return _matches(peer.get("podSelector", {}), end.labels)


def _is_port(ports: list[Mapping[str, Any]], port: int, protocol: str) -> bool:
    return not ports or any(
        entry.get("protocol", "TCP") == protocol
        and entry["port"] <= port <= entry.get("endPort", entry["port"])
        for entry in ports
    )


def _one_way(
    policies: list[dict[str, Any]], way: str, own: End, other: End, port: int, protocol: str
) -> bool:
    if own.namespace != HOME:
        return True  # not ours to close
    rules, peers = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}[way]
    specs = [policy["spec"] for policy in policies]
    bound = [
        spec
        for spec in specs
        if way in spec["policyTypes"] and _matches(spec["podSelector"], own.labels)
    ]
    if not bound:
        return True
    return any(
        _is_port(rule.get("ports", []), port, protocol)
        and (peers not in rule or any(_is_peer(peer, other) for peer in rule[peers]))
        for spec in bound
        for rule in spec.get(rules, [])
    )


def admitted(
    policies: list[dict[str, Any]], source: End, target: End, port: int, protocol: str = "TCP"
) -> bool:
    """Return whether these policies let the source connect to a port of the target."""
    return _one_way(policies, "Egress", source, target, port, protocol) and _one_way(
        policies, "Ingress", target, source, port, protocol
    )
