"""Objects of the API server as plain JSON: read and, by who may, written."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kubernetes.aio.client import ApiClient

from fleetward.resources.names import OPERATOR
from fleetward_operator.kube.rest import JSON, REQUEST_SECONDS, RequestError, request

Body = dict[str, Any]

DRY_RUN_SECONDS = 10.0
"""How long a dry run may take: it waits for webhooks that do not answer, and writes nothing that others could meet."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object, and where the API server keeps it."""

    name: str
    prefix: str
    """`/api/v1`, or `/apis/GROUP/VERSION`."""
    plural: str

    def path(self, namespace: str = "", name: str = "") -> str:
        """Give the path of one object, or of all in a namespace, or of all there are."""
        inside = f"/namespaces/{namespace}" if namespace else ""
        return f"{self.prefix}{inside}/{self.plural}" + (f"/{name}" if name else "")

    @property
    def api_version(self) -> str:
        """As an object of the kind writes it."""
        return self.prefix.removeprefix("/apis/").removeprefix("/api/")


SECRET = Kind("Secret", "/api/v1", "secrets")
CONFIG_MAP = Kind("ConfigMap", "/api/v1", "configmaps")
LEASE = Kind("Lease", "/apis/coordination.k8s.io/v1", "leases")
EVENT = Kind("Event", "/apis/events.k8s.io/v1", "events")
NETWORK_POLICY = Kind("NetworkPolicy", "/apis/networking.k8s.io/v1", "networkpolicies")
CLUSTER_ROLE = Kind("ClusterRole", "/apis/rbac.authorization.k8s.io/v1", "clusterroles")
CRD = Kind("CustomResourceDefinition", "/apis/apiextensions.k8s.io/v1", "customresourcedefinitions")
_ADMISSION = "/apis/admissionregistration.k8s.io/v1"
MUTATING = Kind("MutatingWebhookConfiguration", _ADMISSION, "mutatingwebhookconfigurations")
VALIDATING = Kind("ValidatingWebhookConfiguration", _ADMISSION, "validatingwebhookconfigurations")
POLICY = Kind("ValidatingAdmissionPolicy", _ADMISSION, "validatingadmissionpolicies")
BINDING = Kind("ValidatingAdmissionPolicyBinding", _ADMISSION, "validatingadmissionpolicybindings")


class NotLeadingError(Exception):
    """A write that was not made, because this replica does not lead, or not any more."""


class Objects:
    """Objects through `api`. Before each write, `may_write` is asked; a dry run is no write."""

    def __init__(self, api: ApiClient, may_write: Callable[[], bool] = lambda: True) -> None:
        self._api = api
        self._may_write = may_write

    async def get(self, kind: Kind, name: str, namespace: str = "") -> Body | None:
        """Read an object, consistently (through etcd); None where there is none. Raises RequestError."""
        try:
            return await self._request("get", kind, "GET", kind.path(namespace, name))
        except RequestError as error:
            if error.status == 404:
                return None
            raise

    async def list_named(self, kind: Kind, name: str) -> list[Body]:
        """Read the objects of this name in all namespaces.

        A role that allows `list` for this resourceName alone suffices. Raises RequestError.
        """
        found = await self._request("list", kind, "GET", kind.path(), query={"fieldSelector": f"metadata.name={name}"})
        return list(found["items"])

    async def list_in(self, kind: Kind, namespace: str) -> list[Body]:
        """Read all objects of a namespace. Raises RequestError."""
        return list((await self._request("list", kind, "GET", kind.path(namespace)))["items"])

    async def create(self, kind: Kind, body: Body, *, dry_run: bool = False) -> Body:
        """Create an object. Raises RequestError (409 AlreadyExists, where it exists), NotLeadingError."""
        self._check(dry_run=dry_run)
        query = {"fieldManager": OPERATOR} | ({"dryRun": "All"} if dry_run else {})
        path = kind.path(body["metadata"].get("namespace", ""))
        seconds = DRY_RUN_SECONDS if dry_run else REQUEST_SECONDS
        return await self._request("create", kind, "POST", path, query=query, body=body, seconds=seconds)

    async def replace(self, kind: Kind, body: Body) -> Body:
        """Replace an object, if it is still the version read. Raises RequestError (409 Conflict), NotLeadingError."""
        self._check()
        if not body["metadata"].get("resourceVersion"):
            raise ValueError("an object is replaced by one that was read: metadata.resourceVersion is missing")
        return await self._request(
            "update", kind, "PUT", _path(kind, body), query={"fieldManager": OPERATOR}, body=body
        )

    async def apply(self, kind: Kind, body: Body) -> Body:
        """Apply these fields (server-side apply; they become ours alone). Raises RequestError, NotLeadingError."""
        self._check()
        return await self._request(
            "patch",
            kind,
            "PATCH",
            _path(kind, body),
            query={"fieldManager": OPERATOR, "force": "true"},
            body=body,
            content="application/apply-patch+yaml",
        )

    async def delete(self, kind: Kind, body: Body) -> None:
        """Delete an object, if it is still the version that was read. Raises RequestError, NotLeadingError."""
        self._check()
        version = {key: body["metadata"][key] for key in ("uid", "resourceVersion")}
        try:
            await self._request("delete", kind, "DELETE", _path(kind, body), body={"preconditions": version})
        except RequestError as error:
            if error.status != 404:
                raise

    def _check(self, *, dry_run: bool = False) -> None:
        if not dry_run and not self._may_write():
            raise NotLeadingError

    async def _request(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        content: str = JSON,
        seconds: float = REQUEST_SECONDS,
    ) -> Body:
        if body is not None and method != "DELETE":
            body = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        doing = f"{verb} {kind.name} {_named(kind, path, body)}".strip()
        return await request(self._api, method, path, doing, query=query, body=body, content=content, seconds=seconds)


def _path(kind: Kind, body: Body) -> str:
    return kind.path(body["metadata"].get("namespace", ""), body["metadata"]["name"])


def _named(kind: Kind, path: str, body: Body | None) -> str:
    metadata = (body or {}).get("metadata") or {}
    if "name" in metadata:
        return "/".join(filter(None, (metadata.get("namespace"), metadata["name"])))
    parts = path.removeprefix(kind.prefix).strip("/").split("/")
    return "/".join(part for part in parts if part not in {"namespaces", kind.plural})
