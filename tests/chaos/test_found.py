"""What the chaos suite found, each with a test of its own."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from fleetward.audit.spool import Spool
from fleetward.audit.store import Store
from fleetward.budget import calls
from fleetward.budget.ledger import Ledger
from fleetward.budget.pot import decode_pot
from fleetward.budget.store import open_ledger_store
from fleetward.budget.terms import Terms
from fleetward.decision.replies import Failed
from fleetward.registry.registry import Registry
from fleetward.registry.slice import BudgetWindow
from fleetward.resources import KINDS
from fleetward.stream import messages
from fleetward_operator.hub.budgets import Budgets
from fleetward_webhook.sidecar.leasing import Leases
from fleetward_webhook.sidecar.questions import Questions

BUDGET = "AgentBudget/lab/day"
AGENT = "lab/a"
NOW = 1_800_000_000.0
RECORDS = "records"


def terms(most: int = 10, window: BudgetWindow | None = None) -> Callable[[str], Terms]:
    known = Terms(budget=BUDGET, limits={RECORDS: most}, window=window or BudgetWindow())
    return lambda _: known


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with contextlib.closing(Ledger(open_ledger_store(tmp_path / "budgets.db"))) as ledger:
        yield ledger


def wish(amount: int) -> calls.Wish:
    return calls.Wish(agent=AGENT, needs=(calls.Need(budget=BUDGET, amounts={RECORDS: amount}),))


def question(number: int, *amounts: int, born: str = "p1") -> calls.Reserve:
    return calls.Reserve(born=born, number=number, wishes=tuple(wish(amount) for amount in amounts))


def test_a_question_that_is_asked_late_takes_nothing_back(ledger: Ledger) -> None:
    """A webhook gave it up and asked another one; what came of that is spent already, for all one knows."""
    first, second = question(1, 4), question(2, 6)
    (granted,) = ledger.reserve(second, "w1", terms(), NOW).answers
    assert isinstance(granted, calls.Lease)
    (late,) = ledger.reserve(first, "w1", terms(), NOW).answers
    assert isinstance(late, calls.Short)
    assert "too late" in late.reason
    (other,) = ledger.reserve(question(1, 5, born="p2"), "w2", terms(), NOW).answers
    assert isinstance(other, calls.Short), "6 of the 10 are on lease still"
    (rest,) = ledger.reserve(question(2, 4, born="p2"), "w2", terms(), NOW).answers
    assert isinstance(rest, calls.Lease)


async def test_what_was_granted_in_an_answer_that_got_lost_is_free_again(tmp_path: Path) -> None:
    """Also where the webhook asks for nothing more of that pot."""
    asked: list[calls.Request] = []
    questions = Questions()

    async def serve() -> None:
        async with contextlib.aclosing(questions.frames()) as frames:
            async for frame in frames:
                assert isinstance(frame.request, calls.Reserve | calls.Disown)
                asked.append(frame.request)
                short = calls.Reserved(answers=())
                lost = Failed(reason="the connection was lost before an answer came")
                questions.take(messages.Reply(number=frame.number, reply=short if len(asked) > 1 else lost))

    with Spool.open(tmp_path / "spool") as spool:
        leases = Leases(questions, spool)
        tasks = [asyncio.create_task(work) for work in (serve(), leases.run())]
        await asyncio.sleep(0)
        assert isinstance(await leases.ask(wish(3)), Failed)
        async with asyncio.timeout(20):
            while not (said := [one for one in asked[1:] if isinstance(one, calls.Reserve)]):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    (need,) = said[0].wishes[0].needs
    assert (need.budget, need.amounts, need.wanted, said[0].holdings) == (BUDGET, {RECORDS: 0}, {}, ())


def test_asking_for_nothing_says_what_arrived(ledger: Ledger) -> None:
    ledger.reserve(question(1, 7), "w1", terms(), NOW)
    ledger.reserve(question(2, 0), "w1", terms(), NOW)
    (all_of_it,) = ledger.reserve(question(1, 10, born="p2"), "w2", terms(), NOW).answers
    assert isinstance(all_of_it, calls.Lease)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Budgets]:
    window = {"kind": "Rolling", "duration": "60s"}
    resources = [
        _resource("Agent", "a", {"role": "Worker"}),
        _resource("AgentBudget", "day", {"limits": {RECORDS: 10}, "window": window}),
    ]
    registry = Registry.build(KINDS[each["kind"]].model_validate(each) for each in resources)
    with contextlib.ExitStack() as stack:
        records = stack.enter_context(contextlib.closing(Store.open(tmp_path / "audit.db")))
        ledger = stack.enter_context(contextlib.closing(Ledger(open_ledger_store(tmp_path / "budgets.db"))))
        async with Budgets(ledger, records, lambda: registry) as budgets:
            yield budgets


def _resource(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "lab"}
    return {"apiVersion": "fleetward.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}


async def ask(hub: Budgets, webhook: str, request: calls.Request) -> calls.Reply:
    answer: asyncio.Future[calls.Reply] = asyncio.get_running_loop().create_future()
    hub.ask(request, webhook=webhook, agents=(AGENT,), answer=answer.set_result)
    return await answer


async def test_a_question_that_was_given_up_is_not_tried_again(hub: Budgets) -> None:
    """While leases are called back for it, its webhook asks another one: it would never learn what it was granted."""
    await ask(hub, "rich", question(1, 8))
    recalled = asyncio.Event()

    def recall(_writer: str, _pots: Sequence[calls.PotRef]) -> bool:
        recalled.set()
        return True

    hub.recalls.send = recall
    first = asyncio.create_task(ask(hub, "poor", question(1, 3, born="p2")))
    await recalled.wait()
    hub.recalls.send = lambda _writer, _pots: False
    await ask(hub, "poor", question(2, 1, born="p2"))
    window = "rolling-60"
    back = calls.Holding(budget=BUDGET, window=window, got={RECORDS: 8}, returned={RECORDS: 8})
    await ask(hub, "rich", calls.Release(born="p1", holdings=(back,)))
    reply = await first
    assert isinstance(reply, calls.Reserved)
    assert isinstance(reply.answers[0], calls.Short)
    got = calls.Holding(budget=BUDGET, window=window, got={RECORDS: 1})
    rest = calls.Reserve(born="p2", number=3, wishes=(wish(9),), holdings=(got,))
    answered = await ask(hub, "poor", rest)
    assert isinstance(answered, calls.Reserved)
    assert isinstance(answered.answers[0], calls.Lease)


async def test_what_is_forfeited_of_a_rolling_window_rolls_out_of_it(hub: Budgets, tmp_path: Path) -> None:
    await ask(hub, "w1", question(1, 4))
    await ask(hub, "w1", calls.Disown(born="p2", lost=True))
    store = open_ledger_store(tmp_path / "budgets.db", read_only=True)
    store.begin()
    (pot,) = [decode_pot(row.body) for row in store.all_pots()]
    store.rollback()
    store.close()
    assert pot.settled == {RECORDS: 4}
    assert list(pot.slots.values()) == [{RECORDS: 4}]
