"""Which statuses may have changed, and what they are made of.

Each round compares what is there with what was there the round before, by identity where things are immutable. So
nothing depends on having been told of every change, and a round in which little changed costs little.
"""

import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

from fleetward.registry import slice as sl
from fleetward.registry.registry import Registry
from fleetward.registry.selector import selects
from fleetward_operator.status.facts import AgentFacts, PodNow
from fleetward_operator.status.view import Link, StatusView
from fleetward_operator.view.observed import Observed
from fleetward_operator.view.pods import Pod
from fleetward_operator.view.quarantine import Cuts
from fleetward_operator.view.workloads import Workloads, excluded

PATIENCE_SECONDS = 10.0
"""How long a decision webhook may take to confirm a change that is not about the agent itself before the agent counts
as not Ready: every change of a catalog would else flip every agent twice."""

VERSIONS_KEPT = 4096

Key = tuple[str, str]
"""Kind and key of an object."""


@dataclass(slots=True)
class Dirty:
    """Objects whose status may have changed."""

    soon: set[Key] = field(default_factory=set)
    """Those that somebody may be waiting for."""
    later: set[Key] = field(default_factory=set)


@dataclass(slots=True)
class _Concern:
    """The last change that concerned an agent."""

    index: int
    version: str
    own: bool
    at: float


