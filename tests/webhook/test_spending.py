"""What actions take out of budgets, between judgement and record: a real service, and the real ledger as its hub."""

import asyncio
import json
import resource
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support.spending import CRM, DAY, RULES, Hub, Side, budget, hub_of, slice_of, throttling, until

from fleetward.audit.record import DecisionRecord, OutcomeRecord
from fleetward.budget import calls, purse
from fleetward.registry.slice import BudgetLimits, BudgetWindow, DefaultEstimate, Mode, Rate
from fleetward.stream import messages
from fleetward_webhook.sidecar import agents
from fleetward_webhook.sidecar.problem import Kind, Problem


@pytest.fixture
async def ten(tmp_path: Path) -> AsyncIterator[Hub]:
    """A budget of ten calls."""
    async with hub_of(tmp_path, budget(10)) as hub:
        yield hub


def decisions(side: Side) -> list[DecisionRecord]:
    return [each for each in side.records() if isinstance(each, DecisionRecord)]


async def test_an_agent_without_budgets_asks_nobody(tmp_path: Path) -> None:
    async with hub_of(tmp_path) as hub:
        side = await hub.side()
        assert (await side.decide())["decision"] == "Allow"
        assert side.asked == []
        assert decisions(side)[0].spends == ()


async def test_the_last_call_may_be_made_and_no_more(ten: Hub) -> None:
    side = await ten.side()
    answers = [await side.decide() for _ in range(25)]
    assert [answer["decision"] for answer in answers] == ["Allow"] * 10 + ["Deny"] * 15
    refused = answers[10]
    assert refused["shortfall"] == {"budget": DAY, "limit": CRM, "needed": 1, "left": 0}
    assert "AgentBudget reports/day" in refused["reason"]
    written = decisions(side)
    assert [bool(each.spends) for each in written] == [True] * 10 + [False] * 15
    assert written[0].spends[0].amounts == {CRM: 1}
    assert written[10].shortfall is not None
    side.deliver()
    assert ten.stands() == (0, 10, 0)
    assert side.metric("fleetward_budget_spends_total") == 10
    assert side.metric('fleetward_budget_refusals_total{decision="Deny"}') == 15


async def test_leases_spare_questions(tmp_path: Path) -> None:
    async with hub_of(tmp_path, budget(100_000)) as hub:
        side = await hub.side()
        for _ in range(1000):
            assert (await side.decide())["decision"] == "Allow"
        assert side.metric("fleetward_budget_reserves_total") == len(side.reserves()) < 50
        assert side.metric("fleetward_budget_leases ") == 1
        side.deliver()
        spent, reserved, leased = hub.stands()
        assert (spent, reserved) == (0, 1000)
        assert 0 <= leased <= 50_000


async def test_what_is_asked_for_meanwhile_goes_into_the_next_question(ten: Hub) -> None:
    side = await ten.side()
    side.answering.clear()
    asking = [asyncio.create_task(side.decide())]
    await side.heard.wait()
    asking += [asyncio.create_task(side.decide()) for _ in range(29)]
    for _ in range(20):
        await asyncio.sleep(0)
    assert [len(each.wishes) for each in side.reserves()] == [1]
    side.answering.set()
    answers = await asyncio.gather(*asking)
    assert sorted(answer["decision"] for answer in answers) == ["Allow"] * 10 + ["Deny"] * 20
    assert [len(each.wishes) for each in side.reserves()] == [1, 29]


async def test_outcomes_settle_once(tmp_path: Path) -> None:
    limits = BudgetLimits(records=100)
    async with hub_of(tmp_path, budget(limits=limits)) as hub:
        side = await hub.side()
        first, second = await side.decide("crm.rows.read"), await side.decide("crm.rows.read")
        assert (await side.report(first, status="Running", actual={"records": 3}))["decision"] == "Allow"
        side.deliver()
        assert hub.stands("records")[:2] == (0, 20)
        done = await side.report(first, status="Succeeded", actual={"records": 30})
        assert await side.report(first, status="Succeeded", actual={"records": 30}) == done
        await side.report(second, status="Failed", error="it broke", actual={"records": 12})
        outcomes = [each for each in side.records() if isinstance(each, OutcomeRecord)]
        assert [each.spends[0].amounts for each in outcomes] == [{"records": 30}, {"records": 12}]
        assert outcomes[0].spends[0].window == "total"
        side.deliver()
        assert hub.stands("records")[:2] == (42, 0)


