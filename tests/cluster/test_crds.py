"""The CRDs on a real API server: accepted whole, their status apart from the spec, upgraded under stored objects."""

import copy
import json
import re
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.controlplane.errors import KubectlError
from support.controlplane.plane import ControlPlane
from support.mistakes import BASES
from support.statuses import FILLED, LONGEST, WHEN

from fleetward.resources import GROUP, KINDS
from fleetward.resources.crd import definition
from fleetward.resources.status import AgentFleetStatus, Status, StatusModel

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

WITHIN = 30.0
"""Seconds that the API server may take to serve a CRD as it was last written."""


def holds(condition: Callable[[], bool]) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline, f"does not hold after {WITHIN:.0f} s"
        time.sleep(0.05)


class Stored:
    """An example of a kind as an object of its own."""

    def __init__(self, plane: ControlPlane, namespace: str, kind: str, group: str = GROUP) -> None:
        self.plane = plane
        self.document: dict[str, Any] = copy.deepcopy(BASES[kind])
        self.document["apiVersion"] = f"{group}/v1alpha1"
        self.document["metadata"]["name"] = name = f"t-{secrets.token_hex(4)}"
        self._which = [f"{KINDS[kind].PLURAL}.{group}", name, "-n", namespace]
        below = ""
        if KINDS[kind].SCOPE == "Namespaced":
            self.document["metadata"]["namespace"] = namespace
            below = f"namespaces/{namespace}/"
        self._all = f"/apis/{group}/v1alpha1/{below}{KINDS[kind].PLURAL}"
        self._one = f"{self._all}/{name}"

    def create(self) -> None:
        self.plane.request("POST", self._all, self.document)

    def apply(self) -> None:
        self.plane.kubectl("apply", "-f", "-", input=json.dumps(self.document))

    def patch(self, change: dict[str, Any], *options: str) -> None:
        given = ["--type=merge", "--patch-file=/dev/stdin", *options]
        self.plane.kubectl("patch", *self._which, *given, input=json.dumps(change))

    def patch_status(self, status: Status) -> None:
        self.patch({"status": status.dump()}, "--subresource=status")

    def read(self) -> dict[str, Any]:
        return dict(self.plane.request("GET", self._one))

    def show(self, *options: str) -> str:
        return self.plane.kubectl("get", *self._which, *options)

    def delete(self) -> None:
        self.plane.request("DELETE", self._one)


@pytest.fixture(params=KINDS)
def stored(request: pytest.FixtureRequest, plane: ControlPlane, namespace: str) -> Iterator[Stored]:
    """An example of each kind, applied."""
    made = Stored(plane, namespace, request.param)
    made.create()
    yield made
    made.delete()


def crd(plane: ControlPlane, kind: str, group: str = GROUP) -> dict[str, Any]:
    path = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{KINDS[kind].PLURAL}.{group}"
    return dict(plane.request("GET", path))


@pytest.mark.parametrize("kind", KINDS)
def test_is_established_structural_and_served_as_generated(plane: ControlPlane, kind: str) -> None:
    found = crd(plane, kind)
    conditions = {each["type"]: each["status"] for each in found["status"]["conditions"]}
    assert conditions.items() >= {"NamesAccepted": "True", "Established": "True"}.items()
    assert conditions.get("NonStructuralSchema", "False") == "False"
    (version,) = found["spec"]["versions"]
    assert version == definition(KINDS[kind])["spec"]["versions"][0], "the API server added or dropped something"


def test_a_status_is_no_new_generation_and_a_spec_is_no_status(stored: Stored) -> None:
    before = stored.read()
    status = FILLED[before["kind"]]
    stored.patch_status(status)
    after = stored.read()
    assert after["metadata"]["generation"] == before["metadata"]["generation"] == 1
    assert after["spec"] == before["spec"]

    stored.patch({"status": {"observedGeneration": 99}})
    assert stored.read()["status"] == status.dump(), "whoever writes the resource wrote its status"
    stored.patch({"spec": _another(before["spec"])}, "--subresource=status")
    assert stored.read()["spec"] == before["spec"], "whoever writes the status wrote the resource"

    stored.patch({"spec": _another(before["spec"])})
    changed = stored.read()
    assert changed["spec"] != before["spec"]
    assert changed["metadata"]["generation"] == 2
    assert changed["status"] == status.dump()


