"""Creating pods at a steady pace, with our webhooks and without them."""

import asyncio
import math
import time
from collections.abc import Callable
from typing import Any

from support.waiting import until

from bench.cluster.api import Api, RefusedError, connected
from bench.cluster.cluster import Cluster, Others, cluster, cpu_seconds, process
from bench.cluster.result import Result, millis, percentile_ms
from bench.world import manifest
from fleetward.resources.names import ADMISSION, INJECTED_LABEL, INJECTION_LABEL

GOAL_MS = 25.0
A_SECOND = 50
BLOCK = 50
"""Pods of one kind in a row: one second of them. Then it is the next kind's turn, so that all meet the same machine."""

FORBIDDEN = 403

AGENTS = 20
"""Agents in the governed namespace."""

BEFORE = "before Fleetward is installed"
LEFT_ALONE = "in a namespace that is left alone"
UNSELECTED = "governed namespace, no Agent selects the pod"
SELECTED = "governed namespace, an Agent selects the pod"

WHERE = {BEFORE: ("plain", "other"), LEFT_ALONE: ("left-alone", "worker-7")}
WHERE |= {UNSELECTED: ("governed", "other"), SELECTED: ("governed", "worker-7")}
"""By kind of pod: its namespace, and its label `app`."""


def measure(blocks: int, note: Callable[[str], None]) -> Result:
    """Create so many blocks of each kind, on a control plane of their own.

    It has no scheduler, so that pods stay Pending.
    """
    with cluster(scheduler=False) as own:
        own.make_namespace("plain")
        note(f"{blocks * BLOCK:,} pods before the installation ...")
        found = asyncio.run(_paced(own, [BEFORE], blocks))
        own.make_namespace("governed")
        own.make_namespace("left-alone", **{INJECTION_LABEL: "disabled"})
        with own.fleetward():
            asyncio.run(_govern(own))
            until(lambda: _injects(own), "pods of agents are injected")
            note(f"{3 * blocks * BLOCK:,} pods in turn ...")
            place, admission = own.audited(), process(ADMISSION)
            used, others = cpu_seconds(admission), Others()
            found |= asyncio.run(_paced(own, [LEFT_ALONE, UNSELECTED, SELECTED], blocks))
            used, calls, had = cpu_seconds(admission) - used, own.calls(place), others.processors()
    result = _result(found)
    reviewed = 2 * blocks * BLOCK
    result.add("admission's processor time for a pod", used / reviewed * 1000, "ms")
    reads = sum(count for (program, _, _), count in calls.items() if program == ADMISSION)
    result.add("admission's API calls for a pod", reads / reviewed, "calls")
    result.add_others(had)
    result.facts = {"calls": {" ".join(key): count for key, count in calls.most_common()}}
    return result


def _result(taken: dict[str, list[float]]) -> Result:
    found = {kind: millis(kind, [s for s in seconds if s < math.inf]) for kind, seconds in taken.items()}
    result, without = Result(samples=list(found.values())), found[LEFT_ALONE]
    refused = sum(s == math.inf for seconds in taken.values() for s in seconds)
    for percent in (50, 99):
        result.add(f"{BEFORE}, p{percent}", percentile_ms(found[BEFORE], percent), "ms")
        result.add(f"{LEFT_ALONE}, p{percent}", percentile_ms(without, percent), "ms")
        for kind in (UNSELECTED, SELECTED):
            more = percentile_ms(found[kind], percent) - percentile_ms(without, percent)
            result.add(f"{kind}, p{percent}", percentile_ms(found[kind], percent), "ms")
            result.add(f"{kind}, p{percent} overhead", more, "ms", GOAL_MS if percent == 99 else None)
    result.add("pods refused", refused, "pods", 0)
    return result


async def _govern(own: Cluster) -> None:
    async with connected(own.plane) as api:
        await api.apply_all(_agent(number) for number in range(AGENTS))
        await api.apply(manifest("AgentFleet", "all", {"agents": {}}))


def _agent(number: int) -> dict[str, Any]:
    workload = {"selector": {"matchLabels": {"app": f"worker-{number}"}}}
    return manifest("Agent", f"worker-{number}", {"role": "Worker", "owner": "bench", "workload": workload}, "governed")


def _injects(own: Cluster) -> bool:
    body = _pod("trial", "worker-7")
    made = own.plane.request("POST", "/api/v1/namespaces/governed/pods?dryRun=All", body)
    return INJECTED_LABEL in made["metadata"]["labels"]


def _pod(name: str, app: str) -> dict[str, Any]:
    spec = {"containers": [{"name": "agent", "image": "registry.invalid/agent:1"}]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}}, "spec": spec}


async def _paced(own: Cluster, kinds: list[str], blocks: int) -> dict[str, list[float]]:
    """Create blocks of pods of each kind in turn, each pod at its time whether or not earlier ones are answered.

    A block begins when the one before is answered, so that no kind of pod has to wait for another. Gives
    seconds for each; infinity for a pod that was refused.
    """
    taken: dict[str, list[float]] = {kind: [] for kind in kinds}
    async with connected(own.plane) as api:
        await _create(api, "warm-up", kinds[0])
        for block, kind in enumerate(kinds * blocks):
            await _block(api, block, kind, taken[kind])
    return taken


async def _block(api: Api, block: int, kind: str, taken: list[float]) -> None:
    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(BLOCK):
            await asyncio.sleep(start + number / A_SECOND - time.perf_counter())
            group.create_task(_timed(api, f"pod-{block}-{number}", kind, taken))


async def _timed(api: Api, name: str, kind: str, taken: list[float]) -> None:
    start = time.perf_counter()
    try:
        answer = await _create(api, name, kind)
    except RefusedError as error:
        if error.status != FORBIDDEN:
            raise
        # Admission did not answer in the time that the API server gives it, so the governed pod must not be made.
        taken.append(math.inf)
        return
    taken.append(time.perf_counter() - start)
    assert (INJECTED_LABEL.encode() in answer) == (kind == SELECTED), f"{name}: {answer[:2000].decode()}"


async def _create(api: Api, name: str, kind: str) -> bytes:
    namespace, app = WHERE[kind]
    return await api.send("POST", f"/api/v1/namespaces/{namespace}/pods", _pod(name, app))
