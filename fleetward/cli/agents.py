"""`fleetward agents`: who is governed, what holds for each, and in a cluster how each is."""

from collections.abc import Mapping, Sequence
from typing import Any

import click
import msgspec
from rich.text import Text

from fleetward.cli.cluster.live import Live
from fleetward.cli.describe import rule_in_words
from fleetward.cli.findings import show_findings
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
from fleetward.cli.source import Governed, Source, complete_agents, source_options
from fleetward.decision.rules import may_concern
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Agent, Policy, Rule
from fleetward.resources.finding import did_you_mean


@click.command(
    cls=Command,
    examples=["agents --dir policies", "agents --dir policies reports/data-worker", "agents -n reports -o json"],
    exits={
        ExitCode.OK: "shown",
        ExitCode.FINDINGS: "shown, but there are findings: what is broken is left out",
        ExitCode.BAD_INPUT: "the folder or the cluster cannot be read, or there is no such agent",
    },
)
@click.argument("name", required=False, shell_complete=complete_agents)
@source_options
@output_option()
def agents(source: Source, name: str | None, output: str) -> None:
    """Show agents: the operating mode in force, fleets, default decision, policies and budgets.

    Of a cluster also how each is: its pods (ready of all), its decision webhooks (those deciding by what is in force,
    of those connected), the last decision, and whether it is Ready. With a NAME (namespace/name, or the bare name where
    only one agent has it) show that agent in full, with the rules that can concern it.
    """
    governed = source.read()
    registry, live = governed.registry, governed.live
    if name is not None:
        agent = find_agent(governed, name)
        if output == "json":
            rules = [_rule_data(policy, rule) for policy, rule in _rules(registry, agent)]
            print_json({**_data(agent, live), "rules": rules})
        else:
            _show(registry, agent, live)
    else:
        known = [registry.agents[key] for key in sorted(registry.agents)]
        if output == "json":
            print_json([_data(agent, live) for agent in known])
        else:
            _list(known, live)
    if governed.findings:
        show_findings(governed.findings, governed.texts, stderr=True)
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def find_agent(governed: Governed, name: str) -> Agent:
    """Find an agent by namespace/name, or by a name that only one has. CliError otherwise."""
    registry = governed.registry
    found = [key for key in registry.agents if name in (key, key.partition("/")[2])]
    if len(found) == 1:
        return registry.agents[found[0]]
    if found:
        raise CliError(f"found {len(found)} agents named {printable(name)}: {', '.join(sorted(found))}; give one")
    if governed.findings:
        show_findings(governed.findings, governed.texts, stderr=True)
    keys = sorted(registry.agents)
    raise CliError(
        f"found no agent {printable(name)}, allowed {', '.join(keys) or 'none: there are no agents'}"
        f"{did_you_mean(name, keys)}"
    )


_LIVE_COLUMNS = ("PODS", "WEBHOOKS", "LAST DECISION", "READY")


def _list(known: Sequence[Agent], live: Mapping[str, Live] | None) -> None:
    columns = ["AGENT", "ROLE", "MODE", "REASON", "SET BY", "FLEETS", "DEFAULT", "POLICIES", "RISK", "OWNER"]
    rows = [
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
            *(() if live is None else _live_cells(live.get(agent.key))),
        ]
        for agent in known
    ]
    print_table([*columns, *(() if live is None else _LIVE_COLUMNS)], rows)


def _live_cells(live: Live | None) -> list[str | Text]:
    if live is None:
        return ["-", "-", "-", Text("not seen", style="yellow")]
    pods, webhooks, last, ready = live.pods, live.webhooks, live.last_decision, live.condition("Ready")
    is_ready = ready is not None and ready.status == "True"
    return [
        f"{pods.ready}/{pods.total}" if pods else "-",
        f"{webhooks.current}/{webhooks.connected}" if webhooks else "-",
        printable(f"{last.decision} {last.action} {last.time}") if last and last.decision else "-",
        Text("True" if is_ready else printable(ready.reason) if ready else "-", style="" if is_ready else "yellow"),
    ]


