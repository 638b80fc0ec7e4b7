"""The engine alone, in this process."""

import json
from collections.abc import Callable
from itertools import cycle

from bench.stats import Samples, interleaved
from bench.world import AGENT, CONDITIONAL_REQUEST, REQUEST, as_resources, governed, other_rules
from fleetward.decision.engine import Engine
from fleetward.decision.request import parse_request
from fleetward.registry.registry import Registry

POLICIES = (10, 100, 1_000, 10_000)


def measure(rounds: int) -> dict[str, Samples]:
    """Decide at 1,000 rules: settled by facts, with an expression, and for names never seen before."""
    engine = _engine(1_000)
    plain = parse_request(json.dumps(REQUEST).encode())
    conditional = parse_request(json.dumps(CONDITIONAL_REQUEST).encode())
    fresh = cycle(
        [
            parse_request(
                json.dumps({**REQUEST, "action": {"kind": "ToolCall", "name": f"crm.customers.n{i}"}}).encode()
            )
            for i in range(20_000)  # more than an engine keeps plans for, so each is worked out anew
        ]
    )
    for request, decision in ((plain, "Allow"), (conditional, "Allow"), (next(fresh), "Allow")):
        assert engine.decide(request).decision == decision
    usual = interleaved(
        {
            "engine, 1,000 rules": lambda: engine.decide(plain),
            "engine, 1,000 rules, CEL clause": lambda: engine.decide(conditional),
        },
        rounds,
    )
    # Apart from the others: working out a plan leaves no cache warm for whoever comes next.
    return usual | interleaved({"engine, 1,000 rules, name never seen": lambda: engine.decide(next(fresh))}, rounds)


def measure_growth(rounds: int) -> dict[str, Samples]:
    """Decide while ever more policies exist, of which the same few concern the agent."""
    calls: dict[str, Callable[[], object]] = {}
    for count in POLICIES:
        elsewhere = other_rules(count, per_policy=1, namespace="elsewhere")
        registry = Registry.build(as_resources([*governed(), *elsewhere]))
        calls[f"{count:,} policies"] = _decider(Engine(registry.cut([AGENT])))
    return interleaved(calls, rounds)


def _decider(engine: Engine) -> Callable[[], object]:
    request = parse_request(json.dumps(CONDITIONAL_REQUEST).encode())
    return lambda: engine.decide(request)


def _engine(rules: int) -> Engine:
    registry = Registry.build(as_resources([*governed(), *other_rules(rules)]))
    return Engine(registry.cut([AGENT]))
