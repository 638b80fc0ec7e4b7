"""After the last fault: what is left can be spent, everything drains, and the books agree."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import aiohttp
from chaos.agents import Agents
from chaos.ledgerview import Snapshot, Watch, open_reservations, read
from chaos.machine import Machine
from chaos.reckoning import Reckoning, records_of
from chaos.schedule import Fault
from chaos.tally import Tally
from chaos.world import LIMITS, SETTLE_AFTER_SECONDS, SHOP, WINDOWS, Action, Limit, Pot, window_id

from fleetward.budget.ledger import Ledger
from fleetward.budget.store import LedgerError, open_ledger_store
from fleetward.budget.terms import SETTLE_AFTER_SECONDS as RULE_SECONDS
from fleetward_operator.hub.budgetterms import TermsOf
from fleetward_operator.local.source import FolderSource

PATIENCE_SECONDS = 60.0
DENIALS = 12
"""How often in a row an action is denied at every webhook before nothing is left, a while apart."""

Violated = Callable[[str], None]


async def spend_the_rest(machine: Machine, agents: Agents, violated: Violated) -> None:
    """Have one agent spend to the end what it can, and check that it was stopped only where there is no room."""
    action = Action(SHOP[0], "crm.read", 1)
    deadline, denied, answers = time.monotonic() + PATIENCE_SECONDS, 0, Counter[str]()
    while denied < DENIALS * len(machine.webhooks):
        answer = await agents.ask_once(denied % len(machine.webhooks), action)
        answers[answer] += 1
        denied = denied + 1 if answer == "Deny" else 0
        if answer not in ("Allow", "Constrain"):
            await asyncio.sleep(0.05)
        if time.monotonic() > deadline:
            violated(f"for {PATIENCE_SECONDS:.0f} s after all was mended, no budget was at its end: {answers}")
            return
    snapshot = await asyncio.to_thread(read, machine.ledger)
    rooms = _rooms(machine.limits.now, snapshot, action)
    if all(room >= amount for room, amount in rooms.values()):
        violated(f"{action} was denied {denied} times in a row, and there is room for it: {rooms}")


def _rooms(limits: Mapping[Limit, int], snapshot: Snapshot, action: Action) -> dict[tuple[str, str], tuple[int, int]]:
    """Give how much is left of each limit that the action counts in, and what it needs."""
    found = {}
    for (budget, scope), amounts in action.pots().items():
        held = snapshot.get(Pot(budget, scope, window_id(budget, time.time())))
        for limit, amount in amounts.items():
            found[budget, limit] = limits[budget, limit] - (held.committed(limit) if held else 0), amount
    return found


async def drain(machine: Machine, violated: Violated) -> None:
    """Wait until the hubs have every record and every lease that there still can be."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (waiting := await _undrained(machine)) and time.monotonic() < deadline:  # noqa: ASYNC110 - processes
        await asyncio.sleep(0.2)
    if waiting:
        violated(f"{PATIENCE_SECONDS:.0f} s after all was mended, this has not drained: {waiting}")


async def _undrained(machine: Machine) -> str:
    for webhook in machine.webhooks:
        pending = await _pending(str(webhook.socket))
        if pending:
            return f"{pending} records of {webhook.name}"
    try:
        snapshot = await asyncio.to_thread(read, machine.ledger)
    except LedgerError as error:
        return str(error)
    for pot, held in snapshot.items():
        if there := set(held.leases) - machine.lost:
            return f"the leases of {there} in {pot}: {held}"
    return ""


async def _pending(socket: str) -> int:
    """Give how many records of a webhook are not acknowledged."""
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session,
            session.get("http://localhost/metrics") as answer,
        ):
            text = await answer.text()
    except (aiohttp.ClientError, OSError):
        return 1
    line = next(line for line in text.splitlines() if line.startswith("fleetward_spool_pending_records"))
    return int(float(line.split()[-1]))


def reckon(machine: Machine, tally: Tally, violated: Violated) -> dict[Limit, int]:
    """Compare the books, with everything at rest; give what thrown-away spools keep on lease."""
    records = records_of(hub.data / "audit.db" for hub in machine.hubs)
    reckoning = Reckoning(records, violated)
    snapshot = read(machine.ledger)
    reckoning.check_denials()
    reckoning.check_overshoot()
    reckoning.check_told(tally, machine.lost, machine.cut)
    reckoning.check_ledger(snapshot, _is_current)
    kept = reckoning.check_leases(snapshot, machine.lost, tally)
    tally.check_minutes()
    tally.check_rate()
    _settle_what_is_due(machine, reckoning, violated)
    return kept


def _is_current(pot: Pot) -> bool:
    """Say whether a pot cannot have been forgotten, as its window is over."""
    return pot.budget not in WINDOWS or pot.window == window_id(pot.budget, time.time())


def _settle_what_is_due(machine: Machine, reckoning: Reckoning, violated: Violated) -> None:
    """Let time pass in the ledger, and check that actions without an outcome count as what was expected of them."""
    store = open_ledger_store(machine.ledger)
    try:
        ledger = Ledger(store)
        terms = TermsOf(FolderSource(machine.hubs[0]._folder).read().registry)

        def waiting() -> set[tuple[str, Pot]]:
            return set(open_reservations(machine.ledger))

        def settle_within(seconds: float, due: set[tuple[str, Pot]]) -> None:
            later, before = time.time() + seconds + 1, set[tuple[str, Pot]]()
            while (left := due & waiting()) and left != before:
                before = left
                ledger.sweep(terms, later)
            if left:
                violated(f"{seconds} s later, {len(left)} actions without an outcome are not settled: {left}")

        settle_within(SETTLE_AFTER_SECONDS, {name for name in waiting() if "#" not in name[1].budget})
        reckoning.check_ledger(read(machine.ledger), _is_current)
        settle_within(RULE_SECONDS, waiting())
    finally:
        store.close()


def figures(tally: Tally, watch: Watch, kept: Mapping[Limit, int], struck: Sequence[tuple[float, Fault]]) -> str:
    """Say what happened, in numbers."""
    faults = Counter(fault.kind for _, fault in struck)
    full = {f"{budget.rpartition('/')[2]} {limit}": round(part, 2) for (budget, limit), part in watch.highest.items()}
    left = {f"{budget.rpartition('/')[2]} {limit}": amount for (budget, limit), amount in kept.items()}
    lines = [
        f"{len(struck)} faults: {', '.join(f'{count} {kind}' for kind, count in sorted(faults.items()))}",
        f"answers: {', '.join(f'{count} {answer}' for answer, count in sorted(tally.answers.items()))}",
        f"{watch.snapshots} looks at the ledger; how full limits were at most: {full}",
        f"left on lease of spools that were thrown away: {left}",
        f"limits reached: {sum(part >= 0.99 for part in watch.highest.values())} of {len(LIMITS)}; nothing violated",
    ]
    return "\n".join(lines)
