"""All of it together, as a platform team meets it: apply governs, a patch stops, and faults never allow."""

import json
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from support.chart import MANIFESTS, objects
from support.controlplane.fixtures import make_namespace
from support.controlplane.golang import REPOSITORY
from support.kstatus import kstatus
from support.rights import asked, granted
from support.spine import ALLOWS, WITHIN, Spine, agent, deployment, is_ready, resource, spine
from support.waiting import until

from fleetward.resources import KINDS
from fleetward.resources.names import CONTAINER, QUARANTINE_POLICY, QUARANTINED_LABEL, STOPPED_GATE

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("cluster")]

EXAMPLE = REPOSITORY / "examples" / "report-pipeline"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spine]:
    with spine(tmp_path_factory.mktemp("spine")) as running:
        yield running


@pytest.fixture
def ns(world: Spine) -> Iterator[str]:
    """A namespace with one agent, `reader`, that may read."""
    namespace = f"spine-{secrets.token_hex(4)}"
    make_namespace(world.plane, namespace)
    world.apply(agent("reader", namespace), resource("AgentPolicy", "reads", ALLOWS, namespace))
    yield namespace
    world.plane.kubectl("delete", "namespace", namespace, "--wait=false")


@pytest.fixture
def reader(world: Spine, ns: str) -> str:
    """The namespace, once the agent in it runs and reads."""
    world.apply(deployment("reader", ns))
    world.running(ns, "reader")
    world.until_said(ns, "reader", lambda said: said == "Allow", "Allow")
    return ns


@pytest.fixture
def above(world: Spine, ns: str) -> Iterator[str]:
    """A cluster budget of the agents in a namespace."""
    subjects = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": ns}}}
    world.apply(resource("ClusterAgentBudget", ns, {"subjects": subjects, "limits": {"records": 100}}))
    yield ns
    world.plane.kubectl("delete", "clusteragentbudget", ns, "--ignore-not-found")


FIRST, OTHER = "fleetward-operator-0", "fleetward-operator-1"
"""What two replicas are called; see `Installed.replica`."""


def in_words(status: dict[str, Any]) -> str:
    return json.dumps(status, indent=1)


def test_an_applied_agent_is_governed_and_its_status_tells_of_it(world: Spine, reader: str) -> None:
    pod = world.running(reader, "reader")
    (sidecar,) = [c for c in pod["spec"]["initContainers"] if c["name"] == CONTAINER]
    assert sidecar["restartPolicy"] == "Always"

    def told() -> bool:
        status = world.status("agent", "reader", reader)
        return (
            world.is_current("agent", "reader", reader)
            and (status["pods"]["total"], status["pods"]["ready"]) == (1, 1)
            and (status["webhooks"]["connected"], status["webhooks"]["current"]) == (1, 1)
            and status.get("lastDecision", {}).get("decision") == "Allow"
        )

    until(told, f"its status tells: {in_words(world.status('agent', 'reader', reader))}", WITHIN)
    columns = world.plane.kubectl("get", "agents", "-n", reader).splitlines()
    assert "Running" in columns[1]


def test_a_patch_pauses_and_resumes(world: Spine, reader: str) -> None:
    world.patch("agent", "reader", {"operatingMode": "Paused", "operatingReason": "ticket 4711"}, reader)
    world.until_said(reader, "reader", lambda said: said.startswith("Deny") and "ticket 4711" in said, "Deny, and why")
    until(lambda: world.is_current("agent", "reader", reader), "everywhere in force", WITHIN)
    mode = world.status("agent", "reader", reader)["mode"]
    assert (mode["operatingMode"], mode["reason"], mode["setBy"]) == ("Paused", "ticket 4711", "admin")
    events = world.plane.kubectl("get", "events.v1.events.k8s.io", "-n", reader, "-o", "jsonpath={.items[*].note}")
    assert "ticket 4711" in events
    assert world.running(reader, "reader"), "a paused agent's pods stay"
    world.patch("agent", "reader", {"operatingMode": "Running"}, reader)
    world.until_said(reader, "reader", lambda said: said == "Allow", "Allow again")


