"""The command line against a real API server, through the real kubectl."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.controlplane.build import program
from support.controlplane.golang import REPOSITORY
from support.controlplane.plane import ControlPlane

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

BIN = Path(sys.executable).parent
Cli = Callable[..., subprocess.CompletedProcess[str]]

POLICY = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata: {{name: broken, namespace: {namespace}}}
spec:
  rules:
  - {{name: odd, match: {{names: [crm.read]}}, when: action.nmae == 'x', decision: Allow}}
"""


@pytest.fixture
def env(plane: ControlPlane) -> dict[str, str]:
    """The environment of somebody whose kubectl is the control plane's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FLEETWARD_", "KUBE"))}
    home = {"KUBECONFIG": str(plane.admin_kubeconfig), "KUBECACHEDIR": str(plane.directory / "kubectl")}
    return {**kept, **home, "FLEETWARD_KUBECTL": str(program("kubectl"))}


@pytest.fixture
def cli(env: dict[str, str], tmp_path: Path) -> Cli:
    """The installed command, as kubectl calls it."""

    def call(*args: str, stdin: str = "", more: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [str(BIN / "kubectl-fleetward"), *args]
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            cwd=tmp_path,
            env={**env, **(more or {})},
        )

    return call


@pytest.fixture
def pipeline(plane: ControlPlane, namespace: str) -> Iterator[str]:
    """The example's folder, applied; its agents live in the test's own namespace. Gives that."""
    files = sorted((REPOSITORY / "examples" / "report-pipeline").glob("[!0]*.yaml"))  # not its namespace
    text = "\n---\n".join(file.read_text() for file in files)
    text = text.replace("namespace: reports", f"namespace: {namespace}").replace("reports/", f"{namespace}/")
    plane.kubectl("apply", "-f", "-", input=text)
    yield namespace
    plane.kubectl("delete", "--wait=false", "--ignore-not-found", "-f", "-", input=text)


def get(plane: ControlPlane, kind: str, name: str, namespace: str = "") -> dict[str, Any]:
    where = ["-n", namespace] if namespace else []
    found: dict[str, Any] = json.loads(plane.kubectl("get", kind, name, *where, "-o", "json"))
    return found


def write_status(plane: ControlPlane, kind: str, name: str, status: dict[str, Any], namespace: str = "") -> None:
    where = ["-n", namespace] if namespace else []
    patch = json.dumps({"status": status})
    plane.kubectl("patch", kind, name, *where, "--subresource=status", "--type=merge", "-p", patch)


def agent_status(plane: ControlPlane, namespace: str, name: str, mode: str, **parts: Any) -> None:
    """Write what an operator would that has seen the agent as it is."""
    generation = get(plane, "agent", name, namespace)["metadata"]["generation"]
    condition = {
        "type": "Ready",
        "status": "True",
        "reason": "Governed",
        "message": "it is governed",
        "lastTransitionTime": "2026-03-01T10:00:00Z",
    }
    status = {
        "observedGeneration": generation,
        "conditions": [condition],
        "mode": {"operatingMode": mode, "source": f"Agent {namespace}/{name}" if mode != "Running" else ""},
        **parts,
    }
    write_status(plane, "agent", name, status, namespace)


# Reading


def test_agents_as_from_the_folder(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    done = cli("agents", "-n", pipeline)
    assert (done.returncode, done.stderr) == (0, "")
    head, *rows = (line.split() for line in done.stdout.splitlines())
    assert head[-5:] == ["PODS", "WEBHOOKS", "LAST", "DECISION", "READY"]
    assert [row[0] for row in rows] == [
        f"{pipeline}/{name}" for name in ("data-worker", "planner-desk", "report-planner", "report-writer")
    ]
    assert rows[0][1:4] == ["Worker", "Running", "-"]
    assert rows[0][5] == "reporting"
    assert rows[0][-2:] == ["not", "seen"]


def test_agents_show_their_live_state(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    agent_status(
        plane,
        pipeline,
        "data-worker",
        "Running",
        pods={"total": 3, "ready": 2, "withoutWebhook": 1},
        webhooks={"connected": 2, "current": 1},
        lastDecision={"id": "w-7", "time": "2026-03-01T10:00:00Z", "decision": "Deny", "action": "crm.drop"},
    )
    row = cli("agents", "-n", pipeline).stdout.splitlines()[1]
    assert row.endswith("2/3   1/2       Deny crm.drop 2026-03-01T10:00:00Z  True")
    shown = cli("agents", "data-worker", "-n", pipeline).stdout
    assert "pods              2 of 3 ready, 1 without decision webhook" in shown
    assert "webhooks          2 connected, 1 up to date" in shown
    assert "last decision     Deny crm.drop 2026-03-01T10:00:00Z (w-7)" in shown
    assert "RULE" in shown
    data = json.loads(cli("agents", f"{pipeline}/data-worker", "-o", "json").stdout)
    assert data["live"]["webhooks"] == {"connected": 2, "current": 1}


def test_decide_by_the_cluster(cli: Cli, pipeline: str) -> None:
    action = {"kind": "ToolCall", "name": "crm.customers.read"}
    request = json.dumps({"agent": f"{pipeline}/data-worker", "action": action})
    allowed = cli("decide", "-n", pipeline, "-f", "-", "-o", "json", stdin=request)
    assert (allowed.returncode, json.loads(allowed.stdout)["decision"]) == (0, "Allow")
    other = request.replace("data-worker", "report-writer")
    asked = cli("decide", "-n", pipeline, "-f", "-", stdin=other)
    assert asked.returncode == 10
    assert "customer-data-needs-approval" in asked.stdout


def test_what_does_not_compile_is_a_finding(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    plane.kubectl("apply", "-f", "-", input=POLICY.format(namespace=pipeline))
    listed = cli("agents", "-n", pipeline)
    assert listed.returncode == 1
    assert f"AgentPolicy {pipeline}/broken: spec.rules[0].when:" in listed.stderr
    assert "data-worker" in listed.stdout
    request = json.dumps({"agent": f"{pipeline}/data-worker", "action": {"kind": "ToolCall", "name": "a"}})
    refused = cli("decide", "-n", pipeline, "-f", "-", stdin=request)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "nmae" in refused.stderr
    linted = cli("policy", "lint", "-n", pipeline)
    assert linted.returncode == 1
    assert "in the cluster, 1 finding" in linted.stderr


def test_an_object_of_another_crd_version_is_a_finding(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    """The CRD is loosened, and an agent gets a field and a role that this version does not know."""
    crd = "agents.fleetward.dev"
    schema = "/spec/versions/0/schema/openAPIV3Schema/properties/spec"
    original = get(plane, "crd", crd)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    loose = [
        {"op": "add", "path": f"{schema}/x-kubernetes-preserve-unknown-fields", "value": True},
        {"op": "remove", "path": f"{schema}/properties/role/enum"},
    ]
    plane.kubectl("patch", "crd", crd, "--type=json", "-p", json.dumps(loose))
    try:
        strange = json.dumps({"spec": {"role": "Overseer", "colour": "red"}})

        def patched() -> bool:
            plane.kubectl("patch", "agent", "report-writer", "-n", pipeline, "--type=merge", "-p", strange, check=False)
            return "colour" in get(plane, "agent", "report-writer", pipeline)["spec"]

        until_true(patched, "the loosened CRD is in force")
        done = cli("agents", "-n", pipeline)
        assert done.returncode == 1
        assert f"Agent {pipeline}/report-writer: spec.role:" in done.stderr
        assert "spec.colour" in done.stderr
        assert "data-worker" in done.stdout
    finally:
        plane.kubectl("delete", "agent", "report-writer", "-n", pipeline)
        back = [{"op": "replace", "path": schema, "value": original}]
        plane.kubectl("patch", "crd", crd, "--type=json", "-p", json.dumps(back))


def until_true(condition: Callable[[], bool], what: str) -> None:
    waiting = threading.Event()
    for _ in range(200):
        if condition():
            return
        waiting.wait(0.1)
    pytest.fail(f"still not: {what}")


# Modes


def test_pause_and_resume(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    done = cli("pause", "data-worker", "-n", pipeline, "--reason", "ticket 7", "--wait", "0", "--by", "ann")
    assert (done.returncode, done.stdout) == (0, f"Agent {pipeline}/data-worker is now Paused, it was Running\n")
    assert done.stderr == "--by is for a folder; in a cluster the API server knows who does it\n"
    body = json.loads(
        plane.kubectl("get", "agent", "data-worker", "-n", pipeline, "-o", "json", "--show-managed-fields")
    )
    assert (body["spec"]["operatingMode"], body["spec"]["operatingReason"]) == ("Paused", "ticket 7")
    managers = {field["manager"] for field in body["metadata"]["managedFields"] if "operatingReason" in str(field)}
    assert managers == {"fleetward"}
    again = cli("pause", f"{pipeline}/data-worker", "--wait", "0")
    assert "is Paused already; nothing changed" in again.stdout
    assert get(plane, "agent", "data-worker", pipeline)["spec"]["operatingReason"] == "ticket 7"
    resumed = cli("resume", "data-worker", "-n", pipeline, "--wait", "0", "-o", "json")
    data = json.loads(resumed.stdout)
    assert (data["changed"], data["before"], data["operatingMode"]) == (True, "Paused", "Running")
    assert data["agents"][0]["mode"]["operatingMode"] == "Running"
    spec = get(plane, "agent", "data-worker", pipeline)["spec"]
    assert (spec["operatingMode"], spec.get("operatingReason", "")) == ("Running", "")


def test_a_stronger_mode_stays(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    stopped = cli("stop", "data-worker", "-n", pipeline, "--wait", "0")
    assert "is now Stopped, it was Running" in stopped.stdout
    paused = cli("pause", "data-worker", "-n", pipeline, "--reason", "softer", "--wait", "0")
    assert (paused.returncode, "is Stopped already; nothing changed" in paused.stdout) == (0, True)
    assert get(plane, "agent", "data-worker", pipeline)["spec"]["operatingMode"] == "Stopped"


def test_a_fleet_and_what_still_holds(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    paused = cli("pause", "--fleet", "reporting", "--reason", "audit", "--wait", "0")
    assert paused.returncode == 0, paused.stderr
    assert f"it has 4 agents: {pipeline}/data-worker, " in paused.stdout
    cli("pause", f"{pipeline}/data-worker", "--wait", "0")
    resumed = cli("resume", "data-worker", "--wait", "0")
    assert f"{pipeline}/data-worker is still Paused, set on AgentFleet reporting: audit" in resumed.stdout.replace(
        " by fleetward", ""
    )


def test_waiting_until_it_is_in_force_everywhere(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    """The operator's part is played by writes to the status subresource."""
    agent_status(plane, pipeline, "data-worker", "Running", webhooks={"connected": 3, "current": 3})
    steps = threading.Thread(target=_play_operator, args=(plane, pipeline))
    steps.start()
    done = cli("pause", "data-worker", "-n", pipeline, "--wait", "60s")
    steps.join(60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "in force at 3 of 3 decision webhooks; 1 pod has no decision webhook, and nothing holds it: recreate it"
    )
    assert "waiting: the operator has not taken note of it" in done.stderr
    assert "waiting: in force at 2 of 3 decision webhooks" in done.stderr


