"""The Lease on a real API server: one leads, another takes over, and never two at once."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from kubernetes.aio.client import ApiClient
from support.controlplane.plane import ControlPlane, connected
from support.quiet import QuietProxy
from support.streams import until

from fleetward_operator.cluster.election import MAX_DURATION, Election

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

DURATION = 2.0


class Candidate:
    """An election that runs, and when it began and ended to lead."""

    def __init__(self, api: ApiClient, namespace: str, name: str) -> None:
        self.election = Election(api, namespace, name, duration=DURATION, renew_deadline=1.2, retry=0.2)
        self.changes: list[tuple[float, bool]] = []
        self.election.on_change(lambda leading: self.changes.append((time.monotonic(), leading)))
        self._task = asyncio.create_task(self.election.run())

    @property
    def leading(self) -> bool:
        return self.election.leading

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


@asynccontextmanager
async def standing(api: ApiClient, namespace: str, *names: str) -> AsyncIterator[list[Candidate]]:
    candidates = [Candidate(api, namespace, name) for name in names]
    try:
        yield candidates
    finally:
        for candidate in candidates:
            await candidate.stop()


def lease(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/fleetward-operator"
    return dict(plane.request("GET", path)["spec"])


async def kubectl(plane: ControlPlane, *arguments: str) -> str:
    """Run kubectl beside the loop in which the candidates have to renew in time."""
    return await asyncio.to_thread(plane.kubectl, *arguments)


def there(plane: ControlPlane, namespace: str) -> bool:
    leases = plane.request("GET", f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases")["items"]
    return any(each["metadata"]["name"] == "fleetward-operator" for each in leases)


async def test_one_leads_and_gives_back_when_it_stops(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api, standing(api, namespace, "one", "two") as pair:
        await until(lambda: any(each.leading for each in pair))
        first, second = sorted(pair, key=lambda each: not each.leading)
        name = first.election.identity
        await until(lambda: second.election.holder == name)
        before = lease(plane, namespace)
        assert before["holderIdentity"] == name
        assert before["leaseDurationSeconds"] == DURATION
        assert before["leaseTransitions"] == 0

        await until(lambda: lease(plane, namespace)["renewTime"] > before["renewTime"])
        assert lease(plane, namespace)["acquireTime"] == before["acquireTime"]
        seen = second.election.last_read
        await until(lambda: second.election.last_read > seen)
        assert not second.leading
        assert second.changes == []

        stopped = time.monotonic()
        await first.stop()
        assert not first.leading
        await until(lambda: second.leading)
        assert second.changes[0][0] - stopped < DURATION, "the Lease was given back, so nobody waits for its end"
        after = lease(plane, namespace)
        assert after["holderIdentity"] == second.election.identity
        assert after["leaseTransitions"] == 1
        assert after["acquireTime"] > before["acquireTime"]
        await second.stop()
        assert "holderIdentity" not in lease(plane, namespace)


async def test_of_many_that_start_at_once_one_leads(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api, standing(api, namespace, *map(str, range(8))) as candidates:
        await until(lambda: any(each.leading for each in candidates))
        for _ in range(200):
            assert sum(each.leading for each in candidates) <= 1
            await asyncio.sleep(0.01)


async def test_a_leader_that_is_cut_off_stops_before_another_begins(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api, plane.api() as cut, QuietProxy.to(plane.port) as proxy:
        cut.configuration.host = f"https://127.0.0.1:{proxy.port}"
        async with standing(cut, namespace, "cut") as (first,):
            await until(lambda: first.leading)
            async with standing(api, namespace, "other") as (second,):
                await until(lambda: second.election.holder == "cut")
                proxy.quiet()
                await until(lambda: second.leading)
                assert not first.leading
                assert [leading for _, leading in first.changes] == [True, False]
                assert first.changes[-1][0] < second.changes[0][0]
                assert "no answer" in first.election.problem
                proxy.resume()
                await until(lambda: first.election.holder == "other")
                assert not first.leading
                await until(lambda: not first.election.problem)


@pytest.mark.parametrize("renewed", ["2001-01-01T00:00:00.000000Z", "2101-01-01T00:00:00.000000Z"])
async def test_other_clocks_do_not_matter(plane: ControlPlane, namespace: str, renewed: str) -> None:
    """The record of a leader whose clock is years off holds for its duration from when it was seen."""
    write_lease(plane, namespace, holderIdentity="ghost", renewTime=renewed, acquireTime=renewed, leaseTransitions=7)
    async with plane.api() as api:
        began = time.monotonic()
        async with standing(api, namespace, "one") as (one,):
            await until(lambda: one.election.holder == "ghost")
            await until(lambda: one.leading)
            assert one.changes[0][0] - began >= DURATION
            assert lease(plane, namespace)["leaseTransitions"] == 8


async def test_a_record_longer_than_ours_is_respected(plane: ControlPlane, namespace: str) -> None:
    write_lease(plane, namespace, holderIdentity="ghost", leaseDurationSeconds=3)
    async with plane.api() as api:
        began = time.monotonic()
        async with standing(api, namespace, "one") as (one,):
            await until(lambda: one.leading)
            assert one.changes[0][0] - began >= 3


async def test_edits_by_hand(plane: ControlPlane, namespace: str) -> None:
    async with plane.api() as api, standing(api, namespace, "one") as (one,):
        await until(lambda: one.leading)
        await kubectl(plane, "annotate", "lease", "fleetward-operator", "-n", namespace, "touched=yes")
        before = lease(plane, namespace)
        await until(lambda: lease(plane, namespace)["renewTime"] > before["renewTime"])
        assert one.leading, "somebody else's annotation is no reason to step down"

        await kubectl(plane, "delete", "lease", "fleetward-operator", "-n", namespace)
        await until(lambda: there(plane, namespace))
        assert one.leading

        await asyncio.to_thread(write_lease, plane, namespace, holderIdentity="somebody")
        await until(lambda: not one.changes[-1][1])
        await until(lambda: one.leading)


async def test_who_deletes_the_lease_makes_no_second_leader(plane: ControlPlane, namespace: str) -> None:
    write_lease(plane, namespace, holderIdentity="ghost", leaseDurationSeconds=3)
    async with plane.api() as api:
        began = time.monotonic()
        async with standing(api, namespace, "one") as (one,):
            await until(lambda: one.election.holder == "ghost")
            await kubectl(plane, "delete", "lease", "fleetward-operator", "-n", namespace)
            await until(lambda: one.leading)
            assert one.changes[0][0] - began >= 3


async def test_a_missing_verb_is_named(plane: ControlPlane, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    who = f"--serviceaccount={namespace}:default"
    plane.kubectl("create", "role", "r", "-n", namespace, "--verb=get,create", "--resource=leases.coordination.k8s.io")
    plane.kubectl("create", "rolebinding", "r", "-n", namespace, "--role=r", who)
    write_lease(plane, namespace, holderIdentity="")
    config = plane.kubeconfig_for(namespace, "default")
    async with connected(config) as api, standing(api, namespace, "one") as (one,):
        await until(lambda: one.election.problem)
        seen = one.election.last_read
        await until(lambda: one.election.last_read > seen)
        assert one.election.problem.startswith(f"cannot update Lease {namespace}/fleetward-operator: 403")
        assert "cannot update resource" in one.election.problem
        assert not one.leading
        told = [record for record in caplog.records if "cannot update" in record.getMessage()]
        assert len(told) == 1, "once, not at every try"


@pytest.mark.parametrize(
    ("duration", "deadline", "retry"), [(10, 10, 2), (15, 2, 2), (15, 10, 0), (MAX_DURATION + 1, 10, 2)]
)
def test_times_that_do_not_fit_are_refused(duration: float, deadline: float, retry: float) -> None:
    api: Any = None
    with pytest.raises(ValueError, match="shorter than"):
        Election(api, "n", "i", duration=duration, renew_deadline=deadline, retry=retry)


def write_lease(plane: ControlPlane, namespace: str, **spec: Any) -> None:
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": "fleetward-operator", "namespace": namespace},
        "spec": {"leaseDurationSeconds": 2, "renewTime": "2026-01-01T00:00:00.000000Z"}
        | {key: value for key, value in spec.items() if value},
    }
    plane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(body))