def test_a_stopped_agent_has_no_pods_and_its_replicas_are_not_touched(world: Spine, reader: str) -> None:
    before = world.get("deployment", "reader", reader)
    old = world.running(reader, "reader")["metadata"]["name"]
    world.patch("agent", "reader", {"operatingMode": "Stopped"}, reader)

    def held() -> bool:
        pods = world.pods(reader, "reader")
        gates = [[gate["name"] for gate in pod["spec"].get("schedulingGates") or ()] for pod in pods]
        return gates == [[STOPPED_GATE]] and pods[0]["metadata"]["name"] != old

    until(held, f"one new pod, held: {world.pods(reader, 'reader')}", WITHIN)
    after = world.get("deployment", "reader", reader)
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == before["metadata"]["generation"]
    until(lambda: world.status("agent", "reader", reader)["pods"].get("held") == 1, "its status says so", WITHIN)
    world.patch("agent", "reader", {"operatingMode": "Running"}, reader)
    world.running(reader, "reader")
    world.until_said(reader, "reader", lambda said: said == "Allow", "Allow again")


def test_a_quarantined_agent_s_pod_stays_and_is_cut_off(world: Spine, reader: str) -> None:
    """What enforces the NetworkPolicy is the network plugin, and there is none here: the webhook stays connected."""
    policy = f"/apis/networking.k8s.io/v1/namespaces/{reader}/networkpolicies/{QUARANTINE_POLICY}"
    pod = world.running(reader, "reader")
    world.patch("agent", "reader", {"operatingMode": "Quarantined", "operatingReason": "leaking"}, reader)
    world.until_said(reader, "reader", lambda said: said.startswith("Deny") and "leaking" in said, "Deny, and why")
    until(lambda: world.is_current("agent", "reader", reader), "cut off", WITHIN)
    (kept,) = world.pods(reader, "reader")
    assert (kept["metadata"]["uid"], is_ready(kept)) == (pod["metadata"]["uid"], True)
    assert kept["metadata"]["labels"] == {**pod["metadata"]["labels"], QUARANTINED_LABEL: "true"}
    cut = world.plane.request("GET", policy)["spec"]
    assert cut == {"podSelector": {"matchLabels": {QUARANTINED_LABEL: "true"}}, "policyTypes": ["Ingress", "Egress"]}
    (ready,) = world.status("agent", "reader", reader)["conditions"]
    assert ready["reason"] == "Quarantined"
    assert "their network is cut (1 of 1 pod labelled)" in ready["message"]

    world.plane.kubectl("scale", "deployment", "reader", "-n", reader, "--replicas=2")

    def new_is_held() -> bool:
        new = [p for p in world.pods(reader, "reader") if p["metadata"]["uid"] != pod["metadata"]["uid"]]
        return len(new) == 1 and new[0]["spec"].get("schedulingGates") == [{"name": STOPPED_GATE}]

    until(new_is_held, f"a new pod is held: {world.pods(reader, 'reader')}", WITHIN)
    until(
        lambda: (
            "(2 of 2 pods labelled), 1 is held" in world.status("agent", "reader", reader)["conditions"][0]["message"]
        ),
        "its status says so",
        WITHIN,
    )
    assert new_is_held(), "what admission holds, the operator does not release"

    world.patch("agent", "reader", {"operatingMode": "Running"}, reader)
    until(lambda: sum(is_ready(p) for p in world.pods(reader, "reader")) == 2, "both run", WITHIN)
    until(
        lambda: not any(QUARANTINED_LABEL in p["metadata"]["labels"] for p in world.pods(reader, "reader")),
        "no label is left",
        WITHIN,
    )
    world.until_said(reader, "reader", lambda said: said == "Allow", "Allow again")
    policies = policy.rpartition("/")[0]
    until(lambda: world.plane.request("GET", policies)["items"] == [], "the NetworkPolicy is gone", WITHIN)
    until(lambda: world.is_current("agent", "reader", reader), "in force", WITHIN)


