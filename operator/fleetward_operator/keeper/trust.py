"""The ConfigMap in each governed namespace by which decision webhooks trust the hub."""

import logging
from collections.abc import Collection

from fleetward.resources.names import CA_CONFIG_MAP, CA_FILE
from fleetward_operator.keeper.ensure import is_ours, own
from fleetward_operator.keeper.problems import Problems
from fleetward_operator.kube.objects import CONFIG_MAP, Body, Objects
from fleetward_operator.kube.rest import RequestError

_log = logging.getLogger(__name__)


async def keep_trust(
    objects: Objects, problems: Problems, bundle: bytes, namespaces: Collection[str], owner: Body | None
) -> None:
    """Have the bundle in these namespaces, and nothing of ours in others. Raises RequestError, NotLeadingError.

    What goes wrong in one namespace is told to `problems` and keeps no other one from its bundle.
    """
    found = {body["metadata"]["namespace"]: body for body in await objects.list_named(CONFIG_MAP, CA_CONFIG_MAP)}
    for namespace in sorted(namespaces):
        with problems.about(f"ConfigMap {namespace}/{CA_CONFIG_MAP}"):
            await _keep(objects, namespace, bundle.decode(), owner, found.get(namespace))
    for namespace in sorted(found.keys() - set(namespaces)):
        if is_ours(found[namespace]):
            with problems.about(f"ConfigMap {namespace}/{CA_CONFIG_MAP}"):
                await objects.delete(CONFIG_MAP, found[namespace])
                _log.info("ConfigMap %s/%s: removed, no agent is left there", namespace, CA_CONFIG_MAP)


async def _keep(objects: Objects, namespace: str, bundle: str, owner: Body | None, have: Body | None) -> None:
    if have is not None:
        metadata = have["metadata"]
        if "deletionTimestamp" in metadata:
            return
        if (have.get("data") or {}).get(CA_FILE) == bundle and own(metadata, owner) == metadata:
            return
        if have.get("immutable"):
            await objects.delete(CONFIG_MAP, have)
    metadata = own({"name": CA_CONFIG_MAP, "namespace": namespace}, owner)
    try:
        await objects.apply(CONFIG_MAP, {"metadata": metadata, "data": {CA_FILE: bundle}})
    except RequestError as error:
        if error.status == 404 or "NamespaceTerminating" in error.causes:
            return  # the namespace goes, or is gone; its agents follow
        raise
    _log.info("ConfigMap %s/%s: %s", namespace, CA_CONFIG_MAP, "created" if have is None else "put right")