async def test_wall_time_is_what_was_measured_here(tmp_path: Path) -> None:
    limited = budget(limits=BudgetLimits(wall_seconds=60), default_estimate=DefaultEstimate(wall_seconds=10))
    async with hub_of(tmp_path, limited) as hub:
        side = await hub.side()
        began = time.monotonic()
        decision = await side.decide()
        assert decisions(side)[0].spends[0].amounts == {"wallMilliseconds": 10_000}
        await asyncio.sleep(0.05)
        await side.report(decision, actual={"durationMs": 1})
        took = (time.monotonic() - began) * 1000
        side.deliver()
        spent, reserved, _ = hub.stands("wallMilliseconds")
        assert 45 <= spent <= took + 1
        assert reserved == 0


async def test_without_the_hub_only_what_is_leased_may_be_spent(ten: Hub) -> None:
    side = await ten.side()
    await side.decide()
    side.disconnect()
    with pytest.raises(Problem, match="no connection") as caught:
        await asyncio.gather(*(side.decide() for _ in range(10)))
    assert caught.value.kind is Kind.NO_HUB
    last = decisions(side)[-1]
    assert (last.decision, last.spends) == ("Deny", ())
    assert "no budget can be asked" in last.reason
    side.reconnect()
    assert (await side.decide())["decision"] == "Allow"


async def test_what_cannot_be_recorded_is_put_back(ten: Hub) -> None:
    side = await ten.side()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        for _ in range(3):
            with pytest.raises(Problem) as caught:
                # the ledger writes its own files, so it answers from outside the limit
                await _outside(side, before)
            assert caught.value.kind is Kind.SPOOL_UNAVAILABLE
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    answers = [await side.decide() for _ in range(11)]
    assert [answer["decision"] for answer in answers] == ["Allow"] * 10 + ["Deny"]


async def _outside(side: Side, before: tuple[int, int]) -> None:
    answer = side.hub.answer

    def answering(request: calls.Request, writer: str) -> calls.Reply:
        small = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        try:
            return answer(request, writer)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, small)

    side.hub.answer = answering
    try:
        await side.decide()
    finally:
        side.hub.answer = answer


async def test_what_nobody_waits_for_any_more_is_not_lost(ten: Hub) -> None:
    side = await ten.side()
    side.answering.clear()
    asking = [asyncio.create_task(side.decide()) for _ in range(4)]
    await side.heard.wait()
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    side.answering.set()
    answers = [await side.decide() for _ in range(11)]
    assert [answer["decision"] for answer in answers] == ["Allow"] * 10 + ["Deny"]


# Leases


async def test_leases_that_lie_idle_go_back(ten: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purse, "IDLE_SECONDS", 0.01)
    side = await ten.side()
    await side.decide()
    await side.decide()
    side.deliver()
    assert ten.leased() > 0 or len(side.reserves()) == 2
    side.tend()
    await until(lambda: ten.leased() == 0, "nothing is on lease")
    assert ten.stands() == (0, 2, 0)
    assert (await side.decide())["decision"] == "Allow"


async def test_everything_goes_back_at_the_end(tmp_path: Path) -> None:
    async with hub_of(tmp_path, budget(10_000)) as hub:
        side = await hub.side()
        for _ in range(100):
            await side.decide()
        side.deliver()
        assert hub.leased() > 0
        side.failing = "the hub is busy"
        closing = asyncio.create_task(side.service.leases.close())
        await until(lambda: isinstance(side.asked[-1], calls.Release), "it tries")
        side.failing = ""
        await asyncio.wait_for(closing, 20)
        assert hub.stands() == (0, 100, 0)