def test_a_fleet_stops_what_belongs_to_it(world: Spine, reader: str) -> None:
    fleet = f"fleet-{reader}"
    members = {"agents": {"agentSelector": {"matchLabels": {"team": reader}}}}
    world.apply(resource("AgentFleet", fleet, members))
    try:
        world.patch("agentfleet", fleet, {"operatingMode": "Paused", "operatingReason": "all of them"})
        world.until_said(reader, "reader", lambda said: "all of them" in said, "Deny")
        until(
            lambda: world.status("agentfleet", fleet).get("agents", {}).get("paused") == 1, "the fleet says so", WITHIN
        )
    finally:
        world.plane.kubectl("delete", "agentfleet", fleet)
    world.until_said(reader, "reader", lambda said: said == "Allow", "Allow again, as the fleet is gone")


def test_without_the_operator_nothing_is_allowed_after_the_lease(world: Spine, reader: str) -> None:
    """Killed, it says good-bye to nobody."""
    world.fleetward.operator.kill()
    world.until_said(reader, "reader", lambda said: said.startswith("Deny") and "hub" in said, "Deny, and why")
    world.fleetward.operator.start().until_ready()
    world.until_said(reader, "reader", lambda said: said == "Allow", "Allow again")


def test_a_pause_while_the_operator_is_down_is_in_force_once_it_is_back(world: Spine, reader: str) -> None:
    world.fleetward.operator.kill()
    world.patch("agent", "reader", {"operatingMode": "Paused", "operatingReason": "meanwhile"}, reader)
    world.fleetward.operator.start().until_ready()
    world.until_said(reader, "reader", lambda said: "meanwhile" in said, "Deny, as it was paused meanwhile")
    since = [said for _, said in world.said(reader, "reader") if "meanwhile" in said]
    assert since
    said = [said for _, said in world.said(reader, "reader")]
    assert "Allow" not in said[said.index(since[0]) :]


def test_another_replica_takes_over_and_writes(world: Spine, reader: str) -> None:
    """Two operators at once: one leads, and when that is killed the other one does, warm."""
    other = world.replica("other").start().until_ready()
    try:
        until(lambda: holder(world) == FIRST, "the first leads", WITHIN)
        world.fleetward.operator.kill()
        until(lambda: holder(world) == OTHER, "the other one leads", WITHIN)
        world.patch("agent", "reader", {"operatingMode": "Paused", "operatingReason": "by the other"}, reader)
        until(
            lambda: (world.status("agent", "reader", reader).get("mode") or {}).get("reason") == "by the other",
            "the other one writes the status",
            WITHIN,
        )
        world.fleetward.operator.start().until_ready()
        world.until_said(reader, "reader", lambda said: "by the other" in said, "Deny")
        # Connected to a replica that does not lead: the leader hears of it from its peer.
        until(
            lambda: world.status("agent", "reader", reader)["webhooks"].get("connected") == 1,
            "the leader knows what is connected to the other replica",
            WITHIN,
        )
        assert holder(world) == OTHER
        (paused,) = [e for e in mode_events(world, reader) if "by the other" in e["note"]]
        assert paused["reportingInstance"] == OTHER
    finally:
        other.stop()
        world.fleetward.operator.start_if_down()
    until(lambda: holder(world) == FIRST, "the first leads again", WITHIN)


def holder(world: Spine) -> str:
    lease = world.plane.request(
        "GET", "/apis/coordination.k8s.io/v1/namespaces/fleetward-system/leases/fleetward-operator"
    )
    return str(lease["spec"].get("holderIdentity") or "")


