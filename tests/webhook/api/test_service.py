"""The service and its parts, without HTTP: real spool, real engine."""

import asyncio
import json
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.webhook import make_slice

from fleetward.audit.spool import Spool, SpoolError
from fleetward.decision.action import Action, OutcomeRequest, Spend
from fleetward.decision.evaluation import OpenDecision
from fleetward.registry.slice import Obligation
from fleetward_webhook.sidecar.authority import Authority
from fleetward_webhook.sidecar.commit import GroupCommit
from fleetward_webhook.sidecar.metrics import Metrics
from fleetward_webhook.sidecar.outcomes import Final, OpenDecisions, fingerprint
from fleetward_webhook.sidecar.problem import Kind, Problem
from fleetward_webhook.sidecar.service import Service


class Rig:
    """A service with everything it needs. The disk is made to fail by taking the spool's files away from it."""

    def __init__(self, spool: Spool, commit: GroupCommit) -> None:
        self.spool = spool
        self.commit = commit
        self.authority = Authority()
        self.authority.renewed(self.authority.now(), 3600)
        self.service = Service(spool=spool, authority=self.authority, commit=commit, metrics=Metrics())
        self.service.apply(make_slice())

    async def decide(self, name: str) -> dict[str, object]:
        body = json.dumps({"action": {"kind": "ToolCall", "name": name}}).encode()
        answer: dict[str, object] = json.loads(await self.service.decide(body))
        return answer


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    with Spool.open(tmp_path / "spool") as spool:
        async with GroupCommit(spool) as commit:
            yield Rig(spool, commit)


async def test_a_durable_decision_is_on_the_disk_before_it_is_answered(rig: Rig) -> None:
    await rig.decide("crm.read")
    answer = await rig.decide("pay.invoice")
    assert rig.spool.synced_seq >= int(str(answer["id"]).split("-")[1]) == 2


async def test_other_decisions_are_synced_soon_after(rig: Rig) -> None:
    await rig.decide("crm.read")
    async with asyncio.timeout(10):
        while rig.spool.synced_seq < 1:  # noqa: ASYNC110 - the sync has no event to wait for
            await asyncio.sleep(0.005)


async def test_many_durable_decisions_share_syncs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs: list[int] = []
    real = os.fdatasync

    def count(fd: int) -> None:
        syncs.append(fd)
        real(fd)

    monkeypatch.setattr(os, "fdatasync", count)
    await asyncio.gather(*(rig.decide("pay.invoice") for _ in range(200)))
    assert rig.spool.synced_seq == 200
    assert len(syncs) < 50


