"""Label selectors select as Kubernetes' do."""

from typing import Any

import pytest
from decision import reference
from decision.strategies import LABELS, SOME, selectors
from hypothesis import given
from hypothesis import strategies as st

from fleetward.registry.selector import selects
from fleetward.resources.base import LabelSelector


def _one(key: str, operator: str, *values: str) -> dict[str, Any]:
    return {"matchExpressions": [{"key": key, "operator": operator, **({"values": [*values]} if values else {})}]}


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ({}, {}, True),
        ({}, {"a": "1"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "1", "b": "2"}, True),
        ({"matchLabels": {"a": "1"}}, {"a": "2"}, False),
        ({"matchLabels": {"a": "1"}}, {}, False),
        ({"matchLabels": {"a": ""}}, {}, False),
        ({"matchLabels": {"a": ""}}, {"a": ""}, True),
        ({"matchLabels": {"a": "1", "b": "2"}}, {"a": "1"}, False),
        (_one("a", "In", "1", "2"), {"a": "2"}, True),
        (_one("a", "In", "1"), {"a": "2"}, False),
        (_one("a", "In", "1"), {}, False),
        (_one("a", "In", ""), {}, False),
        (_one("a", "NotIn", "1"), {"a": "2"}, True),
        (_one("a", "NotIn", "1"), {"a": "1"}, False),
        (_one("a", "NotIn", "1"), {}, True),
        (_one("a", "NotIn", ""), {}, True),
        (_one("a", "Exists"), {"a": ""}, True),
        (_one("a", "Exists"), {}, False),
        (_one("a", "DoesNotExist"), {"b": "1"}, True),
        (_one("a", "DoesNotExist"), {"a": ""}, False),
        ({**_one("a", "Exists"), "matchLabels": {"b": "1"}}, {"a": "1"}, False),
        ({**_one("a", "Exists"), "matchLabels": {"b": "1"}}, {"a": "1", "b": "1"}, True),
    ],
)
def test_what_is_selected(selector: Any, labels: dict[str, str], selected: bool) -> None:  # noqa: FBT001
    assert selects(LabelSelector.model_validate(selector), labels) == selected


@given(selectors(), st.sampled_from(LABELS))
@SOME
def test_selects_as_the_reference(selector: Any, labels: dict[str, str]) -> None:
    assert selects(LabelSelector.model_validate(selector), labels) == reference.selects(selector, labels)
