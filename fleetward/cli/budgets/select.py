"""Which budget, pot and limit a user means."""

from collections.abc import Iterable, Sequence

from fleetward.budget.report import BudgetsReport, LimitReport, PotReport
from fleetward.budget.terms import named
from fleetward.cli.budgets import words
from fleetward.cli.output import CliError, printable
from fleetward.resources.finding import did_you_mean


def find_budget(keys: Iterable[str], name: str) -> str:
    """Find a budget by `KIND/NAME`, by `namespace/name`, or by a name that only one has. CliError otherwise."""
    known = sorted(set(keys))
    found = [key for key in known if name in _names(key)]
    if len(found) == 1:
        return found[0]
    if name in found:
        return name
    if found:
        raise CliError(f"found {len(found)} budgets named {printable(name)}: {', '.join(found)}; give one")
    allowed = ", ".join(known) or "none: there are no budgets"
    raise CliError(f"found no budget {printable(name)}, allowed {allowed}{did_you_mean(name, known)}")


def _names(key: str) -> tuple[str, ...]:
    """Give the names that a budget goes by, such as AgentBudget/reports/day, reports/day and day."""
    _, _, name = key.partition("/")
    whole, hash_, rule = name.partition("#")
    return key, named(key), name, whole.rpartition("/")[2] + hash_ + rule


def pots_of(report: BudgetsReport, budget: str, scope: str | None) -> list[PotReport]:
    """Give the pots of a budget, the fullest first; with a scope, that one. CliError where there is none."""
    pots = [pot for pot in report.pots if pot.budget == budget]
    if scope is not None:
        chosen = [pot for pot in pots if pot.scope == scope]
        if not chosen:
            scopes = ", ".join(sorted(pot.scope for pot in pots if pot.scope)) or "none: all share one, or none is open"
            raise CliError(f"found no pot {printable(scope)} of {budget}, allowed {scopes}")
        return chosen
    if not pots:
        raise CliError(f"nobody has taken anything out of {budget} in the window that is open: it has no pot yet")
    return sorted(pots, key=lambda pot: (-fullest(pot), pot.scope))


def fullest(pot: PotReport) -> int:
    """Give how much of its fullest limit is committed, in percent."""
    return max((words.used_percent(limit) for limit in pot.limits), default=0)


def limit_of(pot: PotReport, name: str | None) -> LimitReport:
    """Give a pot's limit by name; without one, the fullest. CliError where there is none."""
    if name is not None:
        return _named(pot.limits, name)
    if not pot.limits:
        raise CliError(f"{pot.budget} has no limit that is counted")
    return max(pot.limits, key=words.used_percent)


def _named(limits: Sequence[LimitReport], name: str) -> LimitReport:
    found = next((limit for limit in limits if name in (limit.limit, words.label(limit.limit))), None)
    if found is None:
        allowed = [limit.limit for limit in limits]
        raise CliError(
            f"found no limit {printable(name)}, allowed {', '.join(allowed) or 'none'}{did_you_mean(name, allowed)}"
        )
    return found
