"""What a schema cannot check of resources: expressions that do not compile, unknown time zones, names of nothing.

Used where resources are read or admitted, never in a sidecar: it loads the typed expression environment.
"""

import zoneinfo
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TypeAlias

from fleetward.decision.cel.runtime import ExpressionError, load_runtime
from fleetward.decision.facts import CatalogIndex
from fleetward.registry import nesting
from fleetward.registry.convert import budget_key, catalog_item, parent_key
from fleetward.registry.slice import Phase
from fleetward.resources import (
    ActionCatalog,
    Agent,
    AgentBudget,
    AgentFleet,
    AgentPolicy,
    ClusterAgentBudget,
    ClusterAgentPolicy,
    Resource,
)
from fleetward.resources.finding import did_you_mean
from fleetward.resources.rule import Match

ANYWHERE = "Agent of any namespace"
"""What the path of a match names: work may come down from another namespace."""

Location: TypeAlias = tuple[str | int, ...]
"""Where in a resource, as pydantic tells it: field names (as written) and list indices."""


def check_resource(resource: Resource) -> list[tuple[Location, str]]:
    """Give what is wrong with a resource taken by itself: where, and what in words (and a caret)."""
    if isinstance(resource, AgentBudget | ClusterAgentBudget):
        return list(_unknown_zone(resource.spec.window.time_zone))
    if not isinstance(resource, AgentPolicy | ClusterAgentPolicy):
        return []
    findings: list[tuple[Location, str]] = []
    for number, rule in enumerate(resource.spec.rules):
        if rule.when is not None and (mistake := _mistake(rule.when, rule.phase)) is not None:
            findings.append((("spec", "rules", number, "when"), mistake))
        for part, match in (("match", rule.match), ("exclude", rule.exclude)):
            if match is not None and (wrong := _impossible(match)) is not None:
                findings.append((("spec", "rules", number, part, wrong[0]), wrong[1]))
    return findings


def _unknown_zone(name: str | None) -> Iterator[tuple[Location, str]]:
    if name is not None and name not in _time_zones():
        meant = did_you_mean(name, _time_zones())
        allowed = "allowed a time zone of the IANA database, such as Europe/Berlin or UTC"
        yield ("spec", "window", "timeZone"), f'found "{name}", {allowed}{meant}'


@lru_cache(maxsize=1)
def _time_zones() -> frozenset[str]:
    """Give the names that mean the same on every machine."""
    return frozenset(zoneinfo.available_timezones() - {"localtime", "Factory"})


def _impossible(match: Match) -> tuple[str, str] | None:
    """Say which field of a match keeps it from ever holding, and why."""
    most = match.max_depth
    if most is not None and match.min_depth is not None and match.min_depth > most:
        return "minDepth", f"found {match.min_depth}, allowed at most {most}, which is maxDepth: no depth is both"
    if most == 0 and match.path is not None:
        return "path", "found with maxDepth 0, which is for work that nobody handed down: give one of the two"
    return None


@lru_cache(maxsize=16_384)
def _mistake(expression: str, phase: Phase) -> str | None:
    """Say what is wrong with an expression. Remembered: a file is read again at every edit in it."""
    try:
        _check(expression, phase)
    except ExpressionError as error:
        return str(error)
    return None


def _check(expression: str, phase: Phase) -> None:
    """Raise ExpressionError. With the portable runtime alone there are no types: it need only compile."""
    try:
        from fleetward.decision.cel import typed  # noqa: PLC0415 - needs Google's runtime
    except ImportError:
        load_runtime().compile(expression)
    else:
        typed.check(expression, phase)


