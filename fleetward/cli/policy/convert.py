"""Rules of a `safety.yaml` as AgentPolicy resources with the same verdicts."""

import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, TypeVar

from fleetward.cli.policy.safety import SafetyRule
from fleetward.cli.policy.topics import globs
from fleetward.resources import API_VERSION, GROUP, AgentPolicy

T = TypeVar("T")

MAX_LIST = 64
"""The longest list in a match."""
MAX_RULES = 256
"""The most rules of one policy."""
MAX_NAME = 63

SOURCE_ANNOTATION = f"{GROUP}/imported-from"
"""The file a policy was imported from."""
ID_ANNOTATION_PREFIX = f"imported-id.{GROUP}/"
"""With a rule's name: the id the rule had, where it could not be kept."""


def to_policies(rules: Sequence[SafetyRule], *, source: str, name: str, namespace: str | None) -> list[dict[str, Any]]:
    """Give the resources, as data; more than one where one policy cannot hold all the rules.

    All rules that match count, and the most restrictive decides: so a rule whose lists are too long for one match
    becomes several with the same decision.
    """
    taken: set[str] = set()
    written: list[tuple[dict[str, Any], str]] = [
        (rule_data, rule.id) for rule in rules for rule_data in _rules(rule, taken)
    ]
    policies = []
    for number, part in enumerate(_parts(written, MAX_RULES), start=1):
        annotations = {SOURCE_ANNOTATION: source} | {
            f"{ID_ANNOTATION_PREFIX}{data['name']}": original for data, original in part if data["name"] != original
        }
        metadata: dict[str, Any] = {"name": name if number == 1 else f"{name[: MAX_NAME - 5]}-{number}"}
        if namespace is not None:
            metadata["namespace"] = namespace
        policy = {
            "apiVersion": API_VERSION,
            "kind": "AgentPolicy",
            "metadata": metadata | {"annotations": annotations},
            "spec": {"rules": [data for data, _ in part]},
        }
        AgentPolicy.model_validate(policy)
        policies.append(policy)
    return policies


def _rules(rule: SafetyRule, taken: set[str]) -> Iterator[dict[str, Any]]:
    names = list(dict.fromkeys(glob for topic in rule.topics for glob in globs(topic)))
    for some_names, some_tags in product(
        list(_parts(names, MAX_LIST)) or [[]], list(_parts(rule.risk_tags, MAX_LIST)) or [()]
    ):
        match: dict[str, Any] = {}
        if some_names and "**" not in names:
            match["names"] = list(some_names)
        if some_tags:
            match["riskTags"] = list(some_tags)
        data: dict[str, Any] = {"name": _name(rule.id, taken), "match": match, "decision": rule.decision}
        if rule.decision == "Constrain":
            data["obligations"] = [
                {"type": "Clamp", "field": _argument(name), "maximum": maximum} for name, maximum in rule.constraints
            ]
        if rule.reason:
            data["message"] = rule.reason
        yield data


def _argument(name: str) -> str:
    return name if name.startswith("arguments.") else f"arguments.{name}"


def _name(original: str, taken: set[str]) -> str:
    """Give a rule name close to the id: lower case, letters, digits and `-`, not taken yet."""
    base = re.sub(r"[^a-z0-9]+", "-", original.lower()).strip("-")[:MAX_NAME].strip("-") or "rule"
    name, number = base, 1
    while name in taken:
        number += 1
        ending = f"-{number}"
        name = base[: MAX_NAME - len(ending)].rstrip("-") + ending
    taken.add(name)
    return name


def _parts(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
