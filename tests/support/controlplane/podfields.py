"""Fields of a pod as the downward API names them, and the objects that containers and volumes take values from."""

import base64
import re
import time
from collections.abc import Mapping
from typing import Any

from support.controlplane.nodeapi import ApiError, NodeApi

FRESH = 1.0
"""Seconds for which an object that was read is not read again, for this or another pod."""


class MissingError(Exception):
    """Something a container or volume refers to is not there, or this node does not know it. The pod waits for it."""


def field(pod: Mapping[str, Any], path: str, address: str) -> str:
    """Give a field of a pod, such as `metadata.labels['app']`. Raises `MissingError` for one that is unknown."""
    metadata, spec = pod["metadata"], pod["spec"]
    keyed = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if keyed:
        return str((metadata.get(keyed[1]) or {}).get(keyed[2], ""))
    if path in {"metadata.labels", "metadata.annotations"}:
        pairs = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{value}"' for key, value in sorted(pairs.items()))
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata["uid"],
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName", ""),
        "status.podIP": address,
        "status.podIPs": address,
        "status.hostIP": "127.0.0.1",
    }
    if path not in known:
        raise MissingError(f"this node gives no field {path}; it knows {', '.join(known)}, labels and annotations")
    return str(known[path])


class Objects:
    """Reads ConfigMaps and Secrets for all pods of a node."""

    def __init__(self, api: NodeApi) -> None:
        self._api = api
        self._read: dict[tuple[str, str, str], tuple[float, dict[str, bytes] | None]] = {}

    async def data(self, kind: str, namespace: str, name: str) -> dict[str, bytes] | None:
        """Give the data of a `configmaps` or `secrets` object; None where it does not exist."""
        key = (kind, namespace, name)
        read, data = self._read.get(key, (0.0, None))
        if data is None or time.monotonic() - read > FRESH:
            data = await self._get(kind, namespace, name)
            self._read[key] = time.monotonic(), data
        return data

    async def required(self, kind: str, namespace: str, name: str) -> dict[str, bytes]:
        """Give the data; raises `MissingError` where the object does not exist."""
        data = await self.data(kind, namespace, name)
        if data is None:
            raise MissingError(f"{kind.removesuffix('s')} {namespace}/{name} not found")
        return data

    async def _get(self, kind: str, namespace: str, name: str) -> dict[str, bytes] | None:
        try:
            found = await self._api.insist("GET", f"/api/v1/namespaces/{namespace}/{kind}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        data = found.get("data") or {}
        binary = data if kind == "secrets" else found.get("binaryData") or {}
        plain = {} if kind == "secrets" else data
        encoded = {key: base64.b64decode(value) for key, value in binary.items()}
        return encoded | {key: value.encode() for key, value in plain.items()}
