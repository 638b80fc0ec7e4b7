"""Asking for leases, against a hub that says what no real one would; with the real ledger: test_spending.py."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from fleetward.audit.spool import Spool
from fleetward.budget.calls import MAX_WISHES, Grant, Lease, Need, Release, Request, Reserve, Reserved, Wish
from fleetward.decision.replies import Done, Failed
from fleetward.stream import messages
from fleetward_webhook.sidecar.leasing import MAX_TRIES, Leases
from fleetward_webhook.sidecar.questions import Questions

COST = "costMicroUsd"
WISH = Wish(agent="a/b", needs=(Need(budget="ClusterAgentBudget/day", amounts={COST: 1}),))

Answer = Callable[[Request], messages.AnyReply]


class Played:
    """Leases whose questions the test answers."""

    def __init__(self, spool: Spool) -> None:
        self.now = 100.0
        self.questions = Questions()
        self.leases = Leases(self.questions, spool, clock=lambda: self.now)
        self.asked: list[Request] = []
        self.answer: Answer = lambda _: Done()
        self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        async with contextlib.aclosing(self.questions.frames()) as frames:
            async for frame in frames:
                assert isinstance(frame.request, Request)
                self.asked.append(frame.request)
                self.questions.take(messages.Reply(number=frame.number, reply=self.answer(frame.request)))

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


@pytest.fixture
async def played(tmp_path: Path) -> AsyncIterator[Played]:
    with Spool.open(tmp_path / "spool") as spool:
        played = Played(spool)
        await asyncio.sleep(0)  # the questions are open from here on
        yield played
        await played.stop()


def granting(request: Request, amount: int = 1, window: str = "w") -> Reserved:
    assert isinstance(request, Reserve)
    grant = Grant(budget="ClusterAgentBudget/day", window=window, amounts={COST: amount}, seconds=5.0)
    return Reserved(answers=(Lease(grants=(grant,)),) * len(request.wishes))


async def test_no_question_holds_more_than_the_hub_takes(played: Played) -> None:
    played.answer = granting
    answers = await asyncio.gather(*(played.leases.ask(WISH) for _ in range(MAX_WISHES * 2 + 10)))
    assert all(isinstance(answer, tuple) for answer in answers)
    asked = [len(each.wishes) for each in played.asked if isinstance(each, Reserve)]
    assert asked == [MAX_WISHES, MAX_WISHES, 10]


async def test_a_lease_that_always_comes_too_late_is_asked_for_only_so_often(played: Played) -> None:
    def late(request: Request) -> Reserved:
        played.now += 10
        return granting(request)

    played.answer = late
    answer = await played.leases.ask(WISH)
    assert isinstance(answer, Failed)
    assert "had ended before it came" in answer.reason
    assert len(played.asked) == MAX_TRIES
    told = [each.holdings for each in played.asked if isinstance(each, Reserve)]
    assert told[0] == ()
    assert (told[2][0].got, told[2][0].returned) == ({COST: 2}, {COST: 2})


@pytest.mark.parametrize("reply", [Done(), Reserved(answers=()), Failed(reason="the hub stops")])
async def test_an_answer_that_makes_no_sense_is_none(played: Played, reply: messages.AnyReply) -> None:
    played.answer = lambda _: reply
    assert isinstance(await played.leases.ask(WISH), Failed)
    played.answer = granting
    assert isinstance(await played.leases.ask(WISH), tuple)


async def test_what_is_left_of_a_window_that_is_over_is_given_back(played: Played) -> None:
    """A question tells of it, too, but the hub hears only of the window that is open."""
    two = Wish(agent="a/b", needs=(Need(budget="ClusterAgentBudget/day", amounts={COST: 2}),))
    played.answer = lambda request: granting(request, 3, "w1")
    await played.leases.ask(two)
    played.answer = lambda request: granting(request, 3, "w2")
    await played.leases.ask(two)
    played.answer = lambda _: Done()
    await asyncio.wait_for(played.leases.close(), 20)
    release = played.asked[-1]
    assert isinstance(release, Release)
    assert {each.window: each.returned for each in release.holdings} == {"w1": {COST: 1}, "w2": {COST: 1}}
    said = len(played.asked)
    await played.leases.close()
    assert len(played.asked) == said


async def test_what_a_question_gave_back_is_not_said_again(played: Played) -> None:
    two = Wish(agent="a/b", needs=(Need(budget="ClusterAgentBudget/day", amounts={COST: 2}),))
    played.answer = lambda request: granting(request, 3)
    await played.leases.ask(two)
    played.answer = lambda request: granting(request, 2)
    await played.leases.ask(two)
    await played.leases.close()
    assert [type(each) for each in played.asked] == [Reserve, Reserve]


async def test_nobody_waits_for_ever_where_asking_fails(
    played: Played, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr(played.leases._purse, "question", broken)
        answers = await asyncio.gather(*(played.leases.ask(WISH) for _ in range(3)))
    assert all(isinstance(answer, Failed) for answer in answers)
    assert "a bug" in caplog.text
    played.answer = granting
    assert isinstance(await played.leases.ask(WISH), tuple)