def _play_operator(plane: ControlPlane, namespace: str) -> None:
    def paused() -> bool:
        spec = get(plane, "agent", "data-worker", namespace)["spec"]
        return str(spec["operatingMode"]) == "Paused"

    pods = {"total": 4, "ready": 4, "withoutWebhook": 1}
    until_true(paused, "the pause is patched")
    threading.Event().wait(2)  # so that the command sees each step; nothing is asserted about how long they take
    agent_status(plane, namespace, "data-worker", "Paused", webhooks={"connected": 3, "current": 2}, pods=pods)
    threading.Event().wait(2)
    agent_status(plane, namespace, "data-worker", "Paused", webhooks={"connected": 3, "current": 3}, pods=pods)


def test_what_is_not_in_force_in_time_is_said(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    done = cli("stop", "data-worker", "-n", pipeline, "--wait", "1s")
    assert done.returncode == 3
    assert "is now Stopped" in done.stdout
    assert "after 1 s: the operator has not taken note of it; is fleetward-operator running?" in done.stderr
    agent_status(
        plane,
        pipeline,
        "data-worker",
        "Stopped",
        webhooks={"connected": 1, "current": 1},
        pods={"total": 3, "held": 1, "terminating": 1},
    )
    draining = cli("stop", "data-worker", "-n", pipeline, "--wait", "1s", "-o", "json")
    data = json.loads(draining.stdout)
    assert (draining.returncode, data["changed"], data["inForce"]) == (3, False, False)
    assert data["standing"] == "2 pods left, 1 of them going"
    agent_status(plane, pipeline, "data-worker", "Stopped", pods={"total": 1, "held": 1, "terminating": 0})
    drained = cli("stop", "data-worker", "-n", pipeline, "--wait", "5s")
    assert (drained.returncode, drained.stdout.splitlines()[-1]) == (
        0,
        "in force at 1 of 1 decision webhooks; no pod is left, 1 held",
    )


def test_quarantine_waits_until_pods_are_cut_off(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    """The operator's part is played by writes to the status subresource, in its words."""
    cli("quarantine", "data-worker", "-n", pipeline, "--reason", "leaking data", "--wait", "0")
    spec = get(plane, "agent", "data-worker", pipeline)["spec"]
    assert (spec["operatingMode"], spec["operatingReason"]) == ("Quarantined", "leaking data")

    def says(status: str, message: str) -> None:
        condition = {"type": "Ready", "status": status, "reason": "Any", "message": message}
        condition["lastTransitionTime"] = "2026-03-01T10:00:00Z"
        agent_status(plane, pipeline, "data-worker", "Quarantined", conditions=[condition], pods={"total": 2})

    says("False", "1 of 2 pods labelled to be cut off the network")
    late = cli("quarantine", "data-worker", "-n", pipeline, "--wait", "1s")
    assert late.returncode == 3
    assert "after 1 s: 1 of 2 pods labelled to be cut off the network" in late.stderr
    says("True", "every decision is denied, pods are kept, their network is cut (2 of 2 pods labelled)")
    done = cli("quarantine", "data-worker", "-n", pipeline, "--wait", "5s")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (
        0,
        "every decision is denied, pods are kept, their network is cut (2 of 2 pods labelled)",
    )


def test_waiting_for_a_fleet(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    first = cli("pause", "--fleet", "reporting", "--wait", "0")
    assert first.returncode == 0
    generation = get(plane, "agentfleet", "reporting")["metadata"]["generation"]
    write_status(plane, "agentfleet", "reporting", {"observedGeneration": generation})
    names = ["data-worker", "planner-desk", "report-planner", "report-writer"]
    for name in names[1:]:
        agent_status(plane, pipeline, name, "Paused")
    late = cli("pause", "--fleet", "reporting", "--wait", "1s")
    assert late.returncode == 3
    assert "in force for 3 of 4 agents" in late.stderr
    assert f"{pipeline}/data-worker: the operator has not said" in late.stderr
    agent_status(plane, pipeline, "data-worker", "Paused")
    done = cli("pause", "--fleet", "reporting", "--wait", "5s")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "in force for 4 of 4 agents")


def test_a_pause_never_weakens_a_mode_set_at_the_same_moment(
    plane: ControlPlane, pipeline: str, env: dict[str, str], cli: Cli, tmp_path: Path
) -> None:
    """Between the look and the patch somebody quarantines the agent: kubectl is wrapped to do just that."""
    real = env["FLEETWARD_KUBECTL"]
    wrapper = tmp_path / "kubectl"
    quarantine = '{"spec":{"operatingMode":"Quarantined"}}'
    wrapper.write_text(
        f'#!/bin/sh\nif [ "$1" = patch ] && [ ! -e {tmp_path}/done ]; then touch {tmp_path}/done\n'
        f"{real} patch agent data-worker -n {pipeline} --type=merge -p '{quarantine}' >/dev/null\nfi\n"
        f'exec {real} "$@"\n'
    )
    wrapper.chmod(0o755)
    done = cli("pause", "data-worker", "-n", pipeline, "--wait", "0", more={"FLEETWARD_KUBECTL": str(wrapper)})
    assert (tmp_path / "done").exists()
    assert "is Quarantined already; nothing changed" in done.stdout
    assert get(plane, "agent", "data-worker", pipeline)["spec"]["operatingMode"] == "Quarantined"


# What goes wrong


def test_who_may_only_patch_one_agent_can_pause_it(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    for command in (
        ["create", "serviceaccount", "pauser"],
        ["create", "role", "pauser", "--verb=get,patch", "--resource=agents.fleetward.dev"],
        ["create", "rolebinding", "pauser", "--role=pauser", f"--serviceaccount={pipeline}:pauser"],
    ):
        plane.kubectl(*command, "-n", pipeline)
    kubeconfig = str(plane.kubeconfig_for(pipeline, "pauser"))
    done = cli("pause", f"{pipeline}/data-worker", "--kubeconfig", kubeconfig, "--wait", "0")
    assert done.returncode == 0, done.stderr
    assert "is now Paused" in done.stdout
    assert "what else holds for it is not known: kubectl: agents.fleetward.dev is forbidden" in done.stderr
    bare = cli("pause", "data-worker", "--kubeconfig", kubeconfig)
    assert bare.returncode == 2
    assert "cannot list resource" in bare.stderr
    assert "give namespace/name instead of data-worker" in bare.stderr
    forbidden = cli("pause", "--fleet", "reporting", "--kubeconfig", kubeconfig)
    assert forbidden.returncode == 2
    assert 'kubectl: agentfleets.fleetward.dev "reporting" is forbidden' in forbidden.stderr
    assert len(forbidden.stderr.splitlines()) == 1
    acting = cli("agents", "-n", pipeline, "--as", "nobody")
    assert (acting.returncode, 'User "nobody"' in acting.stderr) == (2, True)


def test_what_may_not_be_read_is_a_finding(cli: Cli, plane: ControlPlane, pipeline: str) -> None:
    for command in (
        ["create", "serviceaccount", "reader"],
        ["create", "role", "reader", "--verb=get,list", "--resource=agents.fleetward.dev,agentpolicies.fleetward.dev"],
        ["create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={pipeline}:reader"],
    ):
        plane.kubectl(*command, "-n", pipeline)
    kubeconfig = str(plane.kubeconfig_for(pipeline, "reader"))
    done = cli("agents", "-n", pipeline, "--kubeconfig", kubeconfig)
    assert done.returncode == 1
    assert f"{pipeline}/data-worker" in done.stdout
    assert "cluster: agentfleets.fleetward.dev is forbidden" in done.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["agents", "--context", "nowhere"], "kubectl: Error in configuration: context was not found"),
        (["agents", "--kubeconfig", "/nowhere"], "kubectl: stat /nowhere: no such file or directory"),
        (["pause", "nobody"], "found no Agent nobody, allowed "),
        (["pause", "a/nobody", "-n", "b"], "found a/nobody and --namespace b; give one of them"),
        (["pause", "--fleet", "a/b"], "AgentFleet is cluster-scoped"),
        (["pause", "a/nobody"], 'kubectl: namespaces "a" not found'),
        (["agents", "--dir", ".", "--context", "x"], "--dir is about a folder, --context about a cluster"),
        (["audit", "list", "--hub", "http://127.0.0.1:1"], "allowed https://HOST:PORT"),
        (["pause", "x", "--wait", "soon"], "found soon; allowed is a length of time"),
    ],
)
def test_mistakes(cli: Cli, pipeline: str, args: list[str], words: str) -> None:
    done = cli(*args)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_too_long_a_reason_is_told_in_the_servers_words(cli: Cli, pipeline: str) -> None:
    done = cli("pause", "data-worker", "-n", pipeline, "--reason", "x" * 1025)
    assert done.returncode == 2
    assert done.stderr.startswith('Error: kubectl: The Agent "data-worker" is invalid: spec.operatingReason: Too long')
    assert len(done.stderr.splitlines()) == 1


