"""All processes of a run, and what can go wrong with them."""

import asyncio
import contextlib
import signal
import time
from pathlib import Path
from typing import Self

from chaos.limits import Limits
from chaos.processes import Hub, Webhook
from chaos.reckoning import records_of
from chaos.schedule import WEBHOOKS, Fault
from support.postgres import Postgres

RECOVERY_SECONDS = 60.0


class Machine:
    """Hubs, webhooks and, with replicated hubs, PostgreSQL. An async context manager that ends them all."""

    def __init__(self, root: Path, postgres: Postgres | None) -> None:
        self._postgres = postgres
        self._postgres_lock = asyncio.Lock()
        ledger = None if postgres is None else postgres.new_schema()
        self.hubs = [Hub(number, root, ledger) for number in range(1 if postgres is None else 2)]
        self.webhooks = [Webhook(number, root, self.hubs[number % len(self.hubs)]) for number in range(WEBHOOKS)]
        self.limits = Limits(root / "folder", self.hubs)
        self.ledger = ledger or str(self.hubs[0].data / "budgets.db")

    @property
    def lost(self) -> set[str]:
        """The writers of spools that were thrown away."""
        return {writer for webhook in self.webhooks for writer in webhook.lost}

    @property
    def cut(self) -> set[str]:
        """The decisions of which a record died with a machine."""
        return {str(one.get("decisionId", one["id"])) for webhook in self.webhooks for one in webhook.cut}

    async def __aenter__(self) -> Self:
        try:
            await asyncio.gather(*(program.start() for program in self._programs))
        except BaseException:
            await self._kill_all()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kill_all()

    async def end(self) -> None:
        """Have everything but PostgreSQL end as it should."""
        for programs in (self.webhooks, self.hubs):
            await asyncio.gather(*(program.end(signal.SIGTERM) for program in programs))

    async def _kill_all(self) -> None:
        await asyncio.gather(*(program.end(signal.SIGKILL) for program in self._programs))

    @property
    def _programs(self) -> list[Hub | Webhook]:
        return [*self.hubs, *self.webhooks]

    async def strike(self, fault: Fault) -> None:
        """Let something go wrong, and mend it."""
        if fault.limit is not None:
            self.limits.change(fault.limit, fault.value)
        elif fault.kind == "kill postgres":
            await self._kill_postgres(fault.seconds)
        elif fault.kind.endswith("hub"):
            hub = self.hubs[fault.target]
            async with hub.lock:
                await self._strike_hub(hub, fault)
        elif fault.kind.startswith("cut off") or fault.kind == "lose machine":
            webhook = self.webhooks[fault.target]
            async with webhook.hub.lock, webhook.lock:
                await self._cut_off(webhook, fault)
        else:
            webhook = self.webhooks[fault.target]
            async with webhook.lock:
                await self._strike_webhook(webhook, fault)

    async def _strike_hub(self, hub: Hub, fault: Fault) -> None:
        if fault.kind == "freeze hub":
            await hub.freeze(fault.seconds)
            return
        await hub.end(signal.SIGKILL if fault.kind == "kill hub" else signal.SIGTERM)
        await asyncio.sleep(fault.seconds)
        await hub.start()

    async def _strike_webhook(self, webhook: Webhook, fault: Fault) -> None:
        if fault.kind == "freeze webhook":
            await webhook.freeze(fault.seconds)
            return
        gently = fault.kind in ("end webhook", "move webhook")
        await webhook.end(signal.SIGTERM if gently else signal.SIGKILL)
        if fault.kind == "lose spool":
            webhook.throw_spool_away()
        elif fault.kind.startswith("move"):
            webhook.hub = next(hub for hub in self.hubs if hub is not webhook.hub)
        await asyncio.sleep(fault.seconds)
        await webhook.start()

    async def _cut_off(self, webhook: Webhook, fault: Fault) -> None:
        """Freeze the hub, so that a webhook spends what it has and nobody hears of it; then kill it, or both."""
        hub = webhook.hub
        await hub.freeze(fault.seconds, webhook.kill)
        await webhook.end(signal.SIGKILL)
        if fault.kind != "cut off webhook":  # what was sent to the hub, and not read there, goes with the hub
            await hub.end(signal.SIGKILL)
        if fault.kind == "lose machine":
            stored = await asyncio.to_thread(records_of, [hub.data / "audit.db" for hub in self.hubs])
            webhook.pretend_the_machine_died(stored)
        if fault.kind != "cut off webhook":
            await asyncio.gather(hub.start(), webhook.start())
        else:
            await webhook.start()

    async def _kill_postgres(self, seconds: float) -> None:
        assert self._postgres is not None
        async with self._postgres_lock:
            process = self._postgres._process
            if process is not None:
                process.kill()
                await asyncio.to_thread(process.wait)
            await asyncio.sleep(seconds)
            deadline = time.monotonic() + RECOVERY_SECONDS
            while True:  # what it left behind may take a moment to notice
                try:
                    await asyncio.to_thread(self._postgres.start)
                except AssertionError:
                    if time.monotonic() > deadline:
                        raise
                    with contextlib.suppress(ProcessLookupError):
                        await asyncio.sleep(0.1)
                else:
                    return
