"""What holds for a pot, looked up in the registry in force, and whom a paused pot stops."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from fleetward.budget.terms import Terms, terms_in
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Mode


class TermsOf:
    """Gives the terms of a budget or a throttled rule under one registry; None where there is no such one."""

    def __init__(self, registry: Registry | None = None) -> None:
        self.registry = registry
        self._known: dict[str, Terms | None] = {}

    @property
    def known(self) -> bool:
        """Whether it is known what governs."""
        return self.registry is not None

    @property
    def version(self) -> str:
        """The registry's version; empty before there is one."""
        return "" if self.registry is None else self.registry.version

    def under(self, registry: Registry | None) -> "TermsOf":
        """Give the terms under a registry: this very object where it is the same one."""
        return self if registry is self.registry else TermsOf(registry)

    def __call__(self, budget: str) -> Terms | None:
        """Give the terms of `KIND/NAME`, or of `KIND/NAME#RULE`."""
        if budget not in self._known:
            self._known[budget] = None if self.registry is None else terms_in(self.registry, budget)
        return self._known[budget]


class Paused(NamedTuple):
    """A pot from which nothing may be taken any more, and why."""

    budget: str
    scope: str
    reason: str


def modes_of(pauses: Iterable[Paused], registry: Registry | None) -> Mapping[str, Mode]:
    """Give the agents that paused pots stop, each with the mode that says so.

    The pot of a run or of a subtree stops nobody: whatever would count in it is denied.
    """
    if registry is None:
        return {}
    by_pot = {(pause.budget, pause.scope): pause for pause in pauses}
    if not by_pot:
        return {}
    modes: dict[str, Mode] = {}
    for key, agent in registry.agents.items():
        for budget in agent.budgets:
            pause = by_pot.get((budget, "")) or by_pot.get((budget, key))
            if pause is not None:
                kind, _, name = budget.partition("/")
                said = pause.reason.removeprefix(f"{kind} {name} ")  # the mode says it already
                modes.setdefault(key, Mode("Paused", said, "", f"{kind} {name}"))
    return modes
