"""Many Agents and policies applied: how long until all are Ready, at what cost."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from bench.cluster.api import Api, connected, path_of
from bench.cluster.cluster import Cluster, Others, cluster, cpu_seconds, peak_mib, process, resident_mib
from bench.cluster.result import Result
from bench.world import manifest
from fleetward.resources.names import ADMISSION, OPERATOR

GOAL_SECONDS = 60.0
GOAL_MIB = 400.0
NAMESPACES = 50
WITHIN = 600.0
STEADY_SECONDS = 5.0
"""For so long all must stay Ready to count as such."""


class _Condition(msgspec.Struct, rename="camel"):
    type: str
    status: str
    observed_generation: int = 0


class _Status(msgspec.Struct, rename="camel"):
    observed_generation: int = 0
    conditions: list[_Condition] = []


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    generation: int = 0


class _Object(msgspec.Struct):
    kind: str = ""
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)
    status: _Status = msgspec.field(default_factory=_Status)

    @property
    def ready(self) -> bool:
        """Whether its status is about it as it is now, and says Ready."""
        now = self.metadata.generation
        return self.status.observed_generation == now and any(
            c.type == "Ready" and c.status == "True" and c.observed_generation == now for c in self.status.conditions
        )


class _Event(msgspec.Struct):
    type: str
    object: _Object


_decode = msgspec.json.Decoder(_Event).decode


class Readiness:
    """Which objects are Ready, as watches tell."""

    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._ready: set[tuple[str, str, str]] = set()
        self.since: float | None = None
        """When the last of all became Ready (`time.perf_counter`); None while one is not."""
        self.seen: list[float] = []
        """When the number of Ready objects first reached 1, 2, 3, ..."""
        self.events = 0

    def __len__(self) -> int:
        return len(self._ready)

    async def follow(self, api: Api, plural: str) -> None:
        """Follow the objects of a kind until cancelled."""
        path = f"/apis/fleetward.dev/v1alpha1/{plural}"
        version = (await api.get(f"{path}?limit=1"))["metadata"]["resourceVersion"]
        async for line in api.watch(path, version):
            self._take(_decode(line))

    async def complete(self) -> float:
        """Wait until all are and stay Ready; give when the last of them became so."""
        deadline = time.perf_counter() + WITHIN
        while self.since is None or time.perf_counter() - self.since < STEADY_SECONDS:
            assert time.perf_counter() < deadline, f"after {WITHIN:.0f} s, {len(self)} of {self._wanted} are Ready"
            await asyncio.sleep(0.1)
        return self.since

    def _take(self, event: _Event) -> None:
        self.events += 1
        metadata = event.object.metadata
        key = (event.object.kind, metadata.namespace, metadata.name)
        (self._ready.add if event.object.ready else self._ready.discard)(key)
        now = time.perf_counter()
        if len(self._ready) > len(self.seen):
            self.seen.append(now)
        if len(self._ready) < self._wanted:
            self.since = None
        elif self.since is None:
            self.since = now


def manifests(agents: int, policies: int) -> list[dict[str, Any]]:
    """Give as many Agents and policies, over namespaces, and a fleet for each namespace.

    A policy holds for all agents of its namespace, and each agent is run by pods of its own (there are none).
    """
    made = [_fleet(number) for number in range(NAMESPACES)]
    for number in range(max(agents, policies)):
        namespace = f"team-{number % NAMESPACES}"
        if number < policies:
            made.append(_policy(namespace, number))
        if number < agents:
            workload = {"selector": {"matchLabels": {"app": f"worker-{number}"}}}
            spec = {"role": "Worker", "owner": f"team-{number % NAMESPACES}@example.com", "workload": workload}
            made.append(manifest("Agent", f"worker-{number}", spec, namespace, app=f"worker-{number}"))
    return made


def _fleet(number: int) -> dict[str, Any]:
    selector = {"matchLabels": {"kubernetes.io/metadata.name": f"team-{number}"}}
    return manifest("AgentFleet", f"fleet-{number}", {"agents": {"namespaceSelector": selector}})


def _policy(namespace: str, number: int) -> dict[str, Any]:
    rules = [
        {"name": "read", "match": {"names": [f"service-{number}.read.*"]}, "decision": "Allow"},
        {
            "name": "bulk",
            "match": {"names": [f"service-{number}.**"], "riskTags": ["bulk"]},
            "when": f"action.estimate.records > {100 + number}",
            "decision": "RequireApproval",
            "message": "More records than one run needs",
        },
        {"name": "delete", "match": {"names": [f"service-{number}.delete.*"]}, "decision": "Deny"},
    ]
    return manifest("AgentPolicy", f"policy-{number}", {"rules": rules}, namespace)


def measure(agents: int, policies: int, note: Callable[[str], None]) -> Result:
    """Apply so many, on a control plane of their own."""
    with cluster() as own, own.fleetward() as _:
        return asyncio.run(_measure(own, agents, policies, note))


async def _measure(own: Cluster, agents: int, policies: int, note: Callable[[str], None]) -> Result:
    objects, result = manifests(agents, policies), Result()
    operator, admission = process(OPERATOR), process(ADMISSION)
    async with connected(own.plane) as api:
        await api.apply_all(_namespaces())
        readiness = Readiness(len(objects))
        async with _following(api, readiness):
            before, place = resident_mib(operator), own.audited()
            used = cpu_seconds(operator), cpu_seconds(admission)
            note(f"{len(objects):,} objects are being applied ...")
            applied: list[float] = []
            others, first = Others(), time.perf_counter()
            await api.apply_all(_counting(objects, applied))
            last = time.perf_counter()
            complete = await readiness.complete()
            had = others.processors()
            calls = own.calls(place)
            used = cpu_seconds(operator) - used[0], cpu_seconds(admission) - used[1]
        one = await api.get(path_of(objects[-1]))
    result.add("from the first apply until all are Ready", complete - first, "s", GOAL_SECONDS)
    result.add("from the last apply until all are Ready", complete - last, "s", GOAL_SECONDS)
    result.add("applying alone", last - first, "s")
    for name in (OPERATOR, ADMISSION):
        total = sum(count for (program, _, _), count in calls.items() if program == name)
        result.add(f"API calls per object, {name}", total / len(objects), "calls")
    result.add("operator's memory before", before, "MiB")
    result.add("operator's memory at most", peak_mib(operator), "MiB", GOAL_MIB)
    result.add("operator's memory after", resident_mib(operator), "MiB")
    result.add("admission's memory at most", peak_mib(admission), "MiB")
    result.add("operator's processor time", used[0], "s")
    result.add("admission's processor time", used[1], "s")
    result.add_others(had)
    result.facts = {
        "objects": len(objects),
        "calls": {" ".join(key): count for key, count in calls.most_common()},
        "watch events seen": readiness.events,
        "a status": one["status"],
        "curves": {
            "applied": _curve(applied, first),
            "Ready": _curve(readiness.seen, first),
        },
    }
    return result


def _namespaces() -> Iterator[dict[str, Any]]:
    for number in range(NAMESPACES):
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{number}"}}


def _counting(objects: list[dict[str, Any]], moments: list[float]) -> Iterator[dict[str, Any]]:
    for each in objects:
        moments.append(time.perf_counter())
        yield each


@asynccontextmanager
async def _following(api: Api, readiness: Readiness) -> Any:
    tasks = [asyncio.create_task(readiness.follow(api, kind)) for kind in ("agents", "agentpolicies", "agentfleets")]
    await asyncio.sleep(0.5)  # the watches are open; were one not, the bench would not end
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _curve(moments: list[float], start: float) -> list[tuple[float, int]]:
    step = max(1, len(moments) // 500)
    return [(round(moment - start, 3), number + 1) for number, moment in enumerate(moments)][::step]
