"""Agents: many at once, each asking at any webhook, and reporting what it pleases."""

import asyncio
import contextlib
import json
import random
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Self

import aiohttp
from chaos.processes import Webhook
from chaos.tally import Allowed, Tally
from chaos.world import INPUT_PRICE, LEAD, OUTPUT_PRICE, Action

from fleetward.decision.canonical import digest

HANDS = 4
"""Actions that one agent has under way at once."""

RUNS = 3
"""Runs that are open at once."""

ANSWER_SECONDS = 12.0
IMPATIENT_SECONDS = 0.004

ALLOWS, REFUSALS = ("Allow", "Constrain"), ("Deny", "Throttle", "RequireApproval")

SHARING = ("shop/a0", "shop/a1", "shop/a2", "shop/a3")
"""Who may be handed work."""


class NoAnswerError(Exception):
    """Nobody answered, or not in time."""


class Line:
    """Connections to one webhook."""

    def __init__(self, webhook: Webhook) -> None:
        self.webhook = webhook
        self._session = aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(webhook.socket), limit=0))

    async def close(self) -> None:
        await self._session.close()

    async def post(self, path: str, body: Any, seconds: float = ANSWER_SECONDS) -> tuple[int, dict[str, Any]]:
        """Ask: the status and the answer. Raises NoAnswerError."""
        try:
            async with asyncio.timeout(seconds), self._session.post(f"http://localhost{path}", json=body) as answer:
                return answer.status, json.loads(await answer.read())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise NoAnswerError(str(error) or type(error).__name__) from None


class Agents:
    """All agents of a run. Use as an async context manager; `stop` lets them end what they are about."""

    def __init__(self, webhooks: list[Webhook], tally: Tally, seed: int) -> None:
        self._lines = [Line(webhook) for webhook in webhooks]
        self._tally = tally
        self._seed = seed
        self._stopping = asyncio.Event()
        self._hands: list[asyncio.Task[None]] = []
        self._late: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in (*self._hands, *self._late):
            task.cancel()
        await asyncio.gather(*self._hands, *self._late, return_exceptions=True)
        for line in self._lines:
            await line.close()

    def begin(self, agents: tuple[str, ...]) -> None:
        """Have all agents act until `stop`."""
        for agent in agents:
            for hand in range(HANDS):
                self._start(partial(self._act_alone, agent), f"{agent} {hand}")
        for number in range(RUNS):
            self._start(self._run, f"run {number}")

    async def stop(self) -> None:
        """Let agents end what they are about. Raises what went wrong with one."""
        self._stopping.set()
        await asyncio.gather(*self._hands)
        await asyncio.gather(*self._late)

    async def ask_once(self, line: int, action: Action) -> str:
        """Ask for an action at one webhook, and report it as it was expected; give the decision."""
        return await self._act(_chance("plain"), self._lines[line], action, plain=True)

    def _start(self, work: Callable[[random.Random], Awaitable[None]], name: str) -> None:
        async def insist() -> None:
            chance = _chance(f"{self._seed} {name}")
            while not self._stopping.is_set():
                await work(chance)

        self._hands.append(asyncio.create_task(insist()))

    async def _pause(self, chance: random.Random, least: float, most: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), chance.uniform(least, most))

    # What they do

    async def _act_alone(self, agent: str, chance: random.Random) -> None:
        decision = await self._act(chance, chance.choice(self._lines), an_action(chance, agent))
        await self._pause(chance, 0.0, 0.02 if decision in ALLOWS else 0.15 if decision in REFUSALS else 0.5)

    async def _run(self, chance: random.Random) -> None:
        """Open a run, hand work to others, and have them all act in it at once."""
        line = chance.choice(self._lines)
        near = [one for one in self._lines if one.webhook.hub is line.webhook.hub]
        run, grants = "", {}
        try:
            body = {"agent": LEAD, "mandate": {"requester": "ana", "purpose": "chaos"}}
            status, answer = await line.post("/v1/runs", body)
            if status == 200:
                run = str(answer["run"])
                for agent in chance.sample(SHARING, 2):
                    grants[agent] = await self._delegate(line, run, agent)
        except NoAnswerError:
            pass
        if not run:
            await self._pause(chance, 0.1, 0.3)
            return
        await asyncio.gather(
            *(
                self._act_in(_chance(str(chance.random())), near, run, agent, grants.get(agent))
                for agent in (LEAD, *grants)
            )
        )
        with contextlib.suppress(NoAnswerError):
            await line.post(f"/v1/runs/{run}/close", {"agent": LEAD})

    async def _delegate(self, line: Line, run: str, agent: str) -> str | None:
        body = {"agent": LEAD, "to": agent, "run": run}
        return (await line.post("/v1/delegations", body))[1].get("grant")

    async def _act_in(self, chance: random.Random, lines: list[Line], run: str, agent: str, grant: str | None) -> None:
        if agent != LEAD and grant is None:
            return
        for _ in range(chance.randint(3, 12)):
            if self._stopping.is_set():
                return
            action = an_action(chance, agent, run)
            decision = await self._act(chance, chance.choice(lines), action, grant=grant)
            await self._pause(chance, 0.0, 0.03 if decision in ALLOWS else 0.2)

    # One action

    async def _act(
        self, chance: random.Random, line: Line, action: Action, *, grant: str | None = None, plain: bool = False
    ) -> str:
        """Ask, act, report; give the decision, or what there was instead."""
        body: dict[str, Any] = {"agent": action.agent, "action": action.body()}
        body |= {name: value for name, value in (("run", action.run), ("grant", grant)) if value is not None}
        sent = time.time()
        impatient = not plain and chance.random() < 0.02
        try:
            status, answer = await line.post("/v1/decisions", body, IMPATIENT_SECONDS if impatient else ANSWER_SECONDS)
        except NoAnswerError:
            self._tally.answers["nobody"] += 1
            return "nobody"
        decision = str(answer["decision"]) if status == 200 else f"{status} {answer.get('title')}"
        self._tally.answers[decision] += 1
        if decision not in ALLOWS:
            return decision
        allowed = Allowed(str(answer["id"]), action, sent, time.time())
        self._tally.allow(allowed)
        if plain:
            await self._report(line, allowed, {"status": "Succeeded"}, {})
        else:
            await self._end(chance, line, allowed)
        return decision

    async def _end(self, chance: random.Random, line: Line, allowed: Allowed) -> None:
        """Report in one of many ways, or not at all."""
        how = chance.random()
        if how < 0.06:
            return
        if how < 0.16:
            task = asyncio.create_task(self._end_late(chance.uniform(0.5, 4.0), chance, line, allowed))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return
        await self._pause(chance, 0.0, 0.05)
        outcome, used = an_outcome(chance, allowed.action)
        await self._report(line, allowed, outcome, used)
        if how < 0.22:
            await self._report(line, allowed, outcome, used)
        elif how < 0.26:
            with contextlib.suppress(NoAnswerError):
                await line.post(
                    f"/v1/decisions/{allowed.id}/outcome", {"status": "Failed", "error": "it changed its mind"}
                )

    async def _end_late(self, seconds: float, chance: random.Random, line: Line, allowed: Allowed) -> None:
        await self._pause(chance, seconds, seconds)
        await self._report(line, allowed, *an_outcome(chance, allowed.action))

    async def _report(self, line: Line, allowed: Allowed, outcome: dict[str, Any], used: dict[str, int]) -> None:
        """Report; where nobody answers, once more a little later: the webhook may be back, and know it still or not."""
        if allowed.used is None:
            self._tally.ending(allowed, used)
        if allowed.action.arguments is not None:
            outcome = outcome | {"argumentsDigest": digest(allowed.action.arguments)}
        for _ in range(2):
            with contextlib.suppress(NoAnswerError):
                status, _answer = await line.post(f"/v1/decisions/{allowed.id}/outcome", outcome)
                self._tally.answers[f"outcome {status}"] += 1
                allowed.confirmed |= status == 200
                return
            await asyncio.sleep(0.3)