def mode_events(world: Spine, namespace: str) -> list[dict[str, Any]]:
    found = world.plane.request("GET", f"/apis/events.k8s.io/v1/namespaces/{namespace}/events")["items"]
    return [event for event in found if event["regarding"]["kind"] == "Agent"]


def test_the_api_server_restarted(world: Spine, reader: str) -> None:
    world.plane.restart_apiserver()
    world.patch("agent", "reader", {"operatingMode": "Paused", "operatingReason": "after the restart"}, reader)
    world.until_said(reader, "reader", lambda said: "after the restart" in said, "Deny")


def test_with_admission_down_governed_pods_wait_and_others_run(world: Spine, ns: str) -> None:
    world.fleetward.admission.kill()
    try:
        world.apply(deployment("reader", ns), deployment("other", ns, "import time; time.sleep(1000)"))
        world.running(ns, "other")

        def refused() -> bool:
            sets = world.plane.request("GET", f"/apis/apps/v1/namespaces/{ns}/replicasets?labelSelector=app%3Dreader")
            conditions = [c for one in sets["items"] for c in one["status"].get("conditions") or ()]
            return any("Fleetward" in c.get("message", "") or "fleetward" in c.get("message", "") for c in conditions)

        until(refused, "the ReplicaSet says why there is no pod", WITHIN)
        assert world.pods(ns, "reader") == []
        # An emergency pause needs no admission.
        world.patch("agent", "reader", {"operatingMode": "Paused"}, ns)
    finally:
        world.fleetward.admission.start().until_ready()
    world.patch("agent", "reader", {"operatingMode": "Running"}, ns)
    world.running(ns, "reader")
    world.until_said(ns, "reader", lambda said: said == "Allow", "Allow")


def test_what_git_owns_is_never_touched(world: Spine) -> None:
    """Applied as kubectl, as Flux and as Argo CD do, and again: nothing is to be changed, whatever Fleetward did."""
    make_namespace(world.plane, "reports")
    files = [part for file in sorted(EXAMPLE.glob("*.yaml")) for part in ("-f", str(file))]
    ways = {
        "kubectl": ("--field-manager=kubectl-client-side-apply",),
        "Flux": ("--server-side", "--field-manager=kustomize-controller"),
        "Argo CD": ("--server-side", "--field-manager=argocd-controller"),
    }
    listed: list[dict[str, Any]] = []

    def current() -> bool:
        all_of_them = world.plane.kubectl("get", "-o", "json", "--show-managed-fields", *files)
        listed[:] = [one for one in json.loads(all_of_them)["items"] if one["kind"] in KINDS]
        return all(kstatus(one["metadata"]["generation"], one.get("status") or {}) == "Current" for one in listed)

    try:
        for way, how in ways.items():
            force = ("--force-conflicts",) if "--server-side" in how else ()
            world.plane.kubectl("apply", *how, *force, *files)
            until(current, f"all is Current, applied as {way}", WITHIN)
            generations = {one["metadata"]["uid"]: one["metadata"]["generation"] for one in listed}
            again = world.plane.kubectl("diff", *how, *force, *files, check=False)
            assert again == "", f"{way} would change: {again}"
            if "--server-side" in how:
                world.plane.kubectl("apply", *how, *files)  # with no conflict
            assert current()
            assert generations == {one["metadata"]["uid"]: one["metadata"]["generation"] for one in listed}
            ours = [
                field["fieldsV1"]
                for one in listed
                for field in one["metadata"]["managedFields"]
                if field["manager"] == "fleetward-operator" and field.get("subresource") != "status"
            ]
            assert ours == []
    finally:
        world.plane.kubectl("delete", "--ignore-not-found", "--wait=false", *files)


