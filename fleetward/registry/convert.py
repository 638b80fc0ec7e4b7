"""Resources turned into the items of a slice, and into the digests that versions are made of."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fleetward.registry import slice as sl
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
from fleetward.resources.base import SET_BY_ANNOTATION
from fleetward.resources.budget import Window, seconds_of
from fleetward.resources.rule import Rule

STRICTNESS: dict[sl.Decision, int] = {"Allow": 0, "RequireApproval": 1, "Deny": 2}
"""Default decisions from the mildest to the strictest."""


def policy_key(policy: AgentPolicy | ClusterAgentPolicy) -> str:
    """Give a key that tells policies of both kinds apart."""
    return f"{policy.kind}/{policy.key}"


def policy_item(policy: AgentPolicy | ClusterAgentPolicy) -> sl.Policy:
    """Give a policy as it travels."""
    spec = _plain(policy.spec)
    return sl.Policy(
        kind=policy.kind,
        name=policy.key,
        uid=policy.metadata.uid,
        generation=policy.metadata.generation,
        hash=_hexdigest(spec)[:32],
        enforcement=policy.spec.enforcement,
        inheritance=policy.spec.inheritance,
        rules=tuple(map(_rule, policy.spec.rules)),
    )


def _rule(rule: Rule) -> sl.Rule:
    plain = _plain(rule)
    if rate := plain.get("throttle", {}).get("rate"):
        rate.setdefault("burst", rate["count"])
    return msgspec.convert(plain, sl.Rule)


def catalog_item(catalog: ActionCatalog) -> sl.Catalog:
    """Give a catalog as it travels."""
    spec = _plain(catalog.spec)
    return sl.Catalog(
        name=catalog.key,
        entries=msgspec.convert(spec["entries"], tuple[sl.CatalogEntry, ...]),
        models=msgspec.convert(spec["models"], tuple[sl.ModelPrice, ...]),
    )


def budget_key(budget: AgentBudget | ClusterAgentBudget) -> str:
    """Give a key that tells budgets of both kinds apart; `sl.Budget.key` is the same."""
    return f"{budget.kind}/{budget.key}"


def parent_key(budget: AgentBudget | ClusterAgentBudget) -> str:
    """Give the key of the budget that this one is part of; empty where it is part of none."""
    parent = budget.spec.parent
    if parent is None:
        return ""
    inside = f"{budget.metadata.namespace}/" if parent.kind == "AgentBudget" else ""
    return f"{parent.kind}/{inside}{parent.name}"


def budget_item(budget: AgentBudget | ClusterAgentBudget, problem: str = "") -> sl.Budget:
    """Give a budget as it travels; `problem` says why nothing may be spent from it."""
    spec = _plain(budget.spec)
    thresholds = msgspec.convert(spec["thresholds"], tuple[sl.Threshold, ...])
    return sl.Budget(
        kind=budget.kind,
        name=budget.key,
        uid=budget.metadata.uid,
        generation=budget.metadata.generation,
        hash=_hexdigest(spec)[:32],
        scope=budget.spec.scope,
        window=_window(budget.spec.window),
        limits=msgspec.convert(spec["limits"], sl.BudgetLimits),
        thresholds=tuple(sorted(thresholds, key=lambda each: (each.percent, each.action))),
        default_estimate=msgspec.convert(spec["defaultEstimate"], sl.DefaultEstimate),
        unpriced_models=budget.spec.unpriced_models,
        settle_after_seconds=budget.spec.settle_after_seconds,
        problem=problem,
    )


def _window(window: Window) -> sl.BudgetWindow:
    return sl.BudgetWindow(
        kind=window.kind,
        unit=window.unit,
        time_zone=window.time_zone or "UTC",
        duration_seconds=None if window.duration is None else seconds_of(window.duration),
    )


def agent_item(
    agent: Agent,
    fleets: Iterable[AgentFleet],
    policies: Iterable[str],
    budgets: Iterable[str] = (),
    pause: sl.Mode | None = None,
) -> sl.Agent:
    """Give an agent as it travels, with what its fleets say folded in: of several, the strictest counts.

    `pause` is the mode that a budget sets.
    """
    fleets = sorted(fleets, key=lambda fleet: fleet.key)
    strictest = max(fleets, key=lambda fleet: STRICTNESS[fleet.spec.default_decision], default=None)
    trusted = fleets and all(fleet.spec.declared_facts == "Trusted" for fleet in fleets)
    namespace = agent.metadata.namespace or "default"
    may = agent.spec.may_delegate_to
    return sl.Agent(
        name=agent.metadata.name,
        namespace=namespace,
        role=agent.spec.role,
        owner=agent.spec.owner,
        risk_tier=agent.spec.risk_tier,
        labels=agent.metadata.labels,
        data_classes=None if agent.spec.data_classes is None else tuple(sorted(agent.spec.data_classes)),
        may_delegate_to=None
        if may is None
        else sl.Delegates(
            roles=tuple(sorted(may.roles)),
            agents=tuple(sorted(name if "/" in name else f"{namespace}/{name}" for name in may.agents)),
        ),
        fleets=tuple(fleet.key for fleet in fleets),
        default_decision=strictest.spec.default_decision if strictest else "Deny",
        default_source=strictest.key if strictest else "",
        declared_facts="Trusted" if trusted else "RestrictOnly",
        delegation="Intersection" if any(f.spec.delegation == "Intersection" for f in fleets) else "Inherit",
        mode=max(
            [mode_of(agent), *map(mode_of, fleets), *([pause] if pause is not None else [])],
            key=lambda mode: sl.MODES.index(mode.operating_mode),
        ),
        policies=tuple(sorted(policies)),
        budgets=tuple(sorted(budgets)),
    )


def mode_of(resource: Agent | AgentFleet) -> sl.Mode:
    """Give the operating mode a resource sets, and who set it: the annotation, if it speaks of this very mode."""
    mode = resource.spec.operating_mode
    said, _, who = resource.metadata.annotations.get(SET_BY_ANNOTATION, "").partition(" by ")
    set_by = who if said == mode else ""
    if mode == "Running":
        return sl.Mode(set_by=set_by)
    return sl.Mode(
        operating_mode=mode,
        reason=resource.spec.operating_reason,
        set_by=set_by,
        source=f"{resource.kind} {resource.key}",
    )


def fingerprint(resource: Resource) -> int:
    """Give a number for a resource's very content; those of a registry's resources add up to its version."""
    meta = resource.metadata
    who = meta.annotations.get(SET_BY_ANNOTATION)
    content = [resource.kind, resource.key, meta.uid, meta.generation, meta.labels, who]
    return int(_hexdigest([*content, _plain(resource)["spec"]]), 16)


def namespace_fingerprint(name: str, labels: Mapping[str, str]) -> int:
    """Give a number for a namespace's labels, as `fingerprint` does for a resource."""
    return int(_hexdigest(["Namespace", name, dict(labels)]), 16)


def pause_fingerprint(agent: str, mode: sl.Mode) -> int:
    """Give a number for the mode that a budget sets for an agent, as `fingerprint` does for a resource."""
    return int(_hexdigest(["Pause", agent, msgspec.to_builtins(mode)]), 16)


def _plain(model: Any) -> dict[str, Any]:
    data: dict[str, Any] = model.model_dump(mode="json", by_alias=True, exclude_none=True)
    return data


def _hexdigest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
