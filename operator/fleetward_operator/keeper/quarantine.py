"""The NetworkPolicy that cuts quarantined pods off, in each namespace with a Quarantined agent.

It selects the pods with our label and allows nothing, so it denies everything to and from them, the hub and DNS too:
nothing gets out by a name that is looked up. Decision webhooks then deny, once their authority ends, and keep their
records for when they are connected again.

NetworkPolicies add up: what another one allows to such a pod stays allowed. That is found out here, and told in status.
"""

import logging
from typing import Any

from pydantic import ValidationError

from fleetward.resources.base import LabelSelector
from fleetward.resources.names import QUARANTINE_POLICY, QUARANTINED_LABEL
from fleetward_operator.keeper.ensure import is_ours, own
from fleetward_operator.keeper.problems import Problems
from fleetward_operator.kube.objects import NETWORK_POLICY, Body, Objects
from fleetward_operator.kube.rest import RequestError
from fleetward_operator.view.quarantine import Cuts, Opening, Quarantines

_log = logging.getLogger(__name__)


async def keep_quarantine(objects: Objects, problems: Problems, wanted: Quarantines, owner: Body | None) -> Cuts:
    """Have the policy where agents are Quarantined, until no pod has the label. Raises RequestError, NotLeadingError.

    Gives where it stands. What goes wrong in one namespace is told to `problems`, and the others get theirs.
    """
    named = await objects.list_named(NETWORK_POLICY, QUARANTINE_POLICY)
    found = {body["metadata"]["namespace"]: body for body in named}
    cuts: dict[str, tuple[Opening, ...]] = {}
    for namespace in sorted(wanted.agents):
        with problems.about(f"NetworkPolicy {namespace}/{QUARANTINE_POLICY}"):
            if await _keep(objects, namespace, owner, found.get(namespace)):
                cuts[namespace] = _openings(await objects.list_in(NETWORK_POLICY, namespace))
    for namespace in sorted(found.keys() - wanted.agents - wanted.pods):
        if is_ours(found[namespace]):
            with problems.about(f"NetworkPolicy {namespace}/{QUARANTINE_POLICY}"):
                await objects.delete(NETWORK_POLICY, found[namespace])
                _log.info("NetworkPolicy %s/%s: removed, nothing is quarantined there", namespace, QUARANTINE_POLICY)
    return cuts


async def _keep(objects: Objects, namespace: str, owner: Body | None, have: Body | None) -> bool:
    """Have the policy in a namespace; say whether it is there."""
    if have is not None:
        metadata, spec = have["metadata"], have["spec"]
        if "deletionTimestamp" in metadata:
            return False
        if {key: spec.get(key) or [] for key in _SPEC} == _SPEC and own(metadata, owner) == metadata:
            return True
    metadata = own({"name": QUARANTINE_POLICY, "namespace": namespace}, owner)
    try:
        await objects.apply(NETWORK_POLICY, {"metadata": metadata, "spec": _SPEC})
    except RequestError as error:
        if error.status == 404 or "NamespaceTerminating" in error.causes:
            return False  # the namespace goes, or is gone; its agents follow
        raise
    _log.info("NetworkPolicy %s/%s: %s", namespace, QUARANTINE_POLICY, "created" if have is None else "put right")
    return True


_SPEC: dict[str, Any] = {
    "podSelector": {"matchLabels": {QUARANTINED_LABEL: "true"}},
    "policyTypes": ["Ingress", "Egress"],
    "ingress": [],
    "egress": [],
}
"""Applied with the empty lists, so that rules that somebody adds go again."""


def _openings(policies: list[Body]) -> tuple[Opening, ...]:
    """Give the policies besides ours that allow something, by name."""
    others = sorted(policies, key=lambda body: str(body["metadata"]["name"]))
    return tuple(
        Opening(body["metadata"]["name"], _selector(body["spec"].get("podSelector") or {}))
        for body in others
        if body["metadata"]["name"] != QUARANTINE_POLICY and _allows(body["spec"])
    )


def _allows(spec: Body) -> bool:
    types = spec.get("policyTypes") or ("Ingress", "Egress")
    return any(direction in types and spec.get(direction.lower()) for direction in ("Ingress", "Egress"))


def _selector(selector: Body) -> LabelSelector:
    """Read a selector; one that is larger than ours may be counts as selecting everything."""
    try:
        return LabelSelector.model_validate(selector)
    except ValidationError:
        return LabelSelector()