async def test_what_is_recalled_is_given_back_at_once_and_said_even_if_it_is_nothing(tmp_path: Path) -> None:
    async with hub_of(tmp_path, budget(1000)) as hub:
        one, other = await hub.side("one"), await hub.side("other")
        for _ in range(50):
            await one.decide()
        one.deliver()
        assert hub.leased() > 0
        for side in (one, other):
            side.questions.take(messages.Recall(pots=(calls.PotRef(budget=DAY),)))
            await until(lambda side=side: side.asked and isinstance(side.asked[-1], calls.Release), "a release")
        await until(lambda: hub.leased() == 0, "nothing is on lease")
        assert isinstance(other.asked[-1], calls.Release)
        assert other.asked[-1].holdings == ()


async def test_what_is_recalled_right_after_a_grant_is_given_back_too(tmp_path: Path) -> None:
    async with hub_of(tmp_path, budget(1000)) as hub:
        side = await hub.side()
        for _ in range(20):
            await side.decide()
        answer = hub.answer

        def recall(request: calls.Request, writer: str) -> calls.Reply:
            reply = answer(request, writer)
            if isinstance(request, calls.Reserve):  # the answer is taken after this, before the loop goes on
                loop = asyncio.get_running_loop()
                loop.call_soon(side.questions.take, messages.Recall(pots=(calls.PotRef(budget=DAY),)))
            return reply

        hub.answer = recall
        before = len(side.reserves())
        while len(side.reserves()) == before:
            await side.decide()
        await until(lambda: isinstance(side.asked[-1], calls.Release), "a release")
        side.deliver()
        await until(lambda: hub.leased() == 0, "nothing is on lease")


async def test_several_webhooks_share_one_budget_to_the_last_call(tmp_path: Path) -> None:
    async with hub_of(tmp_path, budget(200)) as hub:
        sides = [await hub.side(f"spool-{number}") for number in range(5)]
        answers: list[dict[str, Any]] = []

        async def spend(side: Side) -> None:
            for _ in range(100):
                answers.append(await side.decide())
                await asyncio.sleep(0)

        await asyncio.gather(*(spend(side) for side in sides))
        for side in sides:
            side.questions.take(messages.Recall(pots=(calls.PotRef(budget=DAY),)))
            side.deliver()
        await until(lambda: hub.leased() == 0, "all leases are given back")
        rest = [await sides[0].decide() for _ in range(200)]
        allowed = [answer for answer in (*answers, *rest) if answer["decision"] == "Allow"]
        assert len(allowed) == 200
        for side in sides:
            side.deliver()
        assert hub.stands() == (0, 200, 0)


async def test_pots_of_runs_that_are_over_are_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(purse, "IDLE_SECONDS", 0.01)
    monkeypatch.setattr(purse, "FORGET_SECONDS", 0.02)
    async with hub_of(tmp_path, budget(10)) as hub:
        side = await hub.side()
        for _ in range(4):
            await side.decide()
        side.tend()
        held = side.service.leases._purse._current
        await until(lambda: hub.leased() == 4, "what is unspent is given back")
        assert len(held) == 1  # its records have not arrived
        side.deliver()
        await until(lambda: not side.service.leases._purse._current, "it is forgotten")
        answers = [await side.decide() for _ in range(7)]
        assert [answer["decision"] for answer in answers] == ["Allow"] * 6 + ["Deny"]
        side.deliver()
        assert hub.stands() == (0, 10, 0)


# What happens while the hub is asked


async def held_up(side: Side, meanwhile: Callable[[], None]) -> dict[str, Any]:
    side.answering.clear()
    asking = asyncio.create_task(side.decide())
    await side.heard.wait()
    meanwhile()
    side.answering.set()
    return await asking


