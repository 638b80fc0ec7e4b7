"""`GET /v1/agents`: what the agents here are, and what concerns them."""

from fleetward.decision.agent import AgentEngine
from fleetward.decision.engine import Engine
from fleetward.decision.rules import may_concern
from fleetward.registry.slice import (
    BudgetLimits,
    BudgetScope,
    BudgetWindow,
    Decision,
    Delegates,
    Enforcement,
    OperatingMode,
    Role,
    Rule,
    Wire,
)


class AgentRule(Wire, frozen=True, kw_only=True):
    """A rule that can concern the agent, and the policy it belongs to."""

    policy: str
    kind: str
    enforcement: Enforcement
    rule: Rule


class AgentBudget(Wire, frozen=True, kw_only=True):
    """A budget that what the agent does counts in."""

    kind: str
    name: str
    scope: BudgetScope
    """Who shares a pot of it: all that it is for, or each agent, run or subtree of delegations for itself."""
    window: BudgetWindow
    limits: BudgetLimits
    problem: str = ""
    """Why nothing may be spent from it; left out where nothing is wrong."""


class AgentView(Wire, frozen=True, kw_only=True):
    """One agent: who it is, in which mode, what holds where no rule speaks, and the rules that can concern it."""

    agent: str
    role: Role
    owner: str
    risk_tier: str
    operating_mode: OperatingMode
    operating_reason: str = ""
    mode_set_by: str = ""
    mode_source: str = ""
    """The resource that sets the mode, such as `AgentFleet reporting`."""
    fleets: tuple[str, ...]
    default_decision: Decision
    declared_facts: str
    data_classes: tuple[str, ...] | None = None
    """Left out: whatever the rules allow."""
    may_delegate_to: Delegates | None = None
    """Left out: whomever the rules allow."""
    rules: tuple[AgentRule, ...]
    budgets: tuple[AgentBudget, ...] = ()


class AgentsView(Wire, frozen=True, kw_only=True):
    """Every agent that this webhook decides for, by the policies of one version of the registry."""

    registry_version: str
    agents: tuple[AgentView, ...]


def describe(engine: Engine) -> AgentsView:
    """Describe the agents that `engine` decides for."""
    return AgentsView(
        registry_version=engine.slice.version,
        agents=tuple(_view(engine, agent) for _, agent in sorted(engine.agents.items())),
    )


def _view(engine: Engine, ready: AgentEngine) -> AgentView:
    # A change of mode alone keeps the ready agent, so what it is now stands in the slice.
    agent = engine.slice.items.agents[ready.agent.key]
    policies = [p for key in agent.policies if (p := engine.slice.items.policies.get(key)) is not None]
    return AgentView(
        agent=agent.key,
        role=agent.role,
        owner=agent.owner,
        risk_tier=agent.risk_tier,
        operating_mode=agent.mode.operating_mode,
        operating_reason=agent.mode.reason,
        mode_set_by=agent.mode.set_by,
        mode_source=agent.mode.source,
        fleets=agent.fleets,
        default_decision=agent.default_decision,
        declared_facts=agent.declared_facts,
        data_classes=agent.data_classes,
        may_delegate_to=agent.may_delegate_to,
        rules=tuple(
            AgentRule(policy=policy.name, kind=policy.kind, enforcement=policy.enforcement, rule=rule)
            for policy in policies
            for rule in policy.rules
            if may_concern(agent, rule.match)
        ),
        budgets=tuple(
            AgentBudget(
                kind=budget.kind,
                name=budget.name,
                scope=budget.scope,
                window=budget.window,
                limits=budget.limits,
                problem=budget.problem,
            )
            for key in agent.budgets
            if (budget := engine.slice.items.budgets.get(key)) is not None
        ),
    )
