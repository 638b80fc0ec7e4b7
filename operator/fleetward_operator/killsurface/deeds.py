"""What is done to pods, each deed one request and its Event: evicted, released, cut off by a label, and let go again.

Each is for the very pod that was seen. Where that is gone, or is not what it was, nothing is done and that is no error:
the next plan goes by what it is.
"""

from typing import Any

from kubernetes.aio.client import ApiClient

from fleetward.resources.names import OPERATOR, QUARANTINED_LABEL, STOPPED_GATE
from fleetward_operator.killsurface.plan import Action, Verb
from fleetward_operator.kube.events import EventPoster, about
from fleetward_operator.kube.rest import JSON_PATCH, RequestError, request
from fleetward_operator.view.pods import Pod

RIGHT: dict[Verb, str] = {
    "Evict": "create pods/eviction",
    "Release": "patch pods",
    "Quarantine": "patch pods",
    "Unquarantine": "patch pods",
}
"""What the operator's role must allow."""

_LABELS = "/metadata/labels"
_LABEL = f"{_LABELS}/{QUARANTINED_LABEL.replace('/', '~1')}"


class Deeds:
    """Does to pods what an action says."""

    def __init__(self, api: ApiClient, events: EventPoster) -> None:
        self._api = api
        self._events = events

    async def do(self, action: Action) -> None:
        """Do it. Raises RequestError."""
        match action.verb:
            case "Evict":
                await self._evict(action)
            case "Release":
                await self._release(action)
            case "Quarantine":
                await self._quarantine(action)
            case "Unquarantine":
                await self._unquarantine(action)

    async def _evict(self, action: Action) -> None:
        pod = action.pod
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod.name, "namespace": pod.namespace},
            "deleteOptions": {"preconditions": {"uid": pod.uid}},
        }
        try:
            await request(self._api, "POST", f"{_path(pod)}/eviction", _doing("evict", action), body=body)
        except RequestError as error:
            if error.status in {404, 409}:
                return  # it is gone, or another one has its name by now
            raise
        self._events.post(about(pod), "Normal", "Evicted", f"its agents are Stopped: {', '.join(action.agents)}")

    async def _release(self, action: Action) -> None:
        where = f"/spec/schedulingGates/{action.pod.gates.index(STOPPED_GATE)}"
        gone: list[dict[str, Any]] = [
            {"op": "test", "path": where, "value": {"name": STOPPED_GATE}},
            {"op": "remove", "path": where},
        ]
        if await self._patch("release", action, gone):
            why = _freed(action, "Stopped or Quarantined")
            self._events.post(about(action.pod), "Normal", "Released", f"{why}; its scheduling gate is off")

    async def _quarantine(self, action: Action) -> None:
        put: list[dict[str, Any]] = [{"op": "add", "path": _LABEL, "value": "true"}]
        if not action.pod.labels:  # there is no place yet to put it into, and one made meanwhile must stay
            put = [
                {"op": "test", "path": _LABELS, "value": None},
                {"op": "add", "path": _LABELS, "value": {QUARANTINED_LABEL: "true"}},
            ]
        if await self._patch("quarantine", action, put):
            note = f"its agents are Quarantined: {', '.join(action.agents)}; it is labelled to be cut off the network"
            self._events.post(about(action.pod), "Warning", "Quarantined", note)

    async def _unquarantine(self, action: Action) -> None:
        gone = [{"op": "test", "path": _LABEL, "value": "true"}, {"op": "remove", "path": _LABEL}]
        if await self._patch("end the quarantine of", action, gone):
            note = f"{_freed(action, 'Quarantined')}; it is not cut off the network any more"
            self._events.post(about(action.pod), "Normal", "Unquarantined", note)

    async def _patch(self, doing: str, action: Action, operations: list[dict[str, Any]]) -> bool:
        """Patch the pod if it is still the one, and what is tested in it; say whether it was."""
        same = {"op": "test", "path": "/metadata/uid", "value": action.pod.uid}
        try:
            await request(
                self._api,
                "PATCH",
                _path(action.pod),
                _doing(doing, action),
                query={"fieldManager": OPERATOR},
                body=[same, *operations],
                content=JSON_PATCH,
            )
        except RequestError as error:
            if error.status in {404, 409} or error.patch_misfits:
                return False
            raise
        return True


def _path(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod.namespace}/pods/{pod.name}"


def _doing(doing: str, action: Action) -> str:
    return f"{doing} the pod {action.pod.key} ({RIGHT[action.verb]})"


def _freed(action: Action, modes: str) -> str:
    return f"not all its agents are {modes}: {', '.join(action.agents)}" if action.agents else "no Agent selects it"
