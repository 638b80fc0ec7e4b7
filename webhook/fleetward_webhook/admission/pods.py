"""The review of a new pod: which agents it runs, decided on what the API server holds at this moment."""

import asyncio

import msgspec

from fleetward_webhook.admission import agents
from fleetward_webhook.admission.inject import RefusedError, govern
from fleetward_webhook.admission.reads import Reader
from fleetward_webhook.admission.review import Answer, MalformedError, Outcome, Request, read_object
from fleetward_webhook.admission.settings import Sidecar

_UNCHANGED = Answer("unchanged")


class Pods:
    """Reviews pods."""

    def __init__(self, reader: Reader, sidecar: Sidecar, system_namespace: str) -> None:
        self._reader = reader
        self._sidecar = sidecar
        self._excluded = {"kube-system", system_namespace}

    async def review(self, request: Request) -> Answer:
        """Answer for one pod. A pod of no agent is left as it is. Raises MalformedError and ReadError."""
        if (request.kind.group, request.kind.kind) != ("", "Pod"):
            raise MalformedError(f"request.kind: found {request.kind.kind[:100]}, allowed Pod")
        if request.operation != "CREATE" or request.namespace in self._excluded:
            return _UNCHANGED
        pod = _pod(request)
        chosen = agents.running(await self._reader.agents(request.namespace), pod)
        if not chosen:
            return _UNCHANGED
        namespace, fleets = await asyncio.gather(self._reader.namespace(request.namespace), self._reader.fleets())
        if namespace.excluded:
            return _UNCHANGED
        hold = agents.held(chosen, fleets, namespace.metadata.labels)
        keys = [agent.key for agent in chosen]
        try:
            governed = govern(read_object(request.object, "object"), keys, self._sidecar, hold=hold)
        except RefusedError as refused:
            return Answer("refused", refusal=f"{refused} (governed by Agent {', '.join(keys)[:200]})")
        outcome: Outcome = "held" if hold else "changed" if governed.patch else "unchanged"
        return Answer(outcome, patch=governed.patch, warnings=governed.warnings)


def _pod(request: Request) -> agents.Pod:
    try:
        return msgspec.json.decode(request.object, type=agents.Pod)
    except msgspec.DecodeError as error:
        raise MalformedError(f"request.object is no Pod: {error}") from None
