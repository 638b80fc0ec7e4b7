"""What would have allowed an action that no rule decided: the default did, the agent's or that of one above it."""

from collections.abc import Iterator
from itertools import islice

from fleetward.cli.describe import is_about, obstacles
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.registry.slice import Agent

NEAR_MISSES = 5
"""The most rules shown that would have allowed an action, had something been different."""


def remedies(evaluation: Evaluation, engine: Engine) -> list[str]:
    """Say what would have to change where a default decided; where a rule did, its reason says so."""
    by_rule = any(ref.enforcement == "Enforce" and ref.decision == evaluation.decision for ref in evaluation.rules)
    if evaluation.mode is not None or by_rule or evaluation.allowed:
        return []
    undecided = _undecided(evaluation, engine)
    if undecided is None:
        return []  # Fleetward itself refused, whatever the rules say
    agent, path = undecided
    action = evaluation.request.action
    lines = list(islice(_near_misses(evaluation, agent, path, engine), NEAR_MISSES))
    match = f"{{kinds: [{action.kind}], names: [{action.name}]}}"
    lines.append(
        f"a rule with decision: Allow and match: {match} in an AgentPolicy of namespace {agent.namespace} "
        f"or a ClusterAgentPolicy"
    )
    if agent.fleets:
        fleets = " and ".join(agent.fleets)
        lines.append(f"defaultDecision: Allow on AgentFleet {fleets} (for every action that no rule matches)")
    return lines


def _undecided(evaluation: Evaluation, engine: Engine) -> tuple[Agent, tuple[str, ...]] | None:
    """Give the agent whose default decided, and who handed the work down to it."""
    items, path = engine.slice.items, evaluation.situation.path
    for number, key in enumerate((*path, evaluation.agent)):
        agent = items.agents.get(key) or items.principals.get(key)
        # A default speaks for one agent; a fleet with delegation: Intersection asks it of everyone in the chain.
        if agent is not None and f"no rule matches {_action(evaluation)} by {key};" in evaluation.reason:
            return agent, path[:number]
    return None


def _action(evaluation: Evaluation) -> str:
    return f"{evaluation.request.action.kind} {evaluation.request.action.name}"


def _near_misses(evaluation: Evaluation, agent: Agent, path: tuple[str, ...], engine: Engine) -> Iterator[str]:
    """Tell each rule that would have allowed the action but for one thing."""
    action = evaluation.request.action
    for policy in (engine.slice.items.policies[key] for key in agent.policies):
        audit = ["is in a policy with enforcement: Audit"] if policy.enforcement == "Audit" else []
        for rule in policy.rules:
            allows = rule.decision in ("Allow", "Constrain") and rule.phase == "Before"
            if allows and is_about(rule, action.kind, action.name):
                why = [*obstacles(rule, action.kind, evaluation.trusted, agent, path), *audit]
                if len(why) == 1:
                    yield f"rule {rule.name} of {policy.kind} {policy.name}, but it {why[0]}"
