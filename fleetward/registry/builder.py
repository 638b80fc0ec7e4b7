"""How the next registry is made of one and of what changes: only the agents concerned are worked out anew."""

from __future__ import annotations  # HashTrieMap takes its type parameters in annotations only

import time
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import replace
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import msgspec
from rpds import HashTrieMap

from fleetward.registry import nesting
from fleetward.registry import slice as sl
from fleetward.registry.convert import (
    agent_item,
    budget_item,
    budget_key,
    catalog_item,
    fingerprint,
    namespace_fingerprint,
    parent_key,
    pause_fingerprint,
    policy_item,
    policy_key,
)
from fleetward.registry.selector import selects
from fleetward.resources import (
    ActionCatalog,
    Agent,
    AgentBudget,
    AgentFleet,
    AgentPolicy,
    AuditSink,
    ClusterAgentBudget,
    ClusterAgentPolicy,
    Resource,
)
from fleetward.resources.budget import BudgetSubjects
from fleetward.resources.clusteragentbudget import ClusterBudgetSubjects
from fleetward.resources.clusteragentpolicy import ClusterPolicySubjects
from fleetward.resources.rule import PolicySubjects

if TYPE_CHECKING:
    from fleetward.registry.registry import Registry

_MODULUS = 2**256
K = TypeVar("K")
V = TypeVar("V")

Key: TypeAlias = tuple[str, str]
"""Kind, and `namespace/name` or `name`."""
Policy: TypeAlias = AgentPolicy | ClusterAgentPolicy
BudgetResource: TypeAlias = AgentBudget | ClusterAgentBudget


