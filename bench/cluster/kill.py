"""From a patch that pauses to the last decision that still allowed, over many connected sidecars."""

import asyncio
import json
import random
import time
from collections.abc import Callable
from typing import Any

from bench.cluster.api import MERGE, Api, connected
from bench.cluster.cluster import Cluster, Others, cluster
from bench.cluster.result import Result, millis, percentile_ms
from bench.cluster.sidecars import connected_sidecars, pods
from bench.world import governed, manifest, other_rules
from fleetward.decision.engine import Engine
from fleetward.decision.request import parse_request
from fleetward.registry.slice import Slice

GOAL_MS = 250.0
NAMESPACE = "bench"
AGENTS = 10
RULES = 1_000
REST_SECONDS = 1.5
"""The longest rest before a stop, chosen at random, so that stops do not keep step with what the operator does."""

WITHIN = 30.0
REQUEST = {"agent": f"{NAMESPACE}/everyone", "action": {"kind": "ToolCall", "name": "crm.customers.read"}}


class _Decider:
    """The decisions of one sidecar: an engine with what was sent to it."""

    def __init__(self) -> None:
        self._request = parse_request(json.dumps(REQUEST).encode())
        self._engine: Engine | None = None
        self.changed = asyncio.Event()
        self.changed_at = 0.0
        """When the engine decided differently from before (`time.perf_counter`)."""
        self.allows = False

    def take(self, slice_: Slice) -> None:
        """Bring a slice into force, as the sidecar does."""
        if self._engine is None:
            self._engine = Engine(slice_)
        else:
            self._engine.apply(slice_)
        allows = self._engine.decide(self._request).allowed
        if allows != self.allows:
            self.allows, self.changed_at = allows, time.perf_counter()
            self.changed.set()

    async def until(self, *, allows: bool) -> None:
        """Wait until it decides so."""
        while self.allows != allows:
            await asyncio.wait_for(self.changed.wait(), WITHIN)
            self.changed.clear()


def measure(sidecars: int, rounds: int, note: Callable[[str], None]) -> Result:
    """Pause and resume so often, an Agent and an AgentFleet in turn, on a control plane of their own."""
    with cluster() as own:
        own.make_namespace(NAMESPACE)
        with own.fleetward() as fleetward:
            return asyncio.run(_measure(own, fleetward.hub, sidecars, rounds, note))


def _manifests() -> list[dict[str, Any]]:
    """Give the agent that every pod runs, beside one of ten others; one fleet of all; policies with many rules."""
    made = [_agent("everyone", {"team": "bench"})]
    made += [_agent(f"worker-{number}", {"app": f"worker-{number}"}) for number in range(AGENTS)]
    made += [one for one in governed() if one["kind"] in {"AgentFleet", "AgentPolicy"}]
    return [*made, *other_rules(RULES, namespace=NAMESPACE)]


def _agent(name: str, labels: dict[str, str]) -> dict[str, Any]:
    spec = {"role": "Worker", "owner": "bench", "workload": {"selector": {"matchLabels": labels}}}
    return manifest("Agent", name, spec, NAMESPACE, team="bench")


async def _measure(own: Cluster, hub: str, sidecars: int, rounds: int, note: Callable[[str], None]) -> Result:
    labels = [{"team": "bench", "app": f"worker-{number % AGENTS}"} for number in range(sidecars)]
    async with connected(own.plane) as api:
        await api.apply_all(_manifests())
        async with pods(own, api, NAMESPACE, labels) as names:
            deciders = {name: _Decider() for name in names}
            takers = {name: decider.take for name, decider in deciders.items()}
            async with connected_sidecars(own, api, hub, takers):
                await asyncio.gather(*(decider.until(allows=True) for decider in deciders.values()))
                note(f"{sidecars} sidecars are connected; {2 * rounds} stops ...")
                return await _stops(api, list(deciders.values()), rounds)


async def _stops(api: Api, deciders: list[_Decider], rounds: int) -> Result:
    agent = f"/apis/fleetward.dev/v1alpha1/namespaces/{NAMESPACE}/agents/everyone"
    fleet = "/apis/fleetward.dev/v1alpha1/agentfleets/bench"
    result, all_last, others = Result(), [], Others()
    found: dict[str, list[list[float]]] = {"Agent": [], "AgentFleet": []}
    for number in range(2 * rounds):
        kind, path = (("Agent", agent), ("AgentFleet", fleet))[number % 2]
        await asyncio.sleep(random.uniform(0, REST_SECONDS))  # noqa: S311 - spreads the stops
        found[kind].append(await _stop(api, path, deciders))
        await _patch(api, path, "Running")
        await asyncio.gather(*(decider.until(allows=True) for decider in deciders))
    for kind, stops in found.items():
        last = [max(changed) - sent for sent, _, *changed in stops]
        all_last += last
        result.samples += [
            millis(f"{kind}: patch sent to its answer", [answered - sent for sent, answered, *_ in stops]),
            millis(f"{kind}: patch sent to change, each sidecar", [c - sent for sent, _, *rest in stops for c in rest]),
            millis(f"{kind}: patch sent to last allowed decision", last),
            millis(
                f"{kind}: patch answered to last allowed decision",
                [max(changed) - answered for _, answered, *changed in stops],
            ),
        ]
    together = millis("patch sent to last allowed decision", all_last)
    result.samples.append(together)
    for percent in (50, 99):
        goal = GOAL_MS if percent == 99 else None
        result.add(f"patch sent to last allowed decision, p{percent}", percentile_ms(together, percent), "ms", goal)
    result.add("patch sent to last allowed decision, at most", percentile_ms(together, 100), "ms", GOAL_MS)
    result.add_others(others.processors())
    result.facts = {"sidecars": len(deciders), "stops": 2 * rounds}
    return result


async def _stop(api: Api, path: str, deciders: list[_Decider]) -> list[float]:
    """Pause; give when the patch was sent, when it was answered, and when each sidecar changed."""
    for decider in deciders:
        decider.changed.clear()
    sent = time.perf_counter()
    await _patch(api, path, "Paused")
    answered = time.perf_counter()
    await asyncio.gather(*(decider.until(allows=False) for decider in deciders))
    return [sent, answered, *(decider.changed_at for decider in deciders)]


async def _patch(api: Api, path: str, mode: str) -> None:
    await api.send("PATCH", path, {"spec": {"operatingMode": mode}}, content=MERGE)
