"""Where the order of a `safety.yaml` would have decided otherwise than the most restrictive rule does."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from fleetward.cli.policy.safety import SafetyRule, first_match, most_restrictive
from fleetward.cli.policy.topics import TooManyStatesError, common_name, disjoint_at_a_glance, matches

MAX_ROUNDS = 16
"""The most earlier rules set aside one after the other in the search for an example."""


@dataclass(frozen=True)
class Example:
    """An action."""

    name: str
    risk_tags: tuple[str, ...]


@dataclass(frozen=True)
class Difference:
    """Two rules whose order would have mattered, and an action that shows it.

    `earlier` and `later` are places in the file, from 0. `by_order` decides the example by the order of the file,
    `by_severity` as the most restrictive of all the rules that match it.
    """

    earlier: int
    later: int
    example: Example
    by_order: SafetyRule
    by_severity: SafetyRule


def differences(rules: Sequence[SafetyRule]) -> Iterator[Difference]:
    """Give each pair where the earlier rule decides some action by its place, though the later one is stricter.

    Two rules with no action in common are no pair, and neither are two whose common actions an earlier rule takes
    away from both. Whether they have one is decided exactly; where telling an earlier rule's actions apart would
    take too long, the pair counts.
    """
    for later, rule in enumerate(rules):
        for earlier in range(later):
            if rules[earlier].severity < rule.severity and (example := _example(rules, earlier, later)):
                first = first_match(rules, example.name, example.risk_tags)
                strictest = most_restrictive(rules, example.name, example.risk_tags)
                if first is not None and strictest is not None:
                    yield Difference(earlier, later, example, first, strictest)


class _NotDecidedError(Exception):
    def __init__(self, example: Example) -> None:
        super().__init__()
        self.example = example


def _example(rules: Sequence[SafetyRule], earlier: int, later: int) -> Example | None:
    undecided = None
    for tags in _tag_sets(rules[:earlier], rules[earlier], rules[later]):
        for topics in product(rules[earlier].topics or ("*",), rules[later].topics or ("*",)):
            if disjoint_at_a_glance(*topics):
                continue
            try:
                if name := _not_taken(rules[:earlier], topics, tags):
                    return Example(name, tags)
            except _NotDecidedError as stopped:
                undecided = undecided or stopped.example
    return undecided


def _tag_sets(before: Sequence[SafetyRule], one: SafetyRule, other: SafetyRule) -> Iterable[tuple[str, ...]]:
    """Give the smallest sets of tags with one of each rule's; of those that look alike to the rules before, one."""
    pairs = product(one.risk_tags or ("",), other.risk_tags or ("",))
    sets = dict.fromkeys(tuple(sorted({*pair} - {""})) for pair in pairs)
    told_apart: dict[frozenset[int], tuple[str, ...]] = {}
    for tags in sorted(sets, key=len):
        seen_by = frozenset(i for i, rule in enumerate(before) if not set(tags).isdisjoint(rule.risk_tags))
        told_apart.setdefault(seen_by, tags)
    return told_apart.values()


def _not_taken(before: Sequence[SafetyRule], topics: tuple[str, ...], tags: tuple[str, ...]) -> str | None:
    """Find a name that all the topics match and none of the rules before does.

    Only rules that take an example away are looked at, one after the other, which keeps the search small.
    """
    name, avoided = common_name(topics), list[str]()
    for _ in range(MAX_ROUNDS):
        if name is None:
            return None
        taker = first_match(before, name, tags)
        if taker is None:
            return name
        avoided.append(next((topic for topic in taker.topics if matches(topic, name)), "*"))
        try:
            name = common_name(topics, avoided) or None
        except TooManyStatesError:
            break
    if name is None:
        return None
    raise _NotDecidedError(Example(name, tags))