class Builder:
    """Makes the next registry: files each change, notes the agents concerned, works those out once at the end."""

    def __init__(self, registry: Registry) -> None:
        self._old = registry
        self._new = registry
        self._concerned: set[str] = set()
        self._moved: set[str] = set()
        """Budgets that came, went, or became part of another one."""

    def put(self, key: Key, resource: Resource | None) -> None:
        """File a resource, or take it out."""
        old = self._new.resources.get(key)
        if old == resource:
            return
        if resource is not None:
            _check_scope(resource)
        total = self._new.sum - (fingerprint(old) if old else 0) + (fingerprint(resource) if resource else 0)
        resources = _put(self._new.resources, key, resource)
        self._new = replace(self._new, resources=resources, sum=total % _MODULUS)
        self._file(old, resource)

    def _file(self, old: Resource | None, new: Resource | None) -> None:
        match new if new is not None else old:
            case Agent() as agent:
                self._file_agent(agent, gone=new is None)
            case AgentPolicy() | ClusterAgentPolicy() as policy:
                self._file_policy(policy, old, gone=new is None)
            case AgentBudget() | ClusterAgentBudget() as budget:
                self._file_budget(budget, old, gone=new is None)
            case AgentFleet() as fleet:
                self._concern(a for f in (old, new) if isinstance(f, AgentFleet) for a in self._members(f))
                self._new = replace(self._new, fleets=_put(self._new.fleets, fleet.key, None if new is None else fleet))
            case ActionCatalog() as catalog:
                item = None if new is None else catalog_item(catalog)
                self._new = replace(self._new, catalogs=_put(self._new.catalogs, catalog.key, item))
            case AuditSink() as sink:  # concerns no agent
                sinks = _put(self._new.sinks_by_key, sink.key, None if new is None else sink)
                self._new = replace(self._new, sinks_by_key=sinks)
            case _:  # pragma: no cover - there is no other kind
                pass

    def _file_agent(self, agent: Agent, *, gone: bool) -> None:
        namespace = agent.metadata.namespace or ""
        inside = _put(self._new.agents_in.get(namespace) or HashTrieMap(), agent.key, None if gone else agent)
        self._new = replace(self._new, agents_in=_put(self._new.agents_in, namespace, inside or None))
        self._concerned.add(agent.key)

    def _file_policy(self, policy: Policy, old: Resource | None, *, gone: bool) -> None:
        namespace = policy.metadata.namespace or ""
        key = policy_key(policy)
        inside = _put(self._new.policies_in.get(namespace) or HashTrieMap(), key, None if gone else policy)
        self._new = replace(
            self._new,
            policies_in=_put(self._new.policies_in, namespace, inside or None),
            policies=_put(self._new.policies, key, None if gone else policy_item(policy)),
        )
        versions = [p for p in (old, None if gone else policy) if isinstance(p, AgentPolicy | ClusterAgentPolicy)]
        if len(versions) == 2 and versions[0].spec.subjects == versions[1].spec.subjects:
            return  # the same agents are concerned, and they refer to the policy by its key
        self._concern(agent for version in versions for agent in self._subjects(version))

    def _file_budget(self, budget: BudgetResource, old: Resource | None, *, gone: bool) -> None:
        namespace, key = budget.metadata.namespace or "", budget_key(budget)
        inside = _put(self._new.budgets_in.get(namespace) or HashTrieMap(), key, None if gone else budget)
        known = self._new.budgets.get(key)
        parent = None if gone else parent_key(budget)
        if self._new.parents.get(key) != parent:
            self._moved.add(key)
        self._new = replace(
            self._new,
            budgets_in=_put(self._new.budgets_in, namespace, inside or None),
            budgets=_put(self._new.budgets, key, None if gone else budget_item(budget, known.problem if known else "")),
            parents=_put(self._new.parents, key, parent),
        )
        versions = [b for b in (old, None if gone else budget) if isinstance(b, AgentBudget | ClusterAgentBudget)]
        if len(versions) == 2 and versions[0].spec.subjects == versions[1].spec.subjects:
            return
        self._concern(agent for version in versions for agent in self._sharing(version))

    def pause(self, modes: Mapping[str, sl.Mode]) -> None:
        """File the modes that budgets set."""
        old = self._new.pauses
        wanted = {key: mode for key, mode in modes.items() if mode.operating_mode != "Running"}
        changed = {key for key in (*old, *wanted) if old.get(key) != wanted.get(key)}
        total = self._new.sum
        pauses = old
        for key in changed:
            before, after = old.get(key), wanted.get(key)
            total -= 0 if before is None else pause_fingerprint(key, before)
            total += 0 if after is None else pause_fingerprint(key, after)
            pauses = _put(pauses, key, after)
        if changed:
            self._new = replace(self._new, pauses=pauses, sum=total % _MODULUS)
            self._concerned |= changed

    def label(self, name: str, labels: Mapping[str, str] | None) -> None:
        """File a namespace's labels."""
        old = self._new.namespaces.get(name)
        if old == labels:
            return
        total = self._new.sum
        total -= 0 if old is None else namespace_fingerprint(name, old)
        total += 0 if labels is None else namespace_fingerprint(name, labels)
        namespaces = _put(self._new.namespaces, name, None if labels is None else dict(labels))
        self._new = replace(self._new, namespaces=namespaces, sum=total % _MODULUS)
        self._concern((self._new.agents_in.get(name) or HashTrieMap()).values())

    def finish(self) -> Registry:
        """Work out the agents concerned."""
        if self._new is self._old:
            return self._old
        self._nest()
        agents, not_running = self._new.agents, self._new.not_running
        for key in self._concerned:
            namespace = key.partition("/")[0]
            agent = (self._new.agents_in.get(namespace) or HashTrieMap()).get(key)
            item = None if agent is None else self._view(agent)
            stands = item is not None and item.mode.operating_mode != "Running"
            agents = _put(agents, key, item)
            not_running = _put(not_running, key, item if stands else None)
        return replace(self._new, agents=agents, not_running=not_running, changed_at=time.time())

    def _nest(self) -> None:
        """See to what budgets that came, went or moved change for those that are part of them."""
        if not self._moved:
            return
        for key in nesting.below(self._moved, self._new.parents):
            budget = self._budget(key)
            if budget is not None:
                self._concern(self._sharing(budget))
        budgets = self._new.budgets
        for key, item in self._new.budgets.items():
            problem = nesting.problem(key, self._new.parents)
            if problem != item.problem:
                budgets = _put(budgets, key, msgspec.structs.replace(item, problem=problem))
        self._new = replace(self._new, budgets=budgets)

    def _budget(self, key: str) -> BudgetResource | None:
        item = self._new.budgets.get(key)
        if item is None:
            return None
        namespace = item.name.partition("/")[0] if item.kind == "AgentBudget" else ""
        return self._new.budgets_in[namespace][key]

    def _view(self, agent: Agent) -> sl.Agent:
        namespace = agent.metadata.namespace or ""
        labels = self._new.namespace_labels(namespace)
        fleets = self._fleets_of(agent, labels)
        names = {fleet.key for fleet in fleets}
        policies = [self._new.policies_in.get(n) or HashTrieMap() for n in (namespace, "")]
        budgets = [self._new.budgets_in.get(n) or HashTrieMap() for n in (namespace, "")]
        own = [key for some in budgets for key, budget in some.items() if _shares(agent, labels, budget, names)]
        return agent_item(
            agent,
            fleets=fleets,
            policies=[key for some in policies for key, policy in some.items() if _is_subject(agent, labels, policy)],
            budgets={above for key in own for above in nesting.ancestors(key, self._new.parents)},
            pause=self._new.pauses.get(agent.key),
        )

    def _fleets_of(self, agent: Agent, namespace_labels: Mapping[str, str]) -> list[AgentFleet]:
        return [fleet for fleet in self._new.fleets.values() if _is_member(agent, namespace_labels, fleet)]

    def _concern(self, agents: Iterable[Agent]) -> None:
        self._concerned.update(agent.key for agent in agents)

    def _members(self, fleet: AgentFleet) -> Iterator[Agent]:
        for namespace, agents in self._new.agents_in.items():
            labels = self._new.namespace_labels(namespace)
            if selects(fleet.spec.agents.namespace_selector, labels):
                yield from (agent for agent in agents.values() if _is_member(agent, labels, fleet))

    def _subjects(self, policy: Policy) -> Iterator[Agent]:
        for agent, labels in self._within(policy.metadata.namespace):
            if _is_subject(agent, labels, policy):
                yield agent

    def _sharing(self, budget: BudgetResource) -> Iterator[Agent]:
        """Give the budget's subjects. Where a fleet changes in the same step, its members are concerned anyway."""
        by_fleet = bool(budget.spec.subjects.fleets)
        for agent, labels in self._within(budget.metadata.namespace):
            fleets = {fleet.key for fleet in self._fleets_of(agent, labels)} if by_fleet else set()
            if _shares(agent, labels, budget, fleets):
                yield agent

    def _within(self, namespace: str | None) -> Iterator[tuple[Agent, Mapping[str, str]]]:
        """Give the agents of a namespace, or of all, each with the labels of its namespace."""
        for name in self._new.agents_in if namespace is None else [namespace]:
            labels = self._new.namespace_labels(name)
            for agent in (self._new.agents_in.get(name) or HashTrieMap()).values():
                yield agent, labels