class Tracker:
    """Follows a view round by round. `follow` first, then ask. Pods of the namespaces `never` are not governed."""

    def __init__(self, never: Collection[str] = (), clock: Callable[[], float] = time.monotonic) -> None:
        self._never = never
        self._clock = clock
        self._workloads = Workloads()
        self._registry = Registry()
        self._observed: dict[Key, Observed] = {}
        self._agents: dict[str, sl.Agent] = {}
        self._pods: dict[str, Pod] = {}
        self._agents_of: dict[str, tuple[str, ...]] = {}
        """Agents by pod."""
        self._pods_of: defaultdict[str, set[str]] = defaultdict(set)
        self._links: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        """By pod: the agents its decision webhooks serve, and the version they run."""
        self._blocked: dict[str, str] = {}
        self._cuts: Cuts = {}
        self._members: defaultdict[str, set[str]] = defaultdict(set)
        """Agents by fleet."""
        self._subjects: defaultdict[str, set[str]] = defaultdict(set)
        """Agents by policy."""
        self._sharing: defaultdict[str, set[str]] = defaultdict(set)
        """Agents by budget."""
        self._roles_changed: set[str] = set()
        """Namespaces in which an agent came, went or changed its role."""
        self._indices: OrderedDict[str, int] = OrderedDict()
        """When each registry version was last in force, counted in registries."""
        self._index = 0
        self._concerns: dict[str, _Concern] = {}
        self._impatient: dict[str, float] = {}
        """Agents to look at again, and when: then patience with their webhooks has ended."""

    def follow(self, view: StatusView) -> Dirty:
        """Look at everything once; say what may have changed since the last time."""
        dirty = Dirty()
        registry = view.registry
        if registry is not self._registry:
            self._follow_registry(registry, dirty)
        self._follow_observed(view.observed, dirty)
        self._follow_pods(view.pods, dirty)
        self._follow_links(view.links(), dirty)
        blocked = dict(view.blocked())
        for pod in {p for p in blocked.keys() | self._blocked.keys() if blocked.get(p) != self._blocked.get(p)}:
            dirty.soon |= _agents(self._agents_of.get(pod, ()))
        self._blocked = blocked
        self._follow_cuts(view.cuts(), dirty)
        now = self._clock()
        for agent in [agent for agent, at in self._impatient.items() if at <= now]:
            del self._impatient[agent]
            dirty.later.add(("Agent", agent))
        return dirty

    # What follows is asked for

    def facts(self, agent: str, view: StatusView) -> AgentFacts:
        """Give what is known of an agent."""
        concern = self._concerns.get(agent)
        namespace = agent.partition("/")[0]
        inside = self._registry.agents_in.get(namespace)
        resource = inside.get(agent) if inside is not None else None
        return AgentFacts(
            item=self._agents.get(agent),
            has_workload=resource is not None and resource.spec.workload is not None,
            pods=[self._pod_now(agent, pod) for pod in sorted(self._pods_of.get(agent, ()))],
            cut=namespace in self._cuts,
            excluded=excluded(namespace, self._registry, self._never),
            patient=concern is not None and not concern.own and self._clock() - concern.at < PATIENCE_SECONDS,
            version=concern.version if concern is not None else "",
            last_decision=view.last_decision(agent),
        )

    def members(self, fleet: str) -> list[sl.Agent]:
        """Give the agents of a fleet."""
        return [self._agents[key] for key in sorted(self._members.get(fleet, ()))]

    def subjects(self, policy: str) -> int:
        """Say how many agents a policy concerns, by its key in the registry."""
        return len(self._subjects.get(policy, ()))

    def sharing(self, budget: str) -> int:
        """Say how many agents share a budget, those of budgets that are part of it included."""
        return len(self._sharing.get(budget, ()))

    def _pod_now(self, agent: str, key: str) -> PodNow:
        serving = [running for agents, running in self._links.get(key, ()) if agent in agents]
        concern = self._concerns[agent]
        return PodNow(
            pod=self._pods[key],
            connected=bool(serving),
            current=any(self._indices.get(running, -1) >= concern.index for running in serving),
            mates=tuple(mate for mate in self._agents_of[key] if self._mode(mate) != self._mode(agent)),
            blocked=self._blocked.get(key, ""),
            opened=self._opened(self._pods[key]),
        )

    def _mode(self, agent: str) -> sl.OperatingMode:
        return self._agents[agent].mode.operating_mode

    def _opened(self, pod: Pod) -> tuple[str, ...]:
        openings = self._cuts.get(pod.namespace, ())
        return tuple(opening.policy for opening in openings if selects(opening.selector, pod.labels))

    # The registry

    def _follow_registry(self, registry: Registry, dirty: Dirty) -> None:
        old, self._registry = self._registry, registry
        self._index += 1
        self._indices[registry.version] = self._index
        self._indices.move_to_end(registry.version)
        while len(self._indices) > VERSIONS_KEPT:
            self._indices.popitem(last=False)
        changed = self._follow_agents(registry, dirty)
        concerned = self._follow_rest(old, registry, dirty) | self._delegating()
        self._concern(changed, own=True)
        self._concern(concerned - changed, own=False)
        dirty.soon |= _agents(changed)
        dirty.later |= _agents(concerned)
        self._rematch_namespaces(self._workloads.follow(registry), dirty)
        for agent in changed:  # what a stop does to a pod depends on all agents of the pod
            for pod in self._pods_of.get(agent, ()):
                dirty.soon |= _agents(self._agents_of[pod])

    def _follow_agents(self, registry: Registry, dirty: Dirty) -> set[str]:
        changed = set()
        for key, item in registry.agents.items():
            before = self._agents.get(key)
            if before is not item and before != item:
                changed.add(key)
                self._refile(key, before, item, dirty)
                self._agents[key] = item
        if len(self._agents) != len(registry.agents):
            for key in [key for key in self._agents if key not in registry.agents]:
                self._refile(key, self._agents.pop(key), None, dirty)
                self._concerns.pop(key, None)
                self._impatient.pop(key, None)
        return changed

    def _refile(self, key: str, before: sl.Agent | None, after: sl.Agent | None, dirty: Dirty) -> None:
        """File an agent under its fleets, policies and budgets; their statuses count it."""
        if before is None or after is None or before.role != after.role:
            self._roles_changed.add(key.partition("/")[0])
        for item, put in ((before, False), (after, True)):
            if item is None:
                continue
            indices = ((self._members, item.fleets), (self._subjects, item.policies), (self._sharing, item.budgets))
            for index, names in indices:
                for name in names:
                    index[name].add(key) if put else index[name].discard(key)
            dirty.soon |= {("AgentFleet", fleet) for fleet in item.fleets}
        named = [
            frozenset((*item.policies, *item.budgets)) if item is not None else frozenset() for item in (before, after)
        ]
        dirty.later |= {_of_kind(key) for key in named[0] ^ named[1]}

    def _follow_rest(self, old: Registry, new: Registry, dirty: Dirty) -> set[str]:
        """Give the agents that changes of other things concern: of policies, of budgets, of catalogs."""
        concerned: set[str] = set()
        for key in _changed(old.policies, new.policies):
            dirty.soon.add(_of_kind(key))
            concerned |= self._subjects.get(key, set())
        for key in _changed(old.budgets, new.budgets):
            dirty.soon.add(_of_kind(key))
            concerned |= self._sharing.get(key, set())
        if _changed(old.catalogs, new.catalogs):
            concerned |= self._agents.keys()
        for namespace in _changed(old.namespaces, new.namespaces):  # its label may exclude it
            dirty.soon |= _agents(new.agents_in.get(namespace) or ())
        return concerned

    def _delegating(self) -> set[str]:
        """Give the agents that a changed role concerns: they may delegate to roles, and so know who has which."""
        namespaces, self._roles_changed = self._roles_changed, set()
        if not namespaces:
            return set()
        return {a for a, item in self._agents.items() if item.namespace in namespaces and _delegates_to_roles(item)}

    def _concern(self, agents: Iterable[str], *, own: bool) -> None:
        now = self._clock()
        for agent in agents:
            self._concerns[agent] = _Concern(self._index, self._registry.version, own, now)
            if not own:
                self._impatient[agent] = now + PATIENCE_SECONDS

    # Objects, pods, webhooks

    def _follow_observed(self, observed: Mapping[Key, Observed], dirty: Dirty) -> None:
        before, self._observed = self._observed, dict(observed)
        for key, now in self._observed.items():
            known = before.get(key)
            if known is now:
                continue
            same = known is not None and (known.generation, known.faults) == (now.generation, now.faults)
            (dirty.later if same else dirty.soon).add(key)

    def _follow_pods(self, pods: Iterable[Pod], dirty: Dirty) -> None:
        now = {pod.key: pod for pod in pods}
        for key, pod in now.items():
            if self._pods.get(key) is not pod:
                self._rematch(key, pod, dirty)
        for key in self._pods.keys() - now.keys():
            self._rematch(key, None, dirty)

    def _rematch_namespaces(self, namespaces: set[str], dirty: Dirty) -> None:
        if namespaces:
            for key, pod in list(self._pods.items()):
                if pod.namespace in namespaces:
                    self._rematch(key, pod, dirty)

    def _rematch(self, key: str, pod: Pod | None, dirty: Dirty) -> None:
        before = self._agents_of.pop(key, ())
        for agent in before:
            self._pods_of[agent].discard(key)
        if pod is None:
            self._pods.pop(key, None)
        else:
            self._pods[key] = pod
        if pod is None or pod.over:
            dirty.soon |= _agents(before)
            return
        after = tuple(agent.key for agent in self._workloads.agents_of(pod))
        self._agents_of[key] = after
        for agent in after:
            self._pods_of[agent].add(key)
        dirty.soon |= _agents(before) | _agents(after)

    def _follow_cuts(self, cuts: Cuts, dirty: Dirty) -> None:
        before, self._cuts = self._cuts, cuts
        for namespace in cuts.keys() | before.keys():
            if cuts.get(namespace) != before.get(namespace):
                dirty.soon |= _agents(self._registry.agents_in.get(namespace) or ())

    def _follow_links(self, links: Iterable[Link], dirty: Dirty) -> None:
        now: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        for link in links:
            now.setdefault(link.workload, []).append((link.agents, link.running))
        before, self._links = self._links, now
        for key in now.keys() | before.keys():
            if now.get(key) != before.get(key):
                dirty.soon |= _agents(self._agents_of.get(key, ()))


def _agents(keys: Iterable[str]) -> set[Key]:
    return {("Agent", key) for key in keys}


def _of_kind(key: str) -> Key:
    """Split the key of a policy or budget, `kind/name`."""
    kind, _, name = key.partition("/")
    return kind, name


def _changed(old: Mapping[str, object], new: Mapping[str, object]) -> list[str]:
    if old is new:
        return []
    changed = [key for key, item in new.items() if (known := old.get(key)) is not item and known != item]
    return changed + [key for key in old if key not in new]


def _delegates_to_roles(agent: sl.Agent) -> bool:
    return agent.may_delegate_to is not None and bool(agent.may_delegate_to.roles)
