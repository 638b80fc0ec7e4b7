"""Rules in words: what a rule matches, and how far an action is from being matched."""

from collections.abc import Iterator, Sequence

import msgspec

from fleetward.decision.action import Facts
from fleetward.decision.glob import glob_index
from fleetward.decision.rules import fits_path, is_agent
from fleetward.decision.throttles import limit_in_words
from fleetward.registry.slice import Agent, Match, Obligation, Rule


def rule_in_words(rule: Rule) -> str:
    """Say what a rule matches, such as `Message named **.send.*; not targets status.internal; when ...`."""
    parts = [match_in_words(rule.match) or "every action"]
    if rule.exclude is not None:
        parts.append(f"not {match_in_words(rule.exclude)}")
    if rule.when is not None:
        parts.append(f"when {' '.join(rule.when.split())}")
    if rule.throttle is not None:
        parts.append(f"beyond {limit_in_words(rule.throttle)}")
    if rule.cleanses:
        parts.append(f"cleanses {', '.join(rule.cleanses)}")
    return "; ".join(parts)


def match_in_words(match: Match) -> str:
    """Say what a match asks for; empty where it asks for nothing."""
    words = [f"{name} {_any(values)}" for name, values in _facts(match)]
    if match.names is not None:
        words.insert(0, f"named {_any(match.names)}")
    if match.kinds is not None:
        words.insert(0, _any(match.kinds))
    words += [f"{name} {_any(values)}" for name, values in _who(match)]
    if (depth := _depth(match)) is not None:
        words.append(depth)
    return ", ".join(words)


def obligation_in_words(obligation: Obligation) -> str:
    """Say what a client must do."""
    if obligation.type == "Clamp":
        return f"clamp {obligation.field} to at most {obligation.maximum}"
    return f"redact {obligation.field}"


def _facts(match: Match) -> Iterator[tuple[str, Sequence[str]]]:
    pairs: list[tuple[str, Sequence[str] | None]] = [
        ("risk tags", match.risk_tags),
        ("data classes", match.data_classes),
        ("targets", match.targets),
        ("labels", match.labels),
        ("reversibility", match.reversibility),
    ]
    yield from ((name, values) for name, values in pairs if values is not None)


def _who(match: Match) -> Iterator[tuple[str, Sequence[str]]]:
    pairs: list[tuple[str, Sequence[str] | None]] = [
        ("agents", match.agents),
        ("roles", match.roles),
        ("fleets", match.fleets),
        ("handed down by", match.path),
    ]
    yield from ((name, values) for name, values in pairs if values is not None)


def _depth(match: Match) -> str | None:
    """Say how often the work must have been handed on, where a match says it."""
    least, most = match.min_depth, match.max_depth
    if least is None and most is None:
        return None
    if most is None:
        return f"handed on at least {_times(least or 0)}"
    if least is None or least == most:
        return f"handed on {'at most ' if least is None else ''}{_times(most)}"
    return f"handed on {least} to {_times(most)}"


def _times(count: int) -> str:
    return f"{count} time{'' if count == 1 else 's'}"


def _any(values: Sequence[str]) -> str:
    return " or ".join(values)


def is_about(rule: Rule, kind: str, name: str) -> bool:
    """Say whether a rule is about actions of this name; one that names none, about actions of this kind."""
    if rule.match.names is None:
        return rule.match.kinds is None or kind in rule.match.kinds
    return bool(glob_index(rule.match.names).find(name))


def obstacles(rule: Rule, kind: str, facts: Facts, agent: Agent, path: tuple[str, ...] = ()) -> list[str]:
    """Say what keeps a rule that is about the action's name from matching the action of `agent`.

    `path` says who handed the work down to it.
    """
    match, found = rule.match, []
    if match.kinds is not None and kind not in match.kinds:
        found.append(f"is about {_any(match.kinds)}, found {kind}")
    trusted: dict[str, Sequence[str]] = {
        "risk tags": facts.risk_tags,
        "data classes": facts.data_classes,
        "targets": [facts.target] if facts.target else [],
        "labels": facts.labels,
        "reversibility": [facts.reversibility] if facts.reversibility else [],
    }
    for name, wanted in _facts(match):
        if set(wanted).isdisjoint(trusted[name]):
            found.append(f"asks for {name} {_any(wanted)}, trusted are {', '.join(trusted[name]) or 'none'}")
    if match.agents is not None and not is_agent(agent, match.agents):
        found.append(f"is for the agents {_any(match.agents)}")
    if match.roles is not None and agent.role not in match.roles:
        found.append(f"is for the role {_any(match.roles)}, found {agent.role}")
    if match.fleets is not None and set(match.fleets).isdisjoint(agent.fleets):
        found.append(f"is for the fleets {_any(match.fleets)}, found {', '.join(agent.fleets) or 'none'}")
    found += _obstacles_above(match, path)
    if not found and rule.exclude is not None:
        found.append(f"perhaps leaves it out: not {match_in_words(rule.exclude)}")
    if not found and rule.when is not None:
        found.append(f"asks that {' '.join(rule.when.split())}")
    return found


def _obstacles_above(match: Match, path: tuple[str, ...]) -> Iterator[str]:
    """Say what keeps a match from work that came down along `path`."""
    who = ", ".join(path) or "nobody"
    if match.path is not None and not fits_path(msgspec.structs.replace(match, min_depth=None, max_depth=None), path):
        yield f"is for work handed down by {_any(match.path)}, found {who}"
    if not fits_path(msgspec.structs.replace(match, path=None), path):
        yield f"is for work {_depth(match)}, found {_times(len(path))}"