def _check_scope(resource: Resource) -> None:
    """Refuse what would be filed in the wrong place: an AgentPolicy of no namespace must not reach all of them."""
    namespace = resource.metadata.namespace
    if resource.SCOPE == "Namespaced" and namespace is None:
        raise ValueError(f"{resource.key}: metadata.namespace is missing; {resource.kind} is namespaced")
    if resource.SCOPE == "Cluster" and namespace is not None:
        raise ValueError(
            f"{resource.key}: metadata.namespace: found {namespace}, allowed none; {resource.kind} is cluster-scoped"
        )


def _is_member(agent: Agent, namespace_labels: Mapping[str, str], fleet: AgentFleet) -> bool:
    return selects(fleet.spec.agents.namespace_selector, namespace_labels) and selects(
        fleet.spec.agents.agent_selector, agent.metadata.labels
    )


def _is_subject(agent: Agent, namespace_labels: Mapping[str, str], policy: Policy) -> bool:
    return _is_among(agent, namespace_labels, policy.spec.subjects)


def _shares(
    agent: Agent, namespace_labels: Mapping[str, str], budget: BudgetResource, fleets: AbstractSet[str]
) -> bool:
    """Say whether an agent, which is in these fleets, is among a budget's own subjects."""
    subjects = budget.spec.subjects
    return (not subjects.fleets or not fleets.isdisjoint(subjects.fleets)) and _is_among(
        agent, namespace_labels, subjects
    )


def _is_among(agent: Agent, namespace_labels: Mapping[str, str], subjects: PolicySubjects | BudgetSubjects) -> bool:
    if isinstance(subjects, ClusterPolicySubjects | ClusterBudgetSubjects) and not selects(
        subjects.namespace_selector, namespace_labels
    ):
        return False
    return (
        (not subjects.roles or agent.spec.role in subjects.roles)
        and (not subjects.agents or agent.metadata.name in subjects.agents or agent.key in subjects.agents)
        and selects(subjects.agent_selector, agent.metadata.labels)
    )


def _put(map_: HashTrieMap[K, V], key: K, value: V | None) -> HashTrieMap[K, V]:
    """Give the map with the key set, or without it where the value is None."""
    if value is not None:
        return map_.insert(key, value)
    return map_.remove(key) if key in map_ else map_
