"""The registry: all resources as one immutable snapshot in memory.

A change gives a new registry that shares all the rest with the old one (persistent maps), and works out anew only the
agents it concerns. The version is a sum over the content of all resources, so two registries of the same content have
the same version, however they came to it.
"""

from __future__ import annotations  # HashTrieMap takes its type parameters in annotations only

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from rpds import HashTrieMap

from fleetward.registry import slice as sl
from fleetward.registry.builder import BudgetResource, Builder, Key, Policy
from fleetward.resources import Agent, AgentFleet, AuditSink, Resource


@dataclass(frozen=True, slots=True)
class Upsert:
    """A resource was added or changed."""

    resource: Resource


@dataclass(frozen=True, slots=True)
class Remove:
    """A resource is gone."""

    kind: str
    key: str


@dataclass(frozen=True, slots=True)
class NamespaceLabels:
    """A namespace's labels; None: it is gone."""

    name: str
    labels: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class BudgetPauses:
    """The agents that budgets pause, by key, with the mode and what to say of it; in place of those said before.

    An agent's own mode counts where it is as strong. Resources that come and go leave these as they are.
    """

    modes: Mapping[str, sl.Mode]


RegistryChange: TypeAlias = Upsert | Remove | NamespaceLabels | BudgetPauses


@dataclass(frozen=True, slots=True)
class Registry:
    """All resources at one moment. Make one with `Registry.build`, the next with `apply`."""

    resources: HashTrieMap[Key, Resource] = field(default_factory=HashTrieMap)
    namespaces: HashTrieMap[str, Mapping[str, str]] = field(default_factory=HashTrieMap)
    agents: HashTrieMap[str, sl.Agent] = field(default_factory=HashTrieMap)
    """Every agent with all that holds for it, by `namespace/name`."""
    policies: HashTrieMap[str, sl.Policy] = field(default_factory=HashTrieMap)
    catalogs: HashTrieMap[str, sl.Catalog] = field(default_factory=HashTrieMap)
    budgets: HashTrieMap[str, sl.Budget] = field(default_factory=HashTrieMap)
    agents_in: HashTrieMap[str, HashTrieMap[str, Agent]] = field(default_factory=HashTrieMap)
    """Agents by namespace and key."""
    policies_in: HashTrieMap[str, HashTrieMap[str, Policy]] = field(default_factory=HashTrieMap)
    """Policies by namespace and policy key; cluster policies under the empty namespace."""
    budgets_in: HashTrieMap[str, HashTrieMap[str, BudgetResource]] = field(default_factory=HashTrieMap)
    """Budgets by namespace and budget key; cluster budgets under the empty namespace."""
    parents: HashTrieMap[str, str] = field(default_factory=HashTrieMap)
    """By budget key, the key of the budget it is part of; empty where it is part of none."""
    pauses: HashTrieMap[str, sl.Mode] = field(default_factory=HashTrieMap)
    """Agents that budgets pause; an agent need not be there."""
    fleets: HashTrieMap[str, AgentFleet] = field(default_factory=HashTrieMap)
    sinks_by_key: HashTrieMap[str, AuditSink] = field(default_factory=HashTrieMap)
    not_running: HashTrieMap[str, sl.Agent] = field(default_factory=HashTrieMap)
    """The agents whose mode in force is another than Running: few, or none, of thousands."""
    sum: int = 0
    changed_at: float = field(default_factory=time.time)
    """When this version was made, in seconds since the epoch."""

    @staticmethod
    def build(resources: Iterable[Resource], namespaces: Mapping[str, Mapping[str, str]] | None = None) -> Registry:
        """Give the registry of these resources; `namespaces` maps names to labels."""
        labels = (NamespaceLabels(name, values) for name, values in (namespaces or {}).items())
        return Registry().apply([*labels, *map(Upsert, resources)])

    @property
    def version(self) -> str:
        """Identifies the content: 16 hexadecimal digits."""
        return f"{self.sum:064x}"[:16]

    @property
    def age_seconds(self) -> float:
        """How long ago this version was made."""
        return max(0.0, time.time() - self.changed_at)

    @property
    def sinks(self) -> list[AuditSink]:
        """The audit sinks, by name."""
        return sorted(self.sinks_by_key.values(), key=lambda sink: sink.key)

    def apply(self, changes: Iterable[RegistryChange]) -> Registry:
        """Give the registry with the changes made. What does not change anything is passed over.

        Raises ValueError for a resource that is not in the scope of its kind.
        """
        builder = Builder(self)
        for change in changes:
            match change:
                case Upsert(resource):
                    builder.put((resource.kind, resource.key), resource)
                case Remove(kind, key):
                    builder.put((kind, key), None)
                case NamespaceLabels(name, labels):
                    builder.label(name, labels)
                case BudgetPauses(modes):
                    builder.pause(modes)
        return builder.finish()

    def replace_all(
        self, resources: Iterable[Resource], namespaces: Mapping[str, Mapping[str, str]] | None = None
    ) -> Registry:
        """Give the registry that holds just these resources: a relist, or a folder read again."""
        wanted = {(resource.kind, resource.key): resource for resource in resources}
        named = dict(namespaces or {})
        gone = [Remove(*key) for key in self.resources if key not in wanted]
        unlabelled = [NamespaceLabels(name, None) for name in self.namespaces if name not in named]
        labels = [NamespaceLabels(name, values) for name, values in named.items()]
        return self.apply([*gone, *unlabelled, *labels, *map(Upsert, wanted.values())])

    def cut(self, agents: Iterable[str], principals: Iterable[str] = ()) -> sl.Slice:
        """Cut the slice that a sidecar of these agents needs; agents that are not there are left out.

        `principals` are agents that handed work down to them.
        """
        chosen = {key: agent for key in sorted(agents) if (agent := self.agents.get(key)) is not None}
        above = {key: agent for key in sorted(principals) if (agent := self.agents.get(key)) is not None}
        policies = {key for agent in (*chosen.values(), *above.values()) for key in agent.policies}
        budgets = {key for agent in (*chosen.values(), *above.values()) for key in agent.budgets}
        delegating = {a.namespace for a in chosen.values() if a.may_delegate_to and a.may_delegate_to.roles}
        return sl.Slice(
            version=self.version,
            items=sl.Items(
                agents=chosen,
                policies={key: self.policies[key] for key in sorted(policies)},
                catalogs={key: self.catalogs[key] for key in sorted(self.catalogs)},
                roles={
                    key: agent.spec.role
                    for namespace in sorted(delegating)
                    for key, agent in sorted(self.agents_in[namespace].items())
                },
                principals=above,
                budgets={key: self.budgets[key] for key in sorted(budgets)},
            ),
        )

    def namespace_labels(self, name: str) -> Mapping[str, str]:
        """Give a namespace's labels, with the one Kubernetes always sets."""
        return {**(self.namespaces.get(name) or {}), "kubernetes.io/metadata.name": name}
