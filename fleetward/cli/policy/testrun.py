"""Policy tests run: each case judged by the real engine and held against what it expects."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from fleetward.cli.policy.testfile import Case, Expectation
from fleetward.decision.action import RuleRef
from fleetward.decision.engine import Engine
from fleetward.decision.judgement import Judgement
from fleetward.decision.request import RequestError
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Items, Mode, Slice


@dataclass(frozen=True, order=True)
class RuleName:
    """A rule, told by its policy's kind and name."""

    kind: str
    policy: str
    rule: str


@dataclass(frozen=True)
class Result:
    """What came of one case; without failures it passed.

    `judgement` is of the request, `outcome` of the outcome; either is None where it could not be judged.
    """

    case: Case
    failures: tuple[str, ...]
    judgement: Judgement | None = None
    outcome: Judgement | None = None

    @property
    def passed(self) -> bool:
        """Whether everything was as expected."""
        return not self.failures


@dataclass
class Run:
    """All results, and which rules there are and were reached."""

    results: list[Result]
    rules: frozenset[RuleName]
    reached: frozenset[RuleName] = field(default=frozenset())

    @property
    def failed(self) -> list[Result]:
        """The results with failures."""
        return [result for result in self.results if not result.passed]

    @property
    def unreached(self) -> list[RuleName]:
        """The rules that counted in no case."""
        return sorted(self.rules - self.reached)


def run(cases: Iterable[Case], registry: Registry) -> Run:
    """Judge all cases. Every agent counts as Running: what is tested are the rules."""
    engine = Engine(_all_running(registry.cut(registry.agents)))
    results = [_judge(case, engine, f"test-{number}") for number, case in enumerate(cases, start=1)]
    rules = frozenset(
        RuleName(policy.kind, policy.name, rule.name) for policy in registry.policies.values() for rule in policy.rules
    )
    reached = [name for each in results for judged in (each.judgement, each.outcome) if judged for name in _met(judged)]
    return Run(results, rules, frozenset(reached))


def _met(judgement: Judgement) -> list[RuleName]:
    """Give the rules that counted, and those that would throttle beyond some limit."""
    limits = [(*pot.partition("#")[0].split("/", 1), pot.partition("#")[2]) for pot in judgement.throttles]
    refs = [(ref.kind, ref.policy, ref.rule) for ref in judgement.rules]
    return [RuleName(kind, policy, rule) for kind, policy, rule in (*refs, *limits)]


def _all_running(slice_: Slice) -> Slice:
    items = slice_.items
    agents = {key: msgspec.structs.replace(agent, mode=Mode()) for key, agent in items.agents.items()}
    return Slice(slice_.version, Items(agents, items.policies, items.catalogs, items.roles))


def _judge(case: Case, engine: Engine, decision_id: str) -> Result:
    try:
        evaluation = engine.decide(case.request, case.situation)
    except RequestError as error:
        return Result(case, (f"the request cannot be judged: {error}",))
    judgement = evaluation.judgement
    failures = _compare(case.expect, judgement)
    if case.outcome is None or case.expect_outcome is None:
        return Result(case, tuple(failures), judgement)
    if not evaluation.allowed:
        failures.append(f"the outcome was not judged: the request came to {evaluation.decision}, so nothing was done")
        return Result(case, tuple(failures), judgement)
    try:
        outcome = engine.review(evaluation.open(decision_id), case.outcome)
    except RequestError as error:
        return Result(case, (*failures, f"the outcome cannot be judged: {error}"), judgement)
    failures += [f"outcome: {failure}" for failure in _compare(case.expect_outcome, outcome)]
    return Result(case, tuple(failures), judgement, outcome)


def _compare(expect: Expectation, found: Judgement) -> list[str]:
    """Say in what the judgement differs from what is expected."""
    failures = []
    if expect.decision != found.decision:
        failures.append(f"expected decision {expect.decision}, found {found.decision}")
    failures += _compare_rules(expect, found)
    if expect.reason is not None and expect.reason not in found.reason:
        failures.append(f"expected a reason with {expect.reason!r}, found {found.reason!r}")
    if expect.cleanses is not None and sorted(expect.cleanses) != sorted(found.cleanses):
        failures.append(f"expected to cleanse {_listed(sorted(expect.cleanses))}, found {_listed(found.cleanses)}")
    if expect.obligations is not None:
        wanted = sorted(_words(o.type, o.field, o.maximum) for o in expect.obligations)
        actual = sorted(_words(o.type, o.field, o.maximum) for o in found.obligations)
        if wanted != actual:
            failures.append(f"expected obligations {_listed(wanted)}, found {_listed(actual)}")
    return failures


def _compare_rules(expect: Expectation, found: Judgement) -> list[str]:
    failures = []
    deciding = [r for r in found.rules if r.decision == found.decision and r.enforcement == "Enforce"]
    if expect.rule is not None and expect.rule not in {ref.rule for ref in deciding}:
        failures.append(f"expected rule {expect.rule} to decide, found {_listed([r.rule for r in deciding])}")
    right = [ref for ref in deciding if expect.rule in (None, ref.rule)]
    if expect.policy is not None and not any(_is_policy(expect.policy, ref) for ref in right):
        policies = sorted({ref.policy for ref in right or deciding})
        failures.append(f"expected policy {expect.policy} to decide, found {_listed(policies)}")
    right = [ref for ref in right if expect.policy is None or _is_policy(expect.policy, ref)]
    if expect.principal is not None and not any(_is_named(expect.principal, ref.principal) for ref in right):
        principals = sorted({ref.principal for ref in right or deciding})
        failures.append(f"expected a rule of {expect.principal} to decide, found {_listed(principals)}")
    if expect.rules is not None:
        wanted, actual = sorted(expect.rules), sorted(met.rule for met in _met(found))
        if wanted != actual:
            failures.append(f"expected the rules {_listed(wanted)} to count, found {_listed(actual)}")
    return failures


def _is_policy(name: str, ref: RuleRef) -> bool:
    return _is_named(name, ref.policy)


def _is_named(name: str, key: str) -> bool:
    """Say whether `name` (`name` or `namespace/name`) names what has the key."""
    return name in (key, key.rpartition("/")[2])


def _words(kind: str, at: str, maximum: int | None) -> str:
    return f"{kind} {at}" + ("" if maximum is None else f" to at most {maximum}")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"
