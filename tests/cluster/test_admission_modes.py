"""Who set a mode, as the API server knows it."""

import json
from collections.abc import Iterator

import pytest
from support.admission import apply
from support.controlplane.errors import KubectlError
from support.governed import Governed, agent, fleet, governed

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

__all__ = ["governed"]

SET_BY = "fleetward.dev/operating-mode-set-by"


def as_user(name: str) -> list[str]:
    return ["--as", name, "--as-group", "system:masters"]


def set_by(governed: Governed, *of: str) -> str | None:
    found = json.loads(governed.plane.kubectl("get", *of, "-o", "json"))["metadata"].get("annotations", {}).get(SET_BY)
    assert found is None or isinstance(found, str)
    return found


def patch(governed: Governed, who: str, *of: str, mode: str | None = None, said: str | None = None) -> None:
    body = {"spec": {"operatingMode": mode}} if mode else {}
    if said is not None:
        body["metadata"] = {"annotations": {SET_BY: said}}  # type: ignore[dict-item] # JSON
    governed.plane.kubectl("patch", *of, "--type=merge", "-p", json.dumps(body), *as_user(who))


def test_whoever_changes_a_mode_is_noted(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    of = ("agent", "worker", "-n", namespace)
    assert set_by(governed, *of) is None
    patch(governed, "alice", *of, mode="Paused")
    assert set_by(governed, *of) == "Paused by alice"
    patch(governed, "bob", *of, mode="Stopped", said="Stopped by alice")  # a forged name
    assert set_by(governed, *of) == "Stopped by bob"
    patch(governed, "bob", *of, said="Stopped by carol")
    assert set_by(governed, *of) == "Stopped by bob"
    governed.plane.kubectl("annotate", *of, f"{SET_BY}-", *as_user("bob"))
    assert set_by(governed, *of) == "Stopped by bob"
    governed.plane.kubectl("label", *of, "team=reports", *as_user("dave"))
    assert set_by(governed, *of) == "Stopped by bob"
    patch(governed, "erin", *of, mode="Running")
    assert set_by(governed, *of) == "Running by erin"


def test_a_new_agent_cannot_claim_a_name(governed: Governed, namespace: str) -> None:
    for name, mode, after in (("one", "Running", None), ("two", "Paused", "Paused by alice")):
        body = agent(namespace, name, operatingMode=mode)
        body["metadata"]["annotations"] = {SET_BY: f"{mode} by bob"}
        governed.plane.kubectl("create", "-f", "-", *as_user("alice"), input=json.dumps(body))
        assert set_by(governed, "agent", name, "-n", namespace) == after


def test_a_service_account_is_noted_by_its_full_name(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    of = ("agent", "worker", "-n", namespace)
    patch(governed, f"system:serviceaccount:{namespace}:default", *of, mode="Paused")
    assert set_by(governed, *of) == f"Paused by system:serviceaccount:{namespace}:default"


@pytest.fixture
def a_fleet(governed: Governed, namespace: str) -> Iterator[str]:
    apply(governed.plane, fleet(namespace, namespace, "Running"))
    yield namespace
    governed.plane.kubectl("delete", "agentfleet", namespace)


def test_a_fleet_is_noted_too(governed: Governed, a_fleet: str) -> None:
    patch(governed, "alice", "agentfleet", a_fleet, mode="Paused")
    assert set_by(governed, "agentfleet", a_fleet) == "Paused by alice"


def test_applying_the_same_from_git_changes_nothing(governed: Governed, namespace: str) -> None:
    body = agent(namespace, operatingMode="Paused")
    of = ("agent", "worker", "-n", namespace)
    text = json.dumps(body)
    server_side = ("apply", "--server-side", "--field-manager=kustomize-controller", "-f", "-")
    governed.plane.kubectl(*server_side, *as_user("flux"), input=text)
    before = json.loads(governed.plane.kubectl("get", *of, "-o", "json"))["metadata"]
    governed.plane.kubectl(*server_side, *as_user("other"), input=text)
    after = json.loads(governed.plane.kubectl("get", *of, "-o", "json"))["metadata"]
    assert after["annotations"] == before["annotations"] == {SET_BY: "Paused by flux"}
    assert after["resourceVersion"] == before["resourceVersion"]


def test_a_mode_no_schema_allows_is_refused(governed: Governed, namespace: str) -> None:
    apply(governed.plane, agent(namespace))
    with pytest.raises(KubectlError, match='Unsupported value: "Dead"'):
        patch(governed, "alice", "agent", "worker", "-n", namespace, mode="Dead")
