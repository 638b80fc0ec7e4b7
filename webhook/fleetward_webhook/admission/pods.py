"""The review of a new pod: which agents it runs, and whether these may run at all.

Which agents there are is read from the API server's cache, some milliseconds behind; a pod that an Agent applied in
these very milliseconds selects is a pod made before the Agent, and shows in its status. While many pods come, agents
found for one serve those that come right after. The agents and fleets found are
then read as they are at this moment: once a patch that stops an agent is answered, the next pod is held.
"""

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
        found = agents.running(self._reader.recent_agents(request.namespace), pod)
        if not found:  # an Agent may have been applied just now
            found = agents.running(await self._reader.agents(request.namespace), pod)
        if not found:
            return _UNCHANGED
        reader = self._reader
        namespace, fleets, now = await asyncio.gather(
            reader.namespace(request.namespace),
            reader.fleets(),
            asyncio.gather(*(reader.agent(request.namespace, agent.metadata.name) for agent in found)),
        )
        chosen = agents.running(filter(None, now), pod)
        if namespace.excluded or not chosen:
            return _UNCHANGED
        labels = namespace.metadata.labels
        around = agents.of(chosen, fleets, labels)
        fleets_now = await asyncio.gather(*(reader.fleet(fleet.metadata.name) for fleet in around))
        return self._govern(request, chosen, hold=agents.held(chosen, filter(None, fleets_now), labels))

    def _govern(self, request: Request, chosen: list[agents.Agent], *, hold: bool) -> Answer:
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