def check_references(resources: Iterable[Resource]) -> list[tuple[Resource, Location, str]]:
    """Give what is wrong with resources taken together: names of nothing, budgets in circles, catalogs at odds."""
    everything = list(resources)
    agents = {r.key for r in everything if isinstance(r, Agent)}
    fleets = {r.key for r in everything if isinstance(r, AgentFleet)}
    budgets = [r for r in everything if isinstance(r, AgentBudget | ClusterAgentBudget)]
    findings: list[tuple[Resource, Location, str]] = []
    for resource in everything:
        for location, kind, name in _references(resource):
            known = fleets if kind == "AgentFleet" else agents if kind == ANYWHERE else _within_reach(resource, agents)
            if not _exists(name, None if kind == ANYWHERE else resource.metadata.namespace, known):
                allowed = ", ".join(sorted(known)[:8]) or "none"
                what = "Agent" if kind == ANYWHERE else kind
                findings.append((resource, location, f"found {name}, which is no {what} here; there are: {allowed}"))
    findings += _nesting_problems(budgets)
    return findings + list(_catalog_conflicts([r for r in everything if isinstance(r, ActionCatalog)]))


def _nesting_problems(budgets: list[AgentBudget | ClusterAgentBudget]) -> Iterator[tuple[Resource, Location, str]]:
    """Give the budgets from which nothing may be spent, for what they are part of."""
    parents = {budget_key(budget): parent_key(budget) for budget in budgets}
    for budget in budgets:
        if problem := nesting.problem(budget_key(budget), parents):
            yield budget, ("spec", "parent"), f"{problem}; nothing may be spent from this budget"


def _references(resource: Resource) -> Iterator[tuple[Location, str, str]]:
    """Give every name in a resource that refers to an agent or a fleet: where, to what kind, which."""
    if isinstance(resource, Agent) and resource.spec.may_delegate_to is not None:
        yield from _named(("spec", "mayDelegateTo", "agents"), "Agent", resource.spec.may_delegate_to.agents)
    if isinstance(resource, AgentPolicy | ClusterAgentPolicy | AgentBudget | ClusterAgentBudget):
        yield from _named(("spec", "subjects", "agents"), "Agent", resource.spec.subjects.agents)
    if isinstance(resource, AgentBudget | ClusterAgentBudget):
        yield from _named(("spec", "subjects", "fleets"), "AgentFleet", resource.spec.subjects.fleets)
    if isinstance(resource, AgentPolicy | ClusterAgentPolicy):
        for number, rule in enumerate(resource.spec.rules):
            for part, match in (("match", rule.match), ("exclude", rule.exclude)):
                if match is not None:
                    yield from _named_by(("spec", "rules", number, part), match)


def _named_by(at: Location, match: Match) -> Iterator[tuple[Location, str, str]]:
    yield from _named((*at, "agents"), "Agent", match.agents or ())
    yield from _named((*at, "fleets"), "AgentFleet", match.fleets or ())
    yield from _named((*at, "path"), ANYWHERE, match.path or ())


def _named(at: Location, kind: str, names: Iterable[str]) -> Iterator[tuple[Location, str, str]]:
    yield from (((*at, index), kind, name) for index, name in enumerate(names))


def _within_reach(referrer: Resource, agents: set[str]) -> set[str]:
    """Give the agents a resource can be about: an AgentPolicy or AgentBudget, those of its own namespace."""
    if not isinstance(referrer, AgentPolicy | AgentBudget):
        return agents
    return {key for key in agents if key.startswith(f"{referrer.metadata.namespace}/")}


def _exists(name: str, namespace: str | None, known: set[str]) -> bool:
    """Say whether a name of a resource in `namespace` is known; None: in whatever namespace it is."""
    if name in known or (namespace and f"{namespace}/{name}" in known):
        return True
    return namespace is None and any(key.endswith(f"/{name}") for key in known)


def _catalog_conflicts(catalogs: list[ActionCatalog]) -> Iterator[tuple[Resource, Location, str]]:
    """Give the plainly named actions whose entries disagree about the target; such an action is always denied."""
    index = CatalogIndex(map(catalog_item, catalogs))
    for catalog in catalogs:
        for number, entry in enumerate(catalog.spec.entries):
            for position, name in enumerate(entry.names):
                conflict = None if "*" in name else index.classify(name).conflict
                if conflict is not None:
                    yield catalog, ("spec", "entries", number, "names", position), conflict