def _another(spec: dict[str, Any]) -> dict[str, Any]:
    """A change that each kind takes: one of its first fields, with another value."""
    changes: dict[str, Any] = {
        "role": "Planner",
        "defaultDecision": "RequireApproval",
        "entries": [{"names": ["other"]}],
        "enforcement": "Audit" if spec.get("enforcement") == "Enforce" else "Enforce",
        "records": ["Outcome"],
        "settleAfterSeconds": 61,
    }
    return {name: value for name, value in changes.items() if name in spec}


@pytest.mark.parametrize("statuses", [FILLED, LONGEST], ids=["filled", "longest"])
def test_what_the_models_write_is_kept_whole(stored: Stored, statuses: dict[str, Status]) -> None:
    """A field the schema does not know would be dropped without a word, and one that breaks a bound refused."""
    wanted = statuses[stored.document["kind"]].dump()
    stored.patch_status(statuses[stored.document["kind"]])
    assert stored.read()["status"] == wanted


def test_the_filled_statuses_have_every_field() -> None:
    def check(part: StatusModel) -> None:
        assert part.model_fields_set == type(part).model_fields.keys(), type(part).__name__
        for name in part.model_fields_set:
            value = getattr(part, name)
            for each in value if isinstance(value, list) else [value]:
                if isinstance(each, StatusModel):
                    check(each)

    assert FILLED.keys() == LONGEST.keys() == KINDS.keys()
    for kind, status in FILLED.items():
        assert type(status) is KINDS[kind].STATUS
        check(status)


def test_a_status_that_no_model_writes_is_refused(plane: ControlPlane, namespace: str) -> None:
    agent = Stored(plane, namespace, "Agent")
    agent.create()
    for wrong, said in (
        ({"mode": {"operatingMode": "Halted"}}, "Unsupported value"),
        ({"pods": {"total": -1}}, "greater than or equal to 0"),
        ({"conditions": [{"type": "Ready", "status": "True"}]}, "Required value"),
        ({"mode": {"since": "yesterday"}}, "date-time"),
    ):
        with pytest.raises(KubectlError, match=said):
            agent.patch({"status": wrong}, "--subresource=status")


def test_every_column_is_filled(stored: Stored) -> None:
    kind = stored.document["kind"]
    stored.patch_status(FILLED[kind])
    columns = KINDS[kind].PRINTER_COLUMNS
    for options, shown in (
        ((), [each for each in columns if not each.get("priority")]),
        (("-o", "wide"), list(columns)),
    ):
        header, row = (re.split(r"\s{2,}", line.strip()) for line in stored.show(*options).splitlines())
        assert header == ["NAME", *(each["name"].upper() for each in shown)]
        assert len(row) == len(header), "a column is empty"
        cells = dict(zip(header, row, strict=True))
        assert cells["READY"] == "True"
        assert cells["WHY"] == "in force"


def test_a_row_tells_who_paused_a_fleet_and_what_its_agents_do(plane: ControlPlane, namespace: str) -> None:
    fleet = Stored(plane, namespace, "AgentFleet")
    fleet.create()
    try:
        status = FILLED["AgentFleet"]
        assert isinstance(status, AgentFleetStatus)
        fleet.patch_status(status)
        header, row = (re.split(r"\s{2,}", line.strip()) for line in fleet.show("-o", "wide").splitlines())
        cells = dict(zip(header, row, strict=True))
        assert cells["MODE"] == "Paused", "the mode in force, not the one asked for"
        assert [cells[each] for each in ("AGENTS", "RUNNING", "PAUSED")] == ["10", "4", "3"]
        assert cells["MODE SET BY"] == "ada@example.com"
        assert fleet.read()["status"]["mode"]["since"] == WHEN.strftime("%Y-%m-%dT%H:%M:%SZ")
    finally:
        fleet.delete()


