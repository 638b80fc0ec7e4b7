"""What deciding costs, counted rather than timed: an agent pays only for the policies that concern it."""

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
from decision.build import agent, ask, engine_of, policy, resource

from fleetward.decision.cel.runtime import EvaluationError, Program, Runtime, load_runtime


class CountingProgram:
    def __init__(self, program: Program, counts: Counter[str]) -> None:
        self._program = program
        self._counts = counts

    @property
    def source(self) -> str:
        return self._program.source

    def evaluate(self, activation: object) -> bool | EvaluationError:
        self._counts["evaluated"] += 1
        return self._program.evaluate(activation)


class CountingRuntime:
    """The real runtime, with every call counted."""

    def __init__(self) -> None:
        self._runtime: Runtime = load_runtime()
        self.counts: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return self._runtime.name

    def compile(self, source: str) -> Program:
        self.counts["compiled"] += 1
        return CountingProgram(self._runtime.compile(source), self.counts)

    def activation(self, variables: Mapping[str, object]) -> object:
        self.counts["activations"] += 1
        return self._runtime.activation(variables)


def _asked(runtime: CountingRuntime, engine: Any, **action: Any) -> tuple[int, int]:
    """Ask, and give how many expressions were evaluated, over how many activations."""
    before = runtime.counts.copy()
    ask(engine, **action)
    return (
        runtime.counts["evaluated"] - before["evaluated"],
        runtime.counts["activations"] - before["activations"],
    )


CONDITIONAL = {"when": "action.name == 'x'", "decision": "Deny"}


@pytest.mark.parametrize("others", [0, 10, 1000])
def test_policies_that_do_not_concern_an_agent_cost_it_nothing(others: int) -> None:
    elsewhere = [policy(CONDITIONAL, name=f"p{n}", namespace="sales") for n in range(others)]
    of_other_agents = [policy(CONDITIONAL, name=f"q{n}", subjects={"agents": ["other"]}) for n in range(others)]
    of_planners = [
        resource(
            "ClusterAgentPolicy",
            f"c{n}",
            {"subjects": {"roles": ["Planner"]}, "rules": [{"name": "r", "match": {}, **CONDITIONAL}]},
        )
        for n in range(others)
    ]
    rules_for_others = [
        {**CONDITIONAL, "match": match}
        for match in ({"agents": ["other"]}, {"roles": ["Planner"]}, {"fleets": ["nowhere"]})
        for _ in range(min(others, 80))
    ]
    mine = policy(CONDITIONAL, {"decision": "Allow"}, *rules_for_others)
    runtime = CountingRuntime()
    engine = engine_of(agent(), *elsewhere, *of_other_agents, *of_planners, mine, runtime=runtime)
    assert len(engine.slice.items.policies) == 1
    assert len(engine.agents["reports/worker"].rules) == 2
    assert runtime.counts["compiled"] == 1
    assert _asked(runtime, engine) == (1, 1)


@pytest.mark.parametrize(
    ("match", "evaluated"),
    [
        ({}, 1),
        ({"names": ["crm.*"]}, 1),
        ({"names": ["mail.*"]}, 0),
        ({"kinds": ["Message"]}, 0),
        ({"riskTags": ["pii"]}, 0),
        ({"dataClasses": ["customer"]}, 0),
        ({"labels": ["web"]}, 0),
        ({"targets": ["crm"]}, 0),
        ({"reversibility": ["Irreversible"]}, 0),
    ],
)
def test_expressions_are_asked_only_of_rules_that_can_still_match(match: Any, evaluated: int) -> None:
    runtime = CountingRuntime()
    engine = engine_of(agent(), policy({**CONDITIONAL, "match": match}), runtime=runtime)
    assert _asked(runtime, engine) == (evaluated, evaluated)
    assert _asked(runtime, engine) == (evaluated, evaluated)


def test_a_rule_of_another_phase_or_excluded_is_not_asked() -> None:
    runtime = CountingRuntime()
    rules = ({**CONDITIONAL, "phase": "After"}, {**CONDITIONAL, "exclude": {"names": ["crm.**"]}})
    assert _asked(runtime, engine_of(agent(), policy(*rules), runtime=runtime)) == (0, 0)


def test_many_rules_share_one_activation() -> None:
    runtime = CountingRuntime()
    engine = engine_of(agent(), policy(*[CONDITIONAL] * 20), runtime=runtime)
    assert _asked(runtime, engine) == (20, 1)


def test_declared_facts_that_add_nothing_cost_nothing_more() -> None:
    runtime = CountingRuntime()
    engine = engine_of(agent(), policy({**CONDITIONAL}), runtime=runtime)
    assert _asked(runtime, engine) == (1, 1)
    # On what is trusted, on what is declared beside it, and once more for the advice.
    assert _asked(runtime, engine, riskTags=["t"]) == (3, 3)
    assert _asked(runtime, engine, estimate={"records": 1}) == (3, 3)


def test_without_expressions_a_question_asked_before_costs_no_matching() -> None:
    engine = engine_of(agent(), policy({"decision": "Allow"}))
    first, second = ask(engine, arguments={"n": 1}), ask(engine, arguments={"n": 2})
    assert first.judgement is second.judgement


def test_deciding_loads_nothing_that_a_sidecar_must_not_carry() -> None:
    """Pydantic and YAML would cost each sidecar tens of megabytes. (Protobuf is loaded by cel-expr-python itself.)"""
    heavy = {"pydantic", "yaml", "click", "rich", "sqlite3", "fleetward.resources", "fleetward.decision.cel.typed"}
    code = (
        "import sys; from fleetward.decision.engine import Engine; from fleetward.registry.slice import Slice;"
        "from fleetward.decision import request; Engine(Slice(version='1')); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert "fleetward.decision.engine" in loaded
    assert heavy.isdisjoint(loaded)
