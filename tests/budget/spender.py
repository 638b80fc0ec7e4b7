"""A process that spends from a ledger until it is killed: `spender.py PLACE HOLDER`. It says what was committed."""

import json
import random
import sys
import time

from fleetward.budget.calls import Holding, Lease, Need, Reserve, Wish
from fleetward.budget.ledger import Entry, Ledger
from fleetward.budget.store import open_ledger_store
from fleetward.budget.terms import Terms
from fleetward.decision.action import Spend

BUDGET = "AgentBudget/reports/total"
COST = "costMicroUsd"
MOST = 20_000
TERMS = Terms(budget=BUDGET, limits={COST: MOST})


def main(place: str, holder: str) -> None:
    chance = random.Random(holder)  # noqa: S311 - it need not be hard to guess
    ledger = Ledger(open_ledger_store(place))
    seq = got = 0
    while True:
        size = chance.randint(1, 20)
        need = Need(budget=BUDGET, amounts={COST: size})
        wish = Wish(agent="reports/a", needs=(need,))
        (answer,) = ledger.reserve(
            Reserve(born=holder, wishes=(wish,), holdings=holdings(got)), holder, _terms, time.time()
        ).answers  # fmt: skip
        if not isinstance(answer, Lease):
            say("short", size)
            return
        got += size
        say("granted", size)
        spend = (Spend(budget=BUDGET, window="total", amounts={COST: size}),)
        used = (Spend(budget=BUDGET, window="total", amounts={COST: size // 2}),)
        decision = entry(holder, seq + 1, seq + 1, spend, ends=False)
        ledger.fold([decision], _terms, time.time())
        say("reserved", size)
        if chance.random() < 0.5:
            ledger.fold([decision, entry(holder, seq + 2, seq + 1, used, ends=True)], _terms, time.time())
            say("settled", size)
        seq += 2


def holdings(got: int) -> tuple[Holding, ...]:
    return (Holding(budget=BUDGET, window="total", got={COST: got}),) if got else ()


def entry(holder: str, seq: int, of: int, spends: tuple[Spend, ...], *, ends: bool) -> Entry:
    return Entry(
        writer=holder,
        seq=seq,
        agent="reports/a",
        decision_id=f"{holder}-{of}",
        spends=spends,
        at=time.time(),
        ends=ends,
    )


def say(what: str, size: int) -> None:
    sys.stdout.write(json.dumps([what, size]) + "\n")
    sys.stdout.flush()


def _terms(name: str) -> Terms | None:
    return TERMS if name == BUDGET else None


if __name__ == "__main__":
    main(*sys.argv[1:])