def older(kind: str, group: str) -> dict[str, Any]:
    """The kind's CRD as an earlier version might have had it: no status, no columns, no patterns, no validations."""
    crd = newer(kind, group)
    (version,) = crd["spec"]["versions"]
    del version["additionalPrinterColumns"], version["subresources"]
    schema = version["schema"]["openAPIV3Schema"]
    del schema["properties"]["status"]
    schema["properties"]["metadata"] = {"type": "object"}
    loosen(schema)
    return crd


def newer(kind: str, group: str) -> dict[str, Any]:
    """The kind's CRD as it is, under another group."""
    crd = copy.deepcopy(definition(KINDS[kind]))
    crd["metadata"]["name"] = f"{KINDS[kind].PLURAL}.{group}"
    crd["spec"]["group"] = group
    return crd


def loosen(schema: dict[str, Any]) -> None:
    for keyword in ("pattern", "x-kubernetes-validations"):
        schema.pop(keyword, None)
    for under in (*schema.get("properties", {}).values(), *([schema["items"]] if "items" in schema else [])):
        loosen(under)


@pytest.fixture
def old(plane: ControlPlane) -> Iterator[str]:
    """The older CRDs, served under a group of the test's own, so that no other test sees them."""
    group = f"upgrade-{secrets.token_hex(4)}.example.com"
    documents = [older(kind, group) for kind in KINDS]
    names = [f"crd/{each['metadata']['name']}" for each in documents]
    plane.kubectl("apply", "--server-side", "-f", "-", input=as_list(documents))
    try:
        plane.kubectl("wait", "--for=condition=Established", "--timeout=30s", *names)
        yield group
    finally:
        plane.kubectl("delete", "--wait=false", *names)


def as_list(documents: list[dict[str, Any]]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})


def upgrade(plane: ControlPlane, group: str) -> None:
    """Apply the CRDs of today over the older ones, and wait until the API server serves them."""
    plane.kubectl("apply", "--server-side", "-f", "-", input=as_list([newer(kind, group) for kind in KINDS]))
    wanted = {f"{model.PLURAL}/status" for model in KINDS.values()}
    path = f"/apis/{group}/v1alpha1"
    holds(lambda: wanted <= {each["name"] for each in plane.request("GET", path)["resources"]})


def test_objects_outlive_an_upgrade_of_their_crd(plane: ControlPlane, namespace: str, old: str) -> None:
    made = [Stored(plane, namespace, kind, old) for kind in KINDS]
    for each in made:
        each.apply()
    before = [each.read() for each in made]
    upgrade(plane, old)
    assert [each.read() for each in made] == before
    for each, was in zip(made, before, strict=True):
        each.apply()
        assert each.read()["metadata"]["generation"] == was["metadata"]["generation"], "applied again, it differs"
        status = FILLED[was["kind"]]
        each.patch_status(status)
        each.patch({"spec": _another(was["spec"])})
        after = each.read()
        assert after["spec"] == was["spec"] | _another(was["spec"])
        assert after["status"] == status.dump()
        assert "in force" in each.show()
    with pytest.raises(KubectlError, match="allowed: letters, digits"):
        made[0].patch({"spec": {"dataClasses": ["a b"]}})


def test_an_agent_that_is_no_longer_valid_can_still_be_paused(plane: ControlPlane, namespace: str, old: str) -> None:
    """A field that was taken by an older CRD stands in nobody's way as long as it is not changed."""
    agent = Stored(plane, namespace, "Agent", old)
    agent.document["spec"]["dataClasses"] = ["a b"]
    agent.document["spec"]["operatingMode"] = "Running"
    agent.create()
    upgrade(plane, old)
    agent.patch({"spec": {"operatingMode": "Paused"}})
    assert agent.read()["spec"]["operatingMode"] == "Paused"
    agent.patch_status(FILLED["Agent"])
    assert agent.read()["status"] == FILLED["Agent"].dump()
