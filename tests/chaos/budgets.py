"""Budgets under chaos: everything is killed, frozen, moved and edited at random, and no budget is ever overspent.

    python -m chaos.budgets --seed 7 --seconds 120 [--postgres]

The faults follow from the seed alone. What agents do at which moment does not: that is up to the machine.
"""

import argparse
import asyncio
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from chaos import aftermath
from chaos.agents import Agents
from chaos.ledgerview import Watch, read
from chaos.machine import Machine
from chaos.schedule import Fault, schedule
from chaos.tally import Tally, clock
from chaos.world import AGENTS
from support.postgres import MissingError, Postgres

from fleetward.budget.store import LedgerError

LOOK_SECONDS = 0.25
MOST_VIOLATIONS = 10


class Chaos:
    """One run."""

    def __init__(self, seed: int, seconds: float, root: Path, postgres: Postgres | None) -> None:
        self.seed, self.seconds, self.root = seed, seconds, root
        self._postgres = postgres
        self.faults = schedule(seed, seconds, postgres=postgres is not None)
        self.struck: list[tuple[float, Fault]] = []
        """What went wrong so far, and when."""
        self.violations: list[str] = []
        self.figures = ""
        self._violated = asyncio.Event()

    def violated(self, what: str) -> None:
        """Note that something is not as it must be."""
        if len(self.violations) < MOST_VIOLATIONS:
            self.violations.append(f"{clock(time.time())}  {what}")
        self._violated.set()

    async def run(self) -> None:
        """Run it all; what is wrong is in `violations` then."""
        async with Machine(self.root, self._postgres) as machine:
            tally = Tally(machine.limits.ever, self.violated)
            watch = Watch(machine.limits.most, self.violated)
            async with Agents(machine.webhooks, tally, self.seed) as agents:
                watching = asyncio.create_task(self._watch(machine, watch, tally))
                try:
                    agents.begin(AGENTS)
                    await self._strike_all(machine)
                    await agents.stop()
                    if not self.violations:
                        await aftermath.spend_the_rest(machine, agents, self.violated)
                        await aftermath.drain(machine, self.violated)
                finally:
                    watching.cancel()
                    await asyncio.gather(watching, return_exceptions=True)
            await machine.end()
            if not self.violations:
                kept = await asyncio.to_thread(aftermath.reckon, machine, tally, self.violated)
                self.figures = aftermath.figures(tally, watch, kept, self.struck)

    async def _strike_all(self, machine: Machine) -> None:
        """Let everything go wrong in its time, and wait until it is mended, unless something is violated before."""
        began = time.monotonic()

        async def strike(fault: Fault) -> None:
            await asyncio.sleep(max(0.0, began + fault.at - time.monotonic()))
            self.struck.append((time.time(), fault))
            await machine.strike(fault)

        async def all_of_it() -> None:
            async with asyncio.TaskGroup() as group:
                for fault in self.faults:
                    group.create_task(strike(fault))
                group.create_task(asyncio.sleep(self.seconds))

        striking = asyncio.create_task(all_of_it())
        stopping = asyncio.create_task(self._violated.wait())
        await asyncio.wait((striking, stopping), return_when=asyncio.FIRST_COMPLETED)
        for task in (striking, stopping):
            if not task.done():
                task.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError):
            await striking

    async def _watch(self, machine: Machine, watch: Watch, tally: Tally) -> None:
        while not self.violations:
            told = dict(tally.told)
            try:
                snapshot = await asyncio.to_thread(read, machine.ledger)
            except LedgerError:
                await asyncio.sleep(LOOK_SECONDS)
                continue
            machine.limits.tend()
            watch.check(snapshot, {key: amount - tally.freed[key] for key, amount in told.items()})
            await asyncio.sleep(LOOK_SECONDS)

    def report(self) -> str:
        """Say what was found."""
        if not self.violations:
            return self.figures
        lines = [f"VIOLATED (seed {self.seed}, {self.seconds:g} s{', PostgreSQL' if self._postgres else ''}):"]
        lines += [f"  {what}" for what in self.violations]
        lines.append("the last faults:")
        lines += [f"  {clock(at)}  {fault}" for at, fault in self.struck[-15:]]
        return "\n".join([*lines, f"logs, spools and stores are in {self.root}"])


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """Give a folder whose path is short enough for sockets; it stays where something went wrong in it."""
    root = Path(tempfile.mkdtemp(prefix="fwchaos-", dir="/tmp"))
    yield root
    shutil.rmtree(root, ignore_errors=True)


def run(seed: int, seconds: float, postgres: Postgres | None = None) -> str:
    """Run it; give the figures. Raises AssertionError, which says all there is to say, where something was violated."""
    with short_folder() as root:
        chaos = Chaos(seed, seconds, root, postgres)
        try:
            asyncio.run(chaos.run())
        except Exception as error:
            raise AssertionError(
                f"chaos of seed {seed} came to an end: {error!r}\n{chaos.report()}\nsee {root}"
            ) from error
        if chaos.violations:
            raise AssertionError(chaos.report())
        return chaos.report()


def main() -> int:
    """Run it as a program; give the exit code."""
    parser = argparse.ArgumentParser(prog="chaos.budgets", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=None, help="what the faults follow from; random where left out")
    parser.add_argument("--seconds", type=float, default=60.0, help="for how long things go wrong")
    parser.add_argument("--postgres", action="store_true", help="two hubs on one PostgreSQL")
    parser.add_argument("--schedule", action="store_true", help="say what would go wrong when, and do nothing")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    if given.schedule:
        print(*schedule(seed, given.seconds, postgres=given.postgres), sep="\n")  # noqa: T201
        return 0
    words = f"seed {seed}: --seed {seed} --seconds {given.seconds:g}{' --postgres' if given.postgres else ''}"
    print(words, flush=True)  # noqa: T201
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Postgres() if given.postgres else contextlib.nullcontext() as postgres:
            print(run(seed, given.seconds, postgres))  # noqa: T201
    except MissingError as error:
        print(error)  # noqa: T201
        return 2
    except AssertionError as error:
        print(error)  # noqa: T201
        return 1
    finally:
        print(words)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