def test_an_api_server_that_is_down(cli: Cli, plane: ControlPlane, tmp_path: Path) -> None:
    away = tmp_path / "away.kubeconfig"
    away.write_text(plane.admin_kubeconfig.read_text().replace(plane.url, "https://127.0.0.1:1"))
    done = cli("agents", "--kubeconfig", str(away))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: kubectl: The connection to the server 127.0.0.1:1 was refused")
    assert len(done.stderr.splitlines()) == 1


def test_without_kubectl(cli: Cli) -> None:
    done = cli("agents", more={"FLEETWARD_KUBECTL": "", "PATH": "/nowhere"})
    assert done.returncode == 2
    assert "found no kubectl in PATH; a cluster is reached through kubectl" in done.stderr
    named = cli("agents", more={"FLEETWARD_KUBECTL": "/nowhere/kubectl"})
    assert "FLEETWARD_KUBECTL=/nowhere/kubectl, which is no program" in named.stderr


# Which source


def test_a_folder_is_still_a_folder(cli: Cli, env: dict[str, str], tmp_path: Path) -> None:
    folder = str(REPOSITORY / "examples" / "report-pipeline")
    for more, args in (({}, ["--dir", folder]), ({"FLEETWARD_DIR": folder}, [])):
        done = cli("agents", *args, more=more)
        assert done.returncode == 0, done.stderr
        assert "reports/data-worker" in done.stdout
        assert "WEBHOOKS" not in done.stdout
    plain = subprocess.run(
        [str(BIN / "fleetward"), "agents"], capture_output=True, text=True, env=env, cwd=tmp_path, check=False
    )
    assert plain.stdout.split()[:2] == ["AGENT", "ROLE"]
    assert "WEBHOOKS" not in plain.stdout