async def test_an_agent_stopped_meanwhile_stays_stopped(ten: Hub) -> None:
    side = await ten.side()

    def stop() -> None:
        slice_ = slice_of(budget(10), version="2")
        served = slice_.items.agents["reports/data-worker"]
        paused = msgspec.structs.replace(served, mode=Mode(operating_mode="Paused", reason="look into it"))
        items = msgspec.structs.replace(slice_.items, agents={served.key: paused})
        ten.publish(msgspec.structs.replace(slice_, items=items))

    answer = await held_up(side, stop)
    assert (answer["decision"], answer["mode"]["operatingMode"]) == ("Deny", "Paused")
    assert decisions(side)[-1].spends == ()
    assert decisions(side)[-1].registry_version == "2"


async def test_a_budget_that_came_meanwhile_counts(ten: Hub) -> None:
    side = await ten.side()
    none = budget(0, "reports/none")
    answer = await held_up(side, lambda: ten.publish(slice_of(budget(10), none, version="2")))
    assert answer["decision"] == "Deny"
    assert answer["shortfall"]["budget"] == none.key


async def test_authority_lost_meanwhile_denies_and_puts_back(ten: Hub) -> None:
    side = await ten.side()
    with pytest.raises(Problem) as caught:
        await held_up(side, lambda: side.authority.renewed(side.authority.now(), -1.0))
    assert caught.value.kind is Kind.NO_AUTHORITY
    side.authority.renewed(side.authority.now(), 3600)
    answers = [await side.decide() for _ in range(11)]
    assert [answer["decision"] for answer in answers] == ["Allow"] * 10 + ["Deny"]


# Starting anew


async def test_a_restarted_webhook_disowns_once_its_records_arrived(tmp_path: Path) -> None:
    async with hub_of(tmp_path, budget(1000)) as hub:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("fleetward_webhook.sidecar.leasing.TEND_SECONDS", 0.01)
            first = await hub.side()
            for _ in range(50):
                await first.decide()
            leased = hub.leased()
            assert leased > 0
            await first.stop()
            first.spool.close()  # as a killed process, it has given nothing back

            second = await hub.side()
            second.failing = "not now"
            second.tend()
            await asyncio.sleep(0.1)
            assert second.asked == []
            second.deliver()
            await until(lambda: len(second.asked) > 1, "it is said again")
            assert {type(each) for each in second.asked} == {calls.Disown}
            assert not any(each.lost for each in second.asked if isinstance(each, calls.Disown))
            second.failing = ""
            await until(lambda: hub.leased() == 0, "the old leases are void")
            said = len(second.asked)
            await asyncio.sleep(0.05)
            assert len(second.asked) == said
        assert hub.stands() == (0, 50, 0)


