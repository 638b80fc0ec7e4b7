"""Volumes of a pod as directories."""

import asyncio
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from support.controlplane.nodeapi import ApiError, NodeApi
from support.controlplane.podfields import MissingError, Objects, field

REFRESH = 1.0
"""Seconds between two looks for changes. The kubelet takes about a minute."""

Volume = Mapping[str, Any]


class Volumes:
    """The volumes of one pod: made when it starts, kept current while it runs.

    Known are emptyDir, configMap, secret, downwardAPI, projected (of those and service account tokens) and hostPath.
    """

    def __init__(self, pod: Mapping[str, Any], address: str, directory: Path, api: NodeApi, objects: Objects) -> None:
        self._pod, self._address, self._api, self._objects = pod, address, api, objects
        self._namespace: str = pod["metadata"]["namespace"]
        self._volumes: list[Volume] = pod["spec"].get("volumes") or []
        self._tokens: dict[tuple[str, str], tuple[float, bytes]] = {}
        """By volume and path: when a token is to be renewed, and the token."""
        self.paths = {volume["name"]: self._place(volume, directory) for volume in self._volumes}

    def mounts(self, container: Mapping[str, Any]) -> dict[str, Path]:
        """Give the directory behind each mount path of a container."""
        given = container.get("volumeMounts") or ()
        return {mount["mountPath"]: self.paths[mount["name"]] / mount.get("subPath", "") for mount in given}

    async def write(self) -> None:
        """Write every volume as it should be now. Raises `MissingError` for what does not exist or is not known."""
        for volume in self._volumes:
            place = self.paths[volume["name"]]
            if "hostPath" in volume:
                continue
            await asyncio.to_thread(place.mkdir, parents=True, exist_ok=True)
            if "emptyDir" not in volume:
                publish(place, await self._files(volume))

    async def keep_current(self) -> None:
        """Follow changes, and renew tokens before they expire, until cancelled."""
        while any(not {"emptyDir", "hostPath"} & volume.keys() for volume in self._volumes):
            await asyncio.sleep(REFRESH)
            try:
                await self.write()
            except MissingError:  # deleted while in use: what was mounted stays, as with the kubelet
                continue

    def _place(self, volume: Volume, directory: Path) -> Path:
        return Path(volume["hostPath"]["path"]) if "hostPath" in volume else directory / volume["name"]

    async def _files(self, volume: Volume) -> dict[str, bytes]:
        name = volume["name"]
        if "projected" in volume:
            files: dict[str, bytes] = {}
            for source in volume["projected"].get("sources") or ():
                files |= await self._source(name, source)
            return files
        if "secret" in volume:
            secret = volume["secret"]
            return await self._source(name, {"secret": {**secret, "name": secret["secretName"]}})
        return await self._source(name, volume)

    async def _source(self, volume: str, source: Volume) -> dict[str, bytes]:
        if "serviceAccountToken" in source:
            return {source["serviceAccountToken"]["path"]: await self._token(volume, source["serviceAccountToken"])}
        if "downwardAPI" in source:
            items = source["downwardAPI"].get("items") or ()
            return {i["path"]: field(self._pod, i["fieldRef"]["fieldPath"], self._address).encode() for i in items}
        for key, kind in (("configMap", "configmaps"), ("secret", "secrets")):
            if key in source:
                return await self._object(kind, source[key])
        known = ", ".join(source.keys() - {"name"})
        raise MissingError(f"volume {volume}: this node has no volumes of type {known}")

    async def _object(self, kind: str, source: Volume) -> dict[str, bytes]:
        optional, name = source.get("optional", False), source["name"]
        data = await self._objects.data(kind, self._namespace, name)
        if data is None:
            if optional:
                return {}
            raise MissingError(f"{kind.removesuffix('s')} {self._namespace}/{name} not found")
        if not source.get("items"):
            return data
        absent = [item["key"] for item in source["items"] if item["key"] not in data]
        if absent and not optional:
            raise MissingError(f"{kind.removesuffix('s')} {self._namespace}/{name} has no key {', '.join(absent)}")
        return {item["path"]: data[item["key"]] for item in source["items"] if item["key"] in data}

    async def _token(self, volume: str, source: Volume) -> bytes:
        """Give a token bound to the pod; a new one once four fifths of the last one's life are over."""
        renew, token = self._tokens.get((volume, source["path"]), (0.0, b""))
        if time.monotonic() < renew:
            return token
        metadata, account = self._pod["metadata"], self._pod["spec"]["serviceAccountName"]
        seconds = source.get("expirationSeconds") or 3600
        bound = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        audiences = [source["audience"]] if source.get("audience") else []
        spec = {"audiences": audiences, "expirationSeconds": seconds, "boundObjectRef": bound}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
        try:
            issued = (await self._api.insist("POST", path, body))["status"]["token"].encode()
        except ApiError as error:
            raise MissingError(f"no token for service account {account}: {error}") from error
        self._tokens[volume, source["path"]] = time.monotonic() + seconds * 0.8, issued
        return bytes(issued)


def publish(place: Path, files: Mapping[str, bytes]) -> None:
    """Make a directory hold exactly these files, all changed at one moment.

    As the kubelet does it, so that programs which watch for its way of changing files are tried for real: files lie in
    a hidden directory, `..data` links to it and is replaced, and what a program opens links to what is below `..data`.
    """
    data = place / "..data"
    if data.is_symlink():
        last = data.resolve()
        if {str(f.relative_to(last)): f.read_bytes() for f in last.rglob("*") if f.is_file()} == dict(files):
            return
    else:
        last = None
    new = place / f"..{time.time_ns()}"
    for path, content in files.items():
        file = new / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    new.mkdir(exist_ok=True)
    (place / "..data_tmp").symlink_to(new.name)
    (place / "..data_tmp").replace(data)
    tops = {Path(path).parts[0] for path in files}
    for top in tops:
        if not (place / top).is_symlink():
            (place / top).symlink_to(Path("..data") / top)
    for entry in place.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if last is not None:
        shutil.rmtree(last, ignore_errors=True)