def test_what_was_typed_counts_before_the_environment(cli: Cli, pipeline: str) -> None:
    folder = str(REPOSITORY / "examples" / "report-pipeline")
    done = cli("agents", "-n", pipeline, more={"FLEETWARD_DIR": folder})
    assert f"{pipeline}/data-worker" in done.stdout


def test_kubectl_finds_the_plugin(env: dict[str, str], pipeline: str, tmp_path: Path) -> None:
    (tmp_path / "kubectl").symlink_to(env["FLEETWARD_KUBECTL"])
    path = f"{BIN}{os.pathsep}{tmp_path}{os.pathsep}{env['PATH']}"
    kept = {name: value for name, value in env.items() if name != "FLEETWARD_KUBECTL"}

    def kubectl(*args: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(tmp_path / "kubectl"), *args],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**kept, "PATH": path},
        )

    assert str(BIN / "kubectl-fleetward") in kubectl("plugin", "list").stdout
    done = kubectl("fleetward", "pause", "data-worker", "-n", pipeline, "--wait", "0")
    assert (done.returncode, done.stdout) == (0, f"Agent {pipeline}/data-worker is now Paused, it was Running\n")
    assert "kubectl fleetward pause data-worker" in kubectl("fleetward", "pause", "--help").stdout


def complete(cli: Cli, words: str, **more: str) -> list[str]:
    place = len(words.split()) - (not words.endswith(" "))
    env = {"_FLEETWARD_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(place), **more}
    done = cli(more=env)
    assert done.stderr == ""
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_completion(cli: Cli, pipeline: str) -> None:
    assert complete(cli, f"kubectl-fleetward pause -n {pipeline} {pipeline}/data") == [f"{pipeline}/data-worker"]
    assert complete(cli, f"kubectl-fleetward agents {pipeline}/report-w") == [f"{pipeline}/report-writer"]
    assert complete(cli, "kubectl-fleetward pause --fleet rep") == ["reporting"]
    assert complete(cli, "kubectl-fleetward pause ", KUBECONFIG="/nowhere") == []
    assert complete(cli, "kubectl-fleetward pause ", FLEETWARD_KUBECTL="/nowhere") == []