async def test_what_a_new_process_spends_comes_off_its_own_lease(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also while the leases of the process before it, which was killed, still stand."""
    monkeypatch.setattr("fleetward_webhook.sidecar.leasing.TEND_SECONDS", 0.01)
    async with hub_of(tmp_path, budget(1000)) as hub:
        first = await hub.side()
        for _ in range(50):
            await first.decide()
        first.deliver()
        await first.stop()
        first.spool.close()

        second = await hub.side()
        for _ in range(20):
            await second.decide()
        second.deliver()
        second.tend()
        await until(lambda: any(isinstance(each, calls.Disown) for each in second.asked), "the first one's leases go")
        await asyncio.wait_for(second.service.leases.close(), 20)
        await until(lambda: hub.stands() == (0, 70, 0), f"nothing is on lease: {hub.stands()}", 5)


async def test_what_a_dead_machine_held_counts_as_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fleetward_webhook.sidecar.leasing.TEND_SECONDS", 0.01)
    async with hub_of(tmp_path, budget(1000)) as hub:
        first = await hub.side()
        for _ in range(50):
            await first.decide()
        first.deliver()
        leased = hub.leased()
        await first.stop()
        state = (tmp_path / "spool" / "writer.json").read_bytes()
        first.spool.close()
        (tmp_path / "spool" / "writer.json").write_bytes(state)  # it was not closed

        monkeypatch.setattr("fleetward.audit.spool.boot_id", lambda: "another-boot")
        second = await hub.side()
        second.spool.close()  # it dies before it could say so

        third = await hub.side()
        assert third.spool.lost
        third.tend()
        third.deliver()
        await until(lambda: hub.leased() == 0, "the old leases are settled")
        assert hub.stands() == (leased, 50, 0)
        await until(lambda: not third.spool.lost, "it is accounted for")
        third.spool.close()
        assert not (await hub.side()).spool.lost


# Other answers


async def test_a_model_call_is_held_to_what_is_reserved(tmp_path: Path) -> None:
    limited = budget(
        limits=BudgetLimits(output_tokens=1000, cost_micro_usd=10_000),
        default_estimate=DefaultEstimate(output_tokens=400),
    )
    async with hub_of(tmp_path, limited) as hub:
        side = await hub.side()
        call = {"kind": "ModelCall", "arguments": {"model": "small-1", "max_tokens": 4096}}
        answer = await side.decide("llm.chat", **call)
        assert answer["decision"] == "Constrain"
        (clamp,) = answer["obligations"]
        assert (clamp["type"], clamp["field"]) == ("Clamp", "arguments.max_tokens")
        spends = decisions(side)[0].spends[0].amounts
        assert spends["outputTokens"] == clamp["maximum"]
        refused = await side.report(answer, actual={"inputTokens": 1, "outputTokens": 1})
        assert refused["decision"] == "Deny"
        assert "max_tokens" in refused["reason"]


async def test_a_rule_throttles_beyond_its_rate(tmp_path: Path) -> None:
    rate = throttling(rate=Rate(count=3, per_seconds=3600, burst=3))
    async with hub_of(tmp_path, rules=(rate,)) as hub:
        side = await hub.side()
        answers = [await side.decide() for _ in range(5)]
        assert [answer["decision"] for answer in answers] == ["Allow"] * 3 + ["Throttle"] * 2
        assert answers[3]["retryAfterSeconds"] >= 1
        assert answers[3]["shortfall"]["budget"] == f"{RULES}#slow"
        assert answers[3]["rules"][0]["rule"] == "slow"
        assert answers[3]["reason"].startswith("throttled by rule slow of AgentPolicy reports/customer-data: ")
        assert all(rule["rule"] != "slow" for rule in answers[0]["rules"])
        assert side.metric('fleetward_budget_refusals_total{decision="Throttle"}') == 2


async def test_a_rule_allows_so_many_at_once(tmp_path: Path) -> None:
    async with hub_of(tmp_path, rules=(throttling(concurrency=2),)) as hub:
        side = await hub.side()
        first, _, third = [await side.decide() for _ in range(3)]
        assert third["decision"] == "Throttle"
        assert third["shortfall"]["limit"] == "concurrency"
        await side.report(first)
        side.deliver()
        assert (await side.decide())["decision"] == "Allow"


async def test_a_budget_that_is_broken_denies(tmp_path: Path) -> None:
    async with hub_of(tmp_path, budget(10, problem="its parent is missing")) as hub:
        side = await hub.side()
        answer = await side.decide()
        assert answer["decision"] == "Deny"
        assert "its parent is missing" in answer["reason"]
        assert side.asked == []


async def test_what_concerns_an_agent_names_its_budgets(tmp_path: Path) -> None:
    window = BudgetWindow(kind="Calendar", unit="Day", time_zone="Europe/Berlin")
    async with hub_of(tmp_path, budget(10, window=window)) as hub:
        side = await hub.side()
        (view,) = json.loads(msgspec.json.encode(agents.describe(side.service.engine)))["agents"]
        (shown,) = view["budgets"]
        assert (shown["kind"], shown["name"], shown["scope"]) == ("AgentBudget", "reports/day", "Shared")
        assert shown["window"]["timeZone"] == "Europe/Berlin"
        assert shown["limits"]["calls"] == [{"names": ["crm.**"], "max": 10}]
