"""Statuses: what is written, and that nothing in them can make the API server refuse the whole."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.statuses import FILLED, LONGEST

from fleetward.resources import KINDS
from fleetward.resources.manifest import parse_document, read_documents
from fleetward.resources.status import AgentStatus, AgentWebhooks, Condition, ModeInForce


def test_times_are_written_as_kubernetes_does() -> None:
    here = datetime(2026, 11, 21, 10, 30, 15, 987654, tzinfo=timezone(timedelta(hours=1)))
    assert ModeInForce(since=here).dump()["since"] == "2026-11-21T09:30:15Z"
    with pytest.raises(ValidationError, match="timezone"):
        ModeInForce(since=datetime(2026, 11, 21))  # noqa: DTZ001 - the mistake tried


def test_what_is_not_known_is_left_out() -> None:
    assert AgentStatus().dump() == {"conditions": [], "fleets": []}
    assert AgentWebhooks(connected=1).dump() == {"connected": 1, "current": 0, "registryVersion": ""}


@given(st.text(max_size=3000))
def test_texts_that_are_too_long_are_cut_and_others_kept(text: str) -> None:
    written = ModeInForce(reason=text).dump()["reason"]
    assert written == text if len(text) <= 1024 else (len(written) == 1024 and written.startswith(text[:1000]))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_written_is_read_back(kind: str) -> None:
    model = KINDS[kind].STATUS
    for statuses in (FILLED, LONGEST):
        assert model.model_validate_json(statuses[kind].model_dump_json(by_alias=True)) == statuses[kind]


def test_conditions_come_first() -> None:
    assert all(next(iter(status.dump())) == "conditions" for status in FILLED.values())


@pytest.mark.parametrize("reason", ["", "not ready", "1st", "-"])
def test_a_reason_is_a_word_for_programs(reason: str) -> None:
    with pytest.raises(ValidationError):
        Condition(type="Ready", status="True", last_transition_time=datetime.now(UTC), reason=reason, message="")


def test_a_status_in_a_file_is_no_part_of_the_resource() -> None:
    text = """\
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: a, namespace: b}
spec: {role: Worker}
"""
    (plain,) = read_documents("a.yaml", text)
    (exported,) = read_documents("a.yaml", text + "status: {mode: {operatingMode: Paused}}\n")
    assert parse_document(plain) == parse_document(exported)