def test_a_missing_right_is_named(world: Spine, ns: str) -> None:
    role = world.plane.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/fleetward-operator")
    without = json.loads(json.dumps(role))
    for rule in without["rules"]:
        rule["resources"] = [one for one in rule["resources"] if one != "pods/eviction"] or ["nothing"]
    world.plane.request("PUT", "/apis/rbac.authorization.k8s.io/v1/clusterroles/fleetward-operator", without)
    try:
        world.apply(deployment("reader", ns))
        world.running(ns, "reader")
        world.patch("agent", "reader", {"operatingMode": "Stopped"}, ns)
        until(lambda: "create pods/eviction" in world.fleetward.operator.log, "the log names it", WITHIN)
        assert any(is_ready(pod) for pod in world.pods(ns, "reader"))
        until(
            lambda: "pods/eviction" in json.dumps(world.status("agent", "reader", ns).get("conditions")),
            "the status names it",
            WITHIN,
        )
        world.until_said(ns, "reader", lambda said: said.startswith("Deny"), "denied all the same")
    finally:
        now = world.plane.request("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles/fleetward-operator")
        role["metadata"]["resourceVersion"] = now["metadata"]["resourceVersion"]
        world.plane.request("PUT", "/apis/rbac.authorization.k8s.io/v1/clusterroles/fleetward-operator", role)
    until(lambda: not any(is_ready(pod) for pod in world.pods(ns, "reader")), "evicted with the right", WITHIN)


RARE = {
    ("delete", "secrets"): "a CA whose key does not fit its certificate",
    ("delete", "configmaps"): "trust in a namespace that is not governed any more, or was edited",
    ("delete", "validatingadmissionpolicybindings"): "the kind Agent is gone",
    ("update", "secrets"): "certificates that are to be renewed",
    ("patch", "events"): "an Event that happened again",
    ("update", "mutatingwebhookconfigurations"): "somebody edited it, or the CA was renewed",
    ("update", "validatingadmissionpolicies"): "somebody edited it, or there is another image",
    ("update", "validatingadmissionpolicybindings"): "somebody edited it",
    ("get", "pods"): "a pod that is newer than the view",
    ("create", "configmaps"): "asked together with the patch that makes it (server-side apply), and not logged",
    ("create", "networkpolicies"): "likewise",
    ("get", "agents"): "asked when the admission policy is made, whose parameters they are, and not logged",
    ("get", "hubstatus"): "no resource: peers are asked whether they may, by a SubjectAccessReview",
    ("list", "auditrecords"): "likewise",
}
"""What the roles allow and these tests do not call for, and when it is; `test_keeper` and `test_events` see to it."""


def test_budgets_are_in_force_and_say_so(world: Spine, ns: str, above: str) -> None:
    parent = {"kind": "ClusterAgentBudget", "name": above}
    world.apply(resource("AgentBudget", "day", {"limits": {"records": 10}, "parent": parent}, ns))
    for kind, name, place in (("agentbudget", "day", ns), ("clusteragentbudget", above, "")):
        until(lambda: world.is_current(kind, name, place), f"{kind} {name} is in force", WITHIN)  # noqa: B023 - at once
        status = world.status(kind, name, place)
        assert (status["agents"], status["used"]) == (1, "0%"), in_words(status)
    world.plane.kubectl("delete", "clusteragentbudget", above)

    def broken() -> bool:
        conditions = world.status("agentbudget", "day", ns)["conditions"]
        return [c["reason"] for c in conditions if c["type"] == "Stalled"] == ["BrokenNesting"]

    until(broken, "the budget says that what it is part of is gone", WITHIN)


@pytest.mark.parametrize("account", ["fleetward-operator", "fleetward-admission"])
def test_the_chart_s_rights_are_those_that_are_used(world: Spine, account: str) -> None:
    """After all of the above: nothing was refused for good, and nothing is allowed that is never asked for."""
    rights, used = granted(objects(MANIFESTS.read_text()), account), asked(world.fleetward.directory, account)
    # An API server that was just started refuses what it has not read the roles for yet.
    assert used.forbidden - used.allowed == set()
    assert used.allowed <= rights
    assert rights - used.allowed <= RARE.keys()
