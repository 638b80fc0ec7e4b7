"""What stopped an action, in words and tables."""

from collections.abc import Sequence
from datetime import datetime

from rich.text import Text

from fleetward.audit.record import DecisionRecord
from fleetward.budget.amounts import ACTIONS
from fleetward.budget.terms import named
from fleetward.cli.budgets import words
from fleetward.cli.budgets.explain import Explained, Sharing
from fleetward.cli.output import decision_text, print_table, printable, say

SHOWN = 20
"""So many agents and runs are shown, those with the largest shares."""


def show(its: Explained, program: str, source: str) -> None:
    """Print it. `program` is how the user calls this program, `source` the options that say where it reads."""
    now = datetime.fromisoformat(its.until).timestamp()
    if its.decision is not None:
        _show_decision(its.decision, program, source)
        _show_limit(its, its.decision, now)
    else:
        say(
            Text(printable(named(its.budget)), style="bold"),
            f"  {printable(words.whose(its.scope))}: it has stopped nothing",
        )
        _fact("window", its.window)
        _fact("begins anew", words.begins_anew(its.window, its.resets_at, now))
    say()
    if its.limit == ACTIONS:
        say("a rate counts actions as they come; what passed is not recorded against it, so nobody's share is known")
        return
    _show_shares(its, program, source)


def _show_decision(record: DecisionRecord, program: str, source: str) -> None:
    say(decision_text(record.decision), f"  {record.agent}  {record.action.kind} {record.action.name}  ({record.id})")
    _fact("when", record.time)
    _fact("reason", record.reason)
    if record.run:
        _fact("run", f"{record.run}: {program} trace {record.run}{source}")
    _fact("why", f"{program} trace --why {record.id}{source}")


def _show_limit(its: Explained, record: DecisionRecord, now: float) -> None:
    short = record.shortfall
    if short is None:
        return
    limit = its.limit
    now_is = f", of {words.amount(limit, its.max)} as the limit is now" if its.max is not None else ""
    _fact("stopped by", f"{named(its.budget)}, {words.whose(its.scope)}")
    needed, left = words.amount(limit, short.needed), words.amount(limit, short.left)
    _fact("limit", f"{words.label(limit)}: needed {needed}, left {left}{now_is}")
    _fact("window", its.window or "not known: nothing was spent from it")
    _fact("begins anew", words.begins_anew(its.window, its.resets_at, now))
    if record.retry_after_seconds is not None:
        _fact("try again", f"after {record.retry_after_seconds} s")


def _show_shares(its: Explained, program: str, source: str) -> None:
    limit = its.limit
    when = "up to then" if its.decision is not None else "so far"
    what = words.label(limit)
    if not its.agents:
        say(f"no record says that anybody spent {what} of it in this window {when}")
        return
    spent, reserved = words.amount(limit, its.spent), words.amount(limit, its.reserved)
    say(f"who had it {when}: {what} {spent} spent, {reserved} reserved", style="bold")
    whole = its.spent + its.reserved
    print_table(
        ["AGENT", "TAKEN", "SHARE", "OF IT RESERVED", "ACTIONS", "LAST"],
        [[printable(each.agent or "-"), *_cells(each, limit, whole), _last(each)] for each in its.agents[:SHOWN]],
    )
    _tell_rest(its.agents, limit)
    if its.runs:
        say()
        say("in which runs", style="bold")
        print_table(
            ["RUN", "TAKEN", "SHARE", "OF IT RESERVED", "ACTIONS", "AGENTS"],
            [
                [
                    printable(each.run or "-"),
                    *_cells(each, limit, whole),
                    printable(", ".join(each.agents)),
                ]
                for each in its.runs[:SHOWN]
            ],
        )
        _tell_rest(its.runs, limit)
        say(f"what led to what in a run: {program} trace RUN{source}", style="dim")


def _cells(each: Sharing, limit: str, whole: int) -> list[str]:
    taken = each.spent + each.reserved
    share = f"{taken * 100 / whole:.0f} %" if whole else "-"
    return [words.amount(limit, taken), share, words.amount(limit, each.reserved), str(each.actions)]


def _last(each: Sharing) -> str:
    return f"{each.last_at[:19]}Z"


def _tell_rest(shares: Sequence[Sharing], limit: str) -> None:
    if rest := shares[SHOWN:]:
        taken = sum(each.spent + each.reserved for each in rest)
        say(f"and {len(rest)} more, of {words.amount(limit, taken)}")


def _fact(name: str, value: str) -> None:
    say(Text(f"  {name:<12}", style="dim"), printable(value))
