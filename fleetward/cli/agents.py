"""`fleetward agents`: who is governed by a folder, and what holds for each."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem
from rich.text import Text

from fleetward.cli.describe import rule_in_words
from fleetward.cli.output import (
    CliError,
    Command,
    ExitCode,
    decision_text,
    mode_text,
    output_option,
    print_json,
    print_table,
    printable,
    say,
)
from fleetward.cli.source import Folder, dir_option, open_folder, show_findings
from fleetward.decision.rules import may_concern
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Agent, Policy, Rule
from fleetward.resources.finding import did_you_mean
from fleetward.resources.folder import FolderError, read_folder


def complete_agents(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Propose the agents of the folder, or its fleets where --fleet is given."""
    kind = "AgentFleet" if ctx.params.get("fleet") else "Agent"
    try:
        content = read_folder(ctx.params.get("directory") or ".")
    except FolderError:
        return []
    keys = (each.identity.key for each in content.resources if each.identity.kind == kind)
    return [CompletionItem(key) for key in sorted(keys) if key.startswith(incomplete)]


@click.command(
    cls=Command,
    examples=["agents --dir policies", "agents --dir policies reports/data-worker", "agents -o json"],
    exits={
        ExitCode.OK: "shown",
        ExitCode.FINDINGS: "shown, but the folder has findings: what is broken is left out",
        ExitCode.BAD_INPUT: "the folder cannot be read, or there is no such agent",
    },
)
@click.argument("name", required=False, shell_complete=complete_agents)
@dir_option
@output_option()
def agents(name: str | None, directory: Path, output: str) -> None:
    """Show the agents of a folder: the operating mode in force, fleets, default decision and policies.

    With a NAME (namespace/name, or the bare name where only one agent has it) show that agent in full, with the
    rules that can concern it.
    """
    folder = open_folder(directory)
    registry = folder.registry
    if name is not None:
        agent = find_agent(registry, name, folder)
        if output == "json":
            rules = [_rule_data(policy, rule) for policy, rule in _rules(registry, agent)]
            print_json({**_data(agent), "rules": rules})
        else:
            _show(registry, agent)
    else:
        known = [registry.agents[key] for key in sorted(registry.agents)]
        if output == "json":
            print_json([_data(agent) for agent in known])
        else:
            _list(known)
    if folder.findings:
        show_findings(folder.findings, folder.texts, stderr=True)
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def find_agent(registry: Registry, name: str, folder: Folder) -> Agent:
    """Find an agent by namespace/name, or by a name that only one has. CliError otherwise."""
    found = [key for key in registry.agents if name in (key, key.partition("/")[2])]
    if len(found) == 1:
        return registry.agents[found[0]]
    if found:
        raise CliError(f"found {len(found)} agents named {printable(name)}: {', '.join(sorted(found))}; give one")
    if folder.findings:
        show_findings(folder.findings, folder.texts, stderr=True)
    keys = sorted(registry.agents)
    raise CliError(
        f"found no agent {printable(name)}, allowed {', '.join(keys) or 'none: there are no agents'}"
        f"{did_you_mean(name, keys)}"
    )


def _list(known: Sequence[Agent]) -> None:
    columns = ["AGENT", "ROLE", "MODE", "REASON", "SET BY", "FLEETS", "DEFAULT", "POLICIES", "RISK", "OWNER"]
    print_table(
        columns,
        [
            [
                agent.key,
                agent.role,
                mode_text(agent.mode.operating_mode),
                printable(agent.mode.reason) or "-",
                printable(agent.mode.set_by) or "-",
                ", ".join(agent.fleets) or "-",
                decision_text(agent.default_decision),
                str(len(agent.policies)),
                agent.risk_tier,
                printable(agent.owner) or "-",
            ]
            for agent in known
        ],
    )


def _show(registry: Registry, agent: Agent) -> None:
    mode = agent.mode
    facts: list[tuple[str, str | Text]] = [
        ("role", agent.role),
        ("mode", mode_text(mode.operating_mode)),
        ("set on", mode.source),
        ("set by", mode.set_by),
        ("reason", mode.reason),
        ("risk tier", agent.risk_tier),
        ("owner", agent.owner),
        ("labels", ", ".join(f"{key}={value}" for key, value in sorted(agent.labels.items()))),
        ("fleets", ", ".join(agent.fleets)),
        ("default decision", decision_text(agent.default_decision)),
        ("declared facts", agent.declared_facts),
        ("data classes", "any" if agent.data_classes is None else ", ".join(agent.data_classes) or "none"),
        ("may delegate to", _delegates(agent)),
    ]
    say(agent.key, style="bold")
    for label, value in facts:
        if value:
            say(Text(f"  {label:<18}") + (value if isinstance(value, Text) else Text(printable(value))))
    rules = _rules(registry, agent)
    say()
    if not rules:
        say("no rule concerns this agent")
        return
    print_table(
        ["RULE", "POLICY", "PHASE", "DECISION", "ENFORCEMENT", "WHICH ACTIONS"],
        [
            [
                rule.name,
                policy.name,
                rule.phase,
                decision_text(rule.decision),
                policy.enforcement,
                printable(rule_in_words(rule)),
            ]
            for policy, rule in rules
        ],
    )


def _delegates(agent: Agent) -> str:
    may = agent.may_delegate_to
    if may is None:
        return "whomever the rules allow"
    return ", ".join([*(f"role {role}" for role in may.roles), *may.agents]) or "nobody"


def _rules(registry: Registry, agent: Agent) -> list[tuple[Policy, Rule]]:
    policies = [registry.policies[key] for key in agent.policies]
    return [(policy, rule) for policy in policies for rule in policy.rules if may_concern(agent, rule.match)]


def _data(agent: Agent) -> dict[str, Any]:
    may = agent.may_delegate_to
    return {
        "agent": agent.key,
        "role": agent.role,
        "mode": {
            "operatingMode": agent.mode.operating_mode,
            "reason": agent.mode.reason,
            "setBy": agent.mode.set_by,
            "source": agent.mode.source,
        },
        "fleets": list(agent.fleets),
        "defaultDecision": agent.default_decision,
        "declaredFacts": agent.declared_facts,
        "policies": [policy.partition("/")[2] for policy in agent.policies],
        "riskTier": agent.risk_tier,
        "owner": agent.owner,
        "labels": agent.labels,
        "dataClasses": None if agent.data_classes is None else list(agent.data_classes),
        "mayDelegateTo": None if may is None else {"roles": list(may.roles), "agents": list(may.agents)},
    }


def _rule_data(policy: Policy, rule: Rule) -> dict[str, Any]:
    return {
        "kind": policy.kind,
        "policy": policy.name,
        "enforcement": policy.enforcement,
        **msgspec.to_builtins(rule),
        "phase": rule.phase,
    }