async def test_a_durable_decision_that_cannot_be_synced_is_denied(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fdatasync", fail)
        with pytest.raises(Problem, match="Input/output error") as caught:
            await rig.decide("pay.invoice")
        assert caught.value.kind is Kind.SPOOL_UNAVAILABLE
        assert (await rig.decide("crm.read"))["decision"] == "Allow"
    assert "Input/output error" in caplog.text
    rig.spool.acknowledge(rig.spool.next_seq - 1)  # the hub has them: what the disk dropped is safe there
    assert (await rig.decide("pay.invoice"))["decision"] == "Allow"


async def test_an_outcome_that_was_not_recorded_changes_nothing(rig: Rig) -> None:
    decision = str((await rig.decide("later.read"))["id"])
    report = json.dumps({"status": "Succeeded", "result": {"email": "a@example.com"}}).encode()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(Problem) as caught:
            await rig.service.review(decision, report)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.kind is Kind.SPOOL_UNAVAILABLE
    assert json.loads(await rig.service.review(decision, report))["decision"] == "Constrain"


async def test_no_policies_is_no_authority(tmp_path: Path) -> None:
    with Spool.open(tmp_path / "spool") as spool:
        async with GroupCommit(spool) as commit:
            service = Service(spool=spool, authority=Authority(), commit=commit, metrics=Metrics())
            with pytest.raises(Problem) as caught:
                await service.decide(b'{"action": {"kind": "ToolCall", "name": "a"}}')
            assert caught.value.kind is Kind.NO_SNAPSHOT


async def test_waiting_for_a_sync_ends_with_the_disk(tmp_path: Path) -> None:
    spool = Spool.open(tmp_path / "spool")
    async with GroupCommit(spool) as commit:
        seq = spool.append(b'{"seq": 1}')
        spool.close()
        spool._synced = 0
        with pytest.raises(SpoolError, match="closed"):
            await commit.synced(seq)


def opened(number: int, arguments: dict[str, object] | None = None) -> OpenDecision:
    return OpenDecision(
        id=f"w-{number}",
        agent="reports/a",
        action=Action(kind="ToolCall", name="crm.read", arguments=arguments, risk_tags=("pii",)),
        obligations=(Obligation(type="Redact", field="result.email"),),
        expected_digest="sha256:" + "0" * 64,
        run="r",
        spends=(Spend(budget="AgentBudget/reports/day", window="total", born="b", amounts={"records": 5}),),
        since=7.0,
    )


class TestOpenDecisions:
    def test_gives_back_what_was_put_in(self) -> None:
        kept = OpenDecisions(clock=lambda: 7.0)
        kept.add(5, "Constrain", opened(5, {"a": [1, None, "\u00e9"]}))
        kept.add(6, "Deny", None)
        assert kept.find(5, "w-5") == ("Constrain", opened(5, {"a": [1, None, "\u00e9"]}), None)
        assert kept.find(6, "w-6") == ("Deny", None, None)
        assert kept.find(7, "w-7") is None

    def test_the_oldest_are_forgotten_by_number_with_gaps_between(self) -> None:
        kept = OpenDecisions(max_decisions=100)
        for number in range(10, 3010, 3):
            kept.add(number, "Allow", opened(number))
        assert len(kept) == 100
        assert kept.find(3007 - 3 * 99, "x") is not None
        assert kept.find(3007 - 3 * 100, "x") is None

    def test_the_oldest_are_forgotten_by_size(self) -> None:
        kept = OpenDecisions(max_bytes=100_000)
        for number in range(1, 101):
            kept.add(number, "Allow", opened(number, {"text": "x" * 9_000}))
        assert 5 <= len(kept) <= 11
        assert kept.bytes <= 100_000
        assert kept.find(100, "x") is not None

    def test_an_hour_later_nothing_is_known(self) -> None:
        now = 0.0
        kept = OpenDecisions(clock=lambda: now)
        kept.add(1, "Allow", opened(1))
        now = 3599.0
        assert kept.find(1, "w-1") is not None
        now = 3601.0
        assert kept.find(1, "w-1") is None

    def test_the_end_of_an_action_lets_go_of_its_arguments(self) -> None:
        kept = OpenDecisions()
        kept.add(1, "Allow", opened(1, {"text": "x" * 100_000}))
        final = Final(fingerprint(OutcomeRequest(status="Failed")), b"{}", 2, durable=False)
        kept.finish(1, final)
        assert kept.find(1, "w-1") == ("Allow", None, final)
        assert kept.bytes < 200

    def test_added_obligations_stay(self) -> None:
        kept = OpenDecisions(clock=lambda: 7.0)
        kept.add(1, "Allow", opened(1))
        more = opened(1)
        more.obligations = (*more.obligations, Obligation(type="Redact", field="result.name"))
        kept.owes(1, more)
        found = kept.find(1, "w-1")
        assert found is not None
        assert found.opened == more

    def test_outcomes_differ_by_what_they_say_alone(self) -> None:
        one = fingerprint(OutcomeRequest(status="Succeeded", result={"a": 1, "b": 2}))
        assert one == fingerprint(OutcomeRequest(status="Succeeded", result={"b": 2, "a": 1}))
        assert one != fingerprint(OutcomeRequest(status="Succeeded", result={"b": 2, "a": 2}))
        assert one != fingerprint(OutcomeRequest(status="Succeeded"))
