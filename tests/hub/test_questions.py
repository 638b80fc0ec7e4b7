"""Questions about runs over a real stream: answered in order, after what the answer builds on, and bounded."""

import contextlib
from collections.abc import AsyncIterator, Callable, Collection
from typing import Any

import pytest
from support import make
from support.rawstream import stream
from support.streams import World, until

from fleetward.decision.replies import Failed
from fleetward.delegation.token import verify
from fleetward.registry.registry import Registry, Upsert
from fleetward.run import calls
from fleetward.run.journal import RunStore
from fleetward.run.mandate import Mandate
from fleetward.stream import messages
from fleetward_operator.hub import link
from fleetward_operator.hub.grantkeys import FileKeys
from fleetward_operator.hub.runs import Runs

ALPHA, BETA = "reports/alpha", "reports/beta"
MANDATE = Mandate(requester="ana", purpose="the monthly report")


@pytest.fixture
async def runs(world: World) -> AsyncIterator[Runs]:
    """Give a hub that keeps runs, with two agents."""
    with contextlib.closing(RunStore.open(world.directory / "runs.db")) as store:
        async with Runs(store, FileKeys(world.directory / "keys.json"), world.store) as runs:
            await world.hub_up(make.registry(("alpha", "beta")), runs=runs)
            yield runs
            await world.hub_down()


async def test_a_grant_given_at_one_webhook_is_good_at_another_and_brings_who_gave_it(world: World, runs: Runs) -> None:
    alpha, beta = await world.connected("alpha"), await world.connected("beta")
    opened = await alpha.link.questions.ask(calls.OpenRun(agent=ALPHA, mandate=MANDATE))
    assert isinstance(opened, calls.Opened), opened
    proposed = await alpha.link.questions.ask(calls.Propose(run=opened.run, agent=ALPHA, to=BETA))
    assert isinstance(proposed, calls.Proposed), proposed
    issued = await alpha.link.questions.ask(calls.Issue(run=opened.run, grant=proposed.grant.id, cause="d-1"))
    assert isinstance(issued, calls.Issued), issued
    grant = verify(issued.token, beta.link.questions.keys, BETA, proposed.grant.issued_at)
    assert (grant.id, grant.path, grant.cause) == (proposed.grant.id, (ALPHA,), "d-1")

    assert beta.slices[-1].items.principals == {}
    step = calls.Step(run=opened.run, agent=BETA, kind="ToolCall", name="crm.read", grant=grant.id)
    taken = await beta.link.questions.ask(step)
    assert isinstance(taken, calls.Taken), taken
    assert taken.view.path == (ALPHA,)
    assert beta.slices[-1].items.principals.keys() == {ALPHA}, "whoever gave it came before the answer"

    paused = world.registry.apply([Upsert(make.agent("alpha", operatingMode="Paused"))])
    world.hub.publish(paused)
    await beta.reaches(paused)
    assert beta.slices[-1].items.principals[ALPHA].mode.operating_mode == "Paused"


async def test_a_webhook_asks_for_its_own_agents_only(world: World, runs: Runs) -> None:
    alpha = await world.connected("alpha")
    reply = await alpha.link.questions.ask(calls.OpenRun(agent=BETA, mandate=MANDATE))
    assert isinstance(reply, calls.NotAllowed)
    assert BETA in reply.reason


async def test_without_a_connection_the_answer_is_that_it_cannot_be_said(world: World, runs: Runs) -> None:
    alpha = await world.connected("alpha")
    await world.hub_down()
    await until(lambda: not alpha.link.connected)
    reply = await alpha.link.questions.ask(calls.OpenRun(agent=ALPHA, mandate=MANDATE))
    assert reply == Failed(reason="there is no connection to the hub, which keeps runs and budgets")


async def test_keys_that_change_reach_every_webhook(world: World, runs: Runs) -> None:
    alpha = await world.connected("alpha")
    await until(lambda: alpha.link.questions.keys == runs.public_keys())
    known = dict(alpha.link.questions.keys)
    ring = runs._keys.ring()
    assert ring is not None
    runs._keys.public = lambda: ring.rotated(ring.since + 1).public()  # type: ignore[method-assign]
    world.hub.keys_changed()
    await until(lambda: known.items() < alpha.link.questions.keys.items())


class Mute:
    """A desk that answers nothing."""

    def public_keys(self) -> dict[str, str]:
        return {}

    def ask(
        self,
        request: calls.Request,
        *,
        webhook: str,
        agents: Collection[str],
        registry: Registry,
        answer: Callable[[calls.Reply], None],
    ) -> None:
        pass


async def test_no_webhook_may_have_more_than_so_many_questions_open(world: World, monkeypatch: Any) -> None:
    monkeypatch.setattr(link, "MAX_QUESTIONS", 3)
    await world.hub_up(make.registry(("alpha",)), runs=Mute())
    async with stream(world) as raw:
        await raw.hello()
        for number in range(1, 5):
            await raw.send(messages.Question(number=number, request=calls.CloseRun(run="r", agent=ALPHA)))
        assert await raw.refusal() == "more than 3 questions were asked before they were answered"
