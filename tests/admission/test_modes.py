"""Who set a mode: the annotation is what the webhook knows, never what the object claims."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.podpatch import patched

from fleetward.registry.convert import mode_of
from fleetward.resources import Agent
from fleetward.resources.base import SET_BY_ANNOTATION
from fleetward_webhook.admission.modes import review_mode, stamp
from fleetward_webhook.admission.review import Kind, MalformedError, Request


def agent(mode: str | None = None, said: str | None = None, **annotations: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": "worker", "namespace": "reports"}
    if said is not None:
        annotations[SET_BY_ANNOTATION] = said
    if annotations:
        metadata["annotations"] = annotations
    return {"metadata": metadata, "spec": {"role": "Worker"} | ({"operatingMode": mode} if mode else {})}


def said_after(new: dict[str, Any], old: dict[str, Any] | None = None, who: str = "bob") -> str | None:
    annotations = patched(new, stamp(new, old, who))["metadata"].get("annotations") or {}
    found = annotations.get(SET_BY_ANNOTATION)
    assert found is None or isinstance(found, str)
    return found


@pytest.mark.parametrize(
    ("new", "old", "after"),
    [
        (agent(), None, None),
        (agent("Running"), None, None),
        (agent("Running", "Running by alice"), None, None),
        (agent("Paused"), None, "Paused by bob"),
        (agent("Paused", "Paused by alice"), None, "Paused by bob"),
        (agent("Paused"), agent(), "Paused by bob"),
        (agent("Paused", "Paused by alice"), agent(), "Paused by bob"),
        (agent("Running", "Paused by alice"), agent("Paused", "Paused by alice"), "Running by bob"),
        (agent(), agent("Paused", "Paused by alice"), "Running by bob"),
        (agent("Paused", "Paused by carol"), agent("Paused", "Paused by alice"), "Paused by alice"),
        (agent("Paused"), agent("Paused", "Paused by alice"), "Paused by alice"),
        (agent("Paused", "Paused by carol"), agent("Paused"), None),
        (agent("Stopped", "Paused by alice"), agent("Stopped", "Paused by alice"), None),
        (agent("Running", "Running by carol"), agent("Running"), None),
    ],
)
def test_the_annotation_is_made_true(new: dict[str, Any], old: dict[str, Any] | None, after: str | None) -> None:
    assert said_after(new, old) == after


def test_other_annotations_stay() -> None:
    new = agent("Paused", note="kept")
    assert patched(new, stamp(new, None, "bob"))["metadata"]["annotations"] == {
        "note": "kept",
        SET_BY_ANNOTATION: "Paused by bob",
    }


def test_the_registry_believes_it() -> None:
    new = agent("Paused") | {"apiVersion": "fleetward.dev/v1alpha1", "kind": "Agent"}
    stored = Agent.model_validate(patched(new, stamp(new, None, "system:serviceaccount:a:b")))
    assert mode_of(stored).set_by == "system:serviceaccount:a:b"


modes = st.sampled_from(["Running", "Paused", "Stopped", "Quarantined", None])
saids = st.none() | st.builds("{} by {}".format, modes, st.sampled_from(["alice", "bob"])) | st.text(max_size=9)


@given(st.builds(agent, modes, saids), st.none() | st.builds(agent, modes, saids))
def test_nothing_claimed_is_ever_believed(new: dict[str, Any], old: dict[str, Any] | None) -> None:
    claimed = new["metadata"].get("annotations", {}).get(SET_BY_ANNOTATION)
    known = (old or {}).get("metadata", {}).get("annotations", {}).get(SET_BY_ANNOTATION)
    after = said_after(new, old, "zoe")
    assert after is None or after.endswith(" by zoe") or after == known
    assert after is None or after.startswith(f"{new['spec'].get('operatingMode', 'Running')} by ")
    assert after != claimed or claimed in {None, known}
    again = patched(new, stamp(new, old, "zoe"))
    assert stamp(again, old, "zoe") == []


def test_a_name_cannot_break_the_line() -> None:
    assert said_after(agent("Paused"), who="a\nStopped by b") == "Paused by a\\nStopped by b"
    assert said_after(agent("Paused"), who="") == "Paused by somebody unknown"


def test_a_pod_has_no_mode() -> None:
    request = Request(uid="1", kind=Kind("", "v1", "Pod"), operation="CREATE", object=msgspec.Raw(b"{}"))
    with pytest.raises(MalformedError, match="found Pod, allowed Agent or AgentFleet"):
        review_mode(request)
