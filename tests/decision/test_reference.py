"""The engine decides as the plain evaluator does that was written from the design's text."""

from typing import Any

from decision.reference import MEANING, Expected, Reference
from decision.strategies import EXPRESSIONS, MANY, decide, requests, worlds
from hypothesis import given
from hypothesis import strategies as st

from fleetward.decision.evaluation import Evaluation


def test_the_reference_knows_every_expression() -> None:
    assert set(MEANING) == set(EXPRESSIONS)


@given(st.data())
@MANY
def test_decides_as_the_reference_without_expressions(data: Any) -> None:
    _compare(data, ())


@given(st.data())
@MANY
def test_decides_as_the_reference_with_expressions(data: Any) -> None:
    _compare(data, EXPRESSIONS)


def _compare(data: Any, expressions: tuple[str, ...]) -> None:
    world = data.draw(worlds(expressions))
    engine, reference = world.engine, Reference(world)
    for request in data.draw(st.lists(requests(world), min_size=1, max_size=4)):
        assert _seen(decide(engine, request)) == reference.decide(request), request


def _seen(evaluation: Evaluation) -> Expected:
    judgement = evaluation.judgement
    return Expected(
        judgement.decision,
        frozenset((r.kind, r.policy, r.rule, r.decision, r.enforcement) for r in judgement.rules),
        tuple((o.type, o.field, o.maximum) for o in judgement.obligations),
        judgement.retry_after_seconds,
        frozenset(_rule(pot) for pot in judgement.throttles),
    )


def _rule(pot: str) -> tuple[str, str, str]:
    policy, _, rule = pot.partition("#")
    kind, _, name = policy.partition("/")
    return kind, name, rule
