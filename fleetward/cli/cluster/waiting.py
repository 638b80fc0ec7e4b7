"""How far a change of operating mode has come into force in a cluster, by what the operator says in status."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from fleetward.cli.change import Change, Standing
from fleetward.cli.cluster.content import resource_type
from fleetward.cli.cluster.kubectl import Kubectl, KubectlError
from fleetward.cli.cluster.live import Live, read_live
from fleetward.registry.slice import MODES

POLL_SECONDS = 0.3
QUIET_SECONDS = 0.8
"""Nothing is told before: it mostly takes a few hundred milliseconds, and then there was nothing to tell."""

Statuses = Mapping[tuple[str, str], Live | None]
"""The status of each object by kind and key."""


def wait_until_in_force(kubectl: Kubectl, change: Change, seconds: float, tell: Callable[[str], None]) -> Standing:
    """Wait until the change is in force, at most `seconds`. Each step on the way there is told once."""
    began = time.monotonic()
    deadline, told = began + seconds, ""
    while True:
        try:
            standing = judge(change, _look(kubectl, change))
        except KubectlError as error:
            standing = Standing(reached=False, text=f"it cannot be followed: {error.message}")
        left = deadline - time.monotonic()
        if standing.reached or left <= 0:
            return standing
        if standing.text != told and time.monotonic() - began > QUIET_SECONDS:
            tell(f"waiting: {standing.text}")
            told = standing.text
        time.sleep(min(POLL_SECONDS, left))


def judge(change: Change, statuses: Statuses) -> Standing:
    """Say whether the change is in force, and if not what is missing."""
    identity = change.identity
    own = statuses.get((identity.kind, identity.key))
    seen = own.observed_generation if own is not None and own.observed_generation is not None else 0
    if own is None or seen < (change.generation or 0):
        return Standing(reached=False, text="the operator has not taken note of it; is fleetward-operator running?")
    if identity.kind == "Agent":
        return _of_agent(change, own)
    agents = {agent.key: statuses.get(("Agent", agent.key)) for agent in change.agents}
    missing = {key: _missing(change, live) for key, live in agents.items()}
    late = [f"{key}: {why}" for key, why in missing.items() if why]
    text = f"in force for {len(agents) - len(late)} of {len(agents)} agents"
    if not late:
        ungoverned = sum(live.pods.without_webhook for live in agents.values() if live is not None and live.pods)
        return Standing(reached=True, text=text + _without(ungoverned))
    return Standing(reached=False, text="; ".join([text, *late[:3], *(["..."] if len(late) > 3 else [])]))


def _of_agent(change: Change, live: Live) -> Standing:
    missing = _missing(change, live)
    if missing:
        return Standing(reached=False, text=missing)
    connected = live.webhooks.connected if live.webhooks else 0
    text = f"in force at {connected} of {connected} decision webhooks" if connected else _NO_WEBHOOK
    pods = live.pods
    if pods is not None and change.after == "Stopped":
        text += f"; no pod is left, {pods.held} held" if pods.held else "; no pod is left"
    if change.after == "Quarantined" and (ready := live.condition("Ready")) is not None:
        return Standing(reached=True, text=ready.message)
    return Standing(reached=True, text=text + _without(pods.without_webhook if pods else 0))


_NO_WEBHOOK = "in force; no decision webhook of it is connected"


def _missing(change: Change, live: Live | None) -> str:
    """Say what is missing until the change holds for an agent; empty where nothing is."""
    if live is None or live.mode is None:
        return "the operator has not said what holds for it"
    mode = live.mode
    if change.after == "Running":
        if mode.source == str(change.identity):
            return f"it is still {mode.operating_mode}"
    elif mode.operating_mode not in MODES or MODES.index(mode.operating_mode) < MODES.index(change.after):
        return f"it is still {mode.operating_mode or 'in no known mode'}"
    webhooks = live.webhooks
    if webhooks is not None and webhooks.current < webhooks.connected:
        return f"in force at {webhooks.current} of {webhooks.connected} decision webhooks"
    return _pods_missing(change, live)


def _pods_missing(change: Change, live: Live) -> str:
    """Say what is to become of pods yet; empty where nothing is."""
    pods = live.pods
    if change.after == "Stopped" and pods is not None and pods.left:
        why = live.condition("Reconciling")
        going = f", {pods.terminating} of them going" if pods.terminating else ""
        return f"{_many(pods.left, 'pod')} left{going}{f' ({why.message})' if why and why.message else ''}"
    if change.after == "Quarantined" and (ready := live.condition("Ready")) is not None and ready.status != "True":
        return ready.message or ready.reason
    return ""


def _without(count: int) -> str:
    if not count:
        return ""
    verb, them = ("has", "it") if count == 1 else ("have", "them")
    return f"; {_many(count, 'pod')} {verb} no decision webhook, and nothing holds {them}: recreate {them}"


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _look(kubectl: Kubectl, change: Change) -> Statuses:
    identity = change.identity
    if identity.kind == "Agent":
        body = kubectl.json("get", resource_type("Agent"), identity.name, "--namespace", identity.namespace)
        return {("Agent", identity.key): read_live(body)}
    types = ",".join(map(resource_type, ("Agent", "AgentFleet")))
    found: dict[tuple[str, str], Live | None] = {}
    for item in kubectl.json("get", types, "--all-namespaces").get("items") or []:
        found[item["kind"], object_key(item)] = read_live(item)
    return found


def object_key(body: Mapping[str, Any]) -> str:
    """Give an object's `namespace/name`, or its name where it is cluster-scoped."""
    metadata = body["metadata"]
    return f"{metadata['namespace']}/{metadata['name']}" if metadata.get("namespace") else str(metadata["name"])