def _chance(seed: str) -> random.Random:
    return random.Random(seed)  # noqa: S311 - guards nothing


def an_action(chance: random.Random, agent: str, run: str | None = None) -> Action:
    """Give something that an agent may want to do."""
    names = ["crm.read"] * 5 + ["crm.list"] * 2 + ["llm.chat"] * 4 + ["burst.ping", "queue.job", "slow.job"]
    if run is not None:
        names += ["slow.job"] * 3
    name = chance.choice(names)
    if name == "llm.chat":
        return Action(agent, name, None, chance.randint(5, 60), chance.randint(5, 40), run)
    records = {"crm.read": chance.randint(1, 5), "crm.list": chance.choice((None, 2, 6))}.get(name)
    return Action(agent, name, records, run=run)


def an_outcome(chance: random.Random, action: Action) -> tuple[dict[str, Any], dict[str, int]]:
    """Give a report, and what it says was used: mostly less than expected or just that, now and then more."""
    status = "Failed" if chance.random() < 0.1 else "Succeeded"
    part = chance.choice((0.0, 0.3, 0.7, 1.0, 1.0, 1.0)) if chance.random() < 0.9 else 1.5
    if chance.random() < 0.1:
        return {"status": status}, {}
    if action.is_model_call:
        sent, returned = round(action.input_tokens * part), round(action.max_tokens * min(part, 1.0))
        actual = {"inputTokens": sent, "outputTokens": returned}
        used = {"outputTokens": returned, "costMicroUsd": INPUT_PRICE * sent + OUTPUT_PRICE * returned}
    else:
        records = round(action.estimate().get("records", 0) * part)
        actual = used = {"records": records}
    return {"status": status, "actual": actual}, dict(used)