def _show(registry: Registry, agent: Agent, live: Mapping[str, Live] | None) -> None:
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
        ("budgets", ", ".join(_named(budget) for budget in agent.budgets)),
        ("default decision", decision_text(agent.default_decision)),
        ("declared facts", agent.declared_facts),
        ("data classes", "any" if agent.data_classes is None else ", ".join(agent.data_classes) or "none"),
        ("may delegate to", _delegates(agent)),
        ("delegation", agent.delegation),
        *([] if live is None else _live_facts(live.get(agent.key))),
    ]
    say(agent.key, style="bold")
    for label, value in facts:
        if value:
            say(Text(f"  {label:<18}") + (value if isinstance(value, Text) else Text(printable(value))))
    _show_rules(_rules(registry, agent))


def _live_facts(live: Live | None) -> list[tuple[str, str | Text]]:
    if live is None:
        return [("ready", Text("not seen by the operator", style="yellow"))]
    pods, webhooks, last, ready = live.pods, live.webhooks, live.last_decision, live.condition("Ready")
    counts = (
        {"held": pods.held, "going": pods.terminating, "without decision webhook": pods.without_webhook} if pods else {}
    )
    more = "".join(f", {count} {what}" for what, count in counts.items() if count)
    return [
        ("pods", f"{pods.ready} of {pods.total} ready{more}" if pods else ""),
        ("webhooks", f"{webhooks.connected} connected, {webhooks.current} up to date" if webhooks else ""),
        ("last decision", f"{last.decision} {last.action} {last.time} ({last.id})" if last and last.decision else ""),
        ("ready", f"{ready.status}, {ready.reason}: {ready.message}" if ready else ""),
    ]


def _show_rules(rules: Sequence[tuple[Policy, Rule]]) -> None:
    say()
    if not rules:
        say("no rule concerns this agent")
        return
    print_table(
        ["RULE", "POLICY", "PHASE", "DECISION", "ENFORCEMENT", "INHERITANCE", "WHICH ACTIONS"],
        [
            [
                rule.name,
                policy.name,
                rule.phase,
                decision_text(rule.decision),
                policy.enforcement,
                "-" if rule.decision == "Allow" else policy.inheritance,  # an Allow is never inherited
                printable(rule_in_words(rule)),
            ]
            for policy, rule in rules
        ],
    )


def _named(budget: str) -> str:
    """Name a budget by its kind, too: its name does not say whether it is a namespace's or the whole fleet's."""
    return budget.replace("/", " ", 1)


def _delegates(agent: Agent) -> str:
    may = agent.may_delegate_to
    if may is None:
        return "whomever the rules allow"
    return ", ".join([*(f"role {role}" for role in may.roles), *may.agents]) or "nobody"


def _rules(registry: Registry, agent: Agent) -> list[tuple[Policy, Rule]]:
    policies = [registry.policies[key] for key in agent.policies]
    return [(policy, rule) for policy in policies for rule in policy.rules if may_concern(agent, rule.match)]


def _data(agent: Agent, live: Mapping[str, Live] | None) -> dict[str, Any]:
    may = agent.may_delegate_to
    data = {
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
        "delegation": agent.delegation,
        "policies": [policy.partition("/")[2] for policy in agent.policies],
        "budgets": [_named(budget) for budget in agent.budgets],
        "riskTier": agent.risk_tier,
        "owner": agent.owner,
        "labels": agent.labels,
        "dataClasses": None if agent.data_classes is None else list(agent.data_classes),
        "mayDelegateTo": None if may is None else {"roles": list(may.roles), "agents": list(may.agents)},
    }
    return data if live is None else {**data, "live": msgspec.to_builtins(live.get(agent.key))}


def _rule_data(policy: Policy, rule: Rule) -> dict[str, Any]:
    return {
        "kind": policy.kind,
        "policy": policy.name,
        "enforcement": policy.enforcement,
        "inheritance": policy.inheritance,
        **msgspec.to_builtins(rule),
        "phase": rule.phase,
    }
