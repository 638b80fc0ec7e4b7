"""The report pipeline's story on a real Kubernetes control plane: `kubectl apply` governs, `kubectl patch` stops.

`make demo-cluster` runs it. It builds the control plane where that was never done, starts it, installs Fleetward from
its plain manifests, applies this folder and the agents' Deployments, and stops one of the agents by patches. With
`--stay` the cluster is there to play with until Ctrl-C. Exits with 1 where something does not come true in time.
"""

import argparse
import json
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "tests"))  # the control plane and the node are those of the tests

from cluster_screen import injected  # noqa: E402
from cluster_world import WITHIN, Interrupted, StoryError, World, listen_to_signals, world  # noqa: E402
from support.controlplane.errors import BuildError, KubectlError, StartError, UnavailableError  # noqa: E402
from support.spine import is_ready  # noqa: E402
from support.waiting import until  # noqa: E402
from telling import aside, decision_line, heading, screen  # noqa: E402

from fleetward.resources.names import CONTAINER, STOPPED_GATE  # noqa: E402

FOLDER = "examples/report-pipeline"
AGENTS = ("planner-desk", "report-planner", "data-worker", "report-writer")
NAMESPACE = "reports"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
WORKER = "data-worker"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{WORKER}"

PLAIN_WORDS = """\
  Real: etcd, the API server, controllers, the scheduler, kubectl; RBAC, admission, tokens, evictions. Fleetward's
  operator and admission webhook run as processes, under the service accounts that the manifests make, and with no
  other rights.
  Not real: the node. It runs each container as a process of this machine, with the pod's own volumes and tokens. It
  has no images (it knows which program each of the two images stands for), keeps no container apart from the others or
  from this machine, ignores limits and security contexts, and knows no Services and no `kubectl exec` or `logs`."""

Said = dict[str, Any]

FAILURES = (
    *(StoryError, KubectlError, StartError, BuildError),
    *(AssertionError, OSError, subprocess.TimeoutExpired),
)
"""What may keep the story from coming true: `until` and the API server speak in the last three."""


class Story:
    """The parts of the story, in the order in which they are told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.shell = world.shell

    def tell(self) -> None:
        """Tell all of it."""
        self.govern()
        self.run_agents()
        self.decisions()
        self.pause()
        self.stop()
        self.resume()
        self.look_back()

    def govern(self) -> None:
        """Apply the folder, the same that `make demo` serves."""
        heading("A platform team applies its folder. From now on, it governs.")
        self.shell(f"kubectl apply -f {FOLDER}/")
        self.shell(f"kubectl wait agents --all -n {NAMESPACE} --for=condition=Ready --timeout={WITHIN:.0f}s")

    def run_agents(self) -> None:
        """Start the agents, and show what was put into their pods."""
        heading("The agents come as plain Deployments that know nothing of Fleetward.")
        self.shell(f"kubectl apply -f {FOLDER}/pods/")
        until(lambda: all(self.ready_pod(agent) for agent in AGENTS), "every agent has a pod that is Ready", WITHIN)
        self.shell(f"kubectl get pods -n {NAMESPACE}")
        heading(
            "Admission has put a decision webhook into each pod. The agent's container finds it by its environment."
        )
        injected(self.world.get(DEPLOYMENT)["spec"]["template"], self.ready_pod(WORKER) or {})

    def decisions(self) -> None:
        """Show what the agents were told."""
        heading("They are at work, and ask before they act. What each was told, from its pod's log:")
        for agent in AGENTS:
            for one in self.first_said(agent):
                self.decision(agent, one)
        heading("How it stands:")
        self.until_columns("Running")
        self.shell(f"kubectl get agents,agentfleets,agentpolicies -n {NAMESPACE}")

    def pause(self) -> None:
        """Pause an agent while it works, and see when it was told no."""
        heading(f"3 a.m. {WORKER} reads customer after customer, dozens a second. Somebody pauses it.")
        began, ended = self.patch({"operatingMode": "Paused", "operatingReason": "too many reads, ticket 4711"})
        until(lambda: "is Paused" in self.last().get("reason", ""), f"{WORKER} is denied, as it is paused", WITHIN)
        since = [one for one in self.said(WORKER) if one["repeated"]]
        denied = next(one for one in since if "is Paused" in one.get("reason", ""))
        allowed = [one for one in since if one["decision"] == "Allow"][-1]
        if allowed["time"] > denied["time"]:
            raise StoryError(f"{WORKER} was allowed again after it had been denied: {allowed}")
        self.decision(WORKER, allowed)
        self.decision(WORKER, denied)
        for what, when in (("the last allowed answer", allowed), ("the first denied one", denied)):
            screen.print(f"      {what:<25} {_ms(when['time'] - began)} after kubectl was started")
        screen.print(f"      {'kubectl was done':<25} {_ms(ended - began)} after it was started")
        aside(
            "Operating modes come into the status at once, last decisions every ten seconds. Waiting for this one ..."
        )
        self.until_columns("Paused", "Deny")
        self.shell(f"kubectl get agent {WORKER} -n {NAMESPACE}")

    def stop(self) -> None:
        """Stop the agent: no pod of it is left, and nobody touched its Deployment."""
        heading("Still not good enough: it is stopped. Its pod is evicted, and the next one is held.")
        before, old = self.world.get(DEPLOYMENT), self.ready_pod(WORKER) or {}
        self.patch({"operatingMode": "Stopped"})
        until(lambda: self.held() and old["metadata"]["name"] not in self.pods(WORKER), "the pod is held", WITHIN)
        self.shell(f"kubectl get pods -n {NAMESPACE} -l app={WORKER}")
        gate = f"kubectl get pods -n {NAMESPACE} -l app={WORKER} -o jsonpath={{.items[*].spec.schedulingGates}}"
        self.shell(gate)
        after = self.world.get(DEPLOYMENT)
        if before["spec"] != after["spec"] or before["metadata"]["generation"] != after["metadata"]["generation"]:
            raise StoryError(f"the Deployment {WORKER} was changed: {before['spec']} became {after['spec']}")
        replicas, generation = after["spec"]["replicas"], after["metadata"]["generation"]
        aside(f"the Deployment is as it was: replicas {replicas}, generation {generation}. What Git owns stays Git's.")

    def resume(self) -> None:
        """Let it go again."""
        heading("In the morning it may go on.")
        began, _ = self.patch({"operatingMode": "Running", "operatingReason": None})
        until(lambda: self.ready_pod(WORKER), f"{WORKER} has a pod that is Ready", WITHIN)
        until(lambda: self.last()["decision"] == "Allow" and self.last()["time"] > began, "it is allowed again", WITHIN)
        first = next(one for one in self.said(WORKER) if one["time"] > began and one["decision"] == "Allow")
        self.decision(WORKER, first)
        aside(f"in a new pod, {first['time'] - began:.1f} s after the patch")

    def look_back(self) -> None:
        """Show what is on record."""
        heading("What happened, for whoever looks with kubectl alone:")
        selected = "--field-selector reportingComponent=fleetward.dev/operator --sort-by .eventTime"
        self.shell(f"kubectl get events -n {NAMESPACE} {selected}")
        heading("And by the plugin, `kubectl fleetward`:")
        hub = f"--hub {self.world.fleetward.hub}"
        listed = self.shell(f"kubectl fleetward audit list {hub} --agent {WORKER} --type modechange")
        self.shell(f"kubectl fleetward audit show {listed.splitlines()[1].split()[-1]} {hub}")
        self.shell(f"kubectl fleetward audit list {hub} --decision deny --limit 3")
        aside("--hub is needed here alone: no port can be forwarded to an operator that has a process, but no pod.")
        self.until_columns("Running", "Allow")
        self.shell(f"kubectl fleetward agents -n {NAMESPACE}")

    # What it looks at

    def patch(self, spec: Said) -> tuple[float, float]:
        """Patch the worker's Agent as people do; give when kubectl was started and when it was done."""
        body = json.dumps({"spec": spec}, separators=(",", ":"))
        began = time.time()
        self.shell(f"kubectl patch agent {WORKER} -n {NAMESPACE} --type merge -p '{body}'")
        return began, time.time()

    def pods(self, agent: str) -> dict[str, Said]:
        """Give an agent's pods by name."""
        listed = self.world.get(f"{PODS}?labelSelector=app%3D{agent}")["items"]
        return {pod["metadata"]["name"]: pod for pod in listed}

    def ready_pod(self, agent: str) -> Said | None:
        """Give the agent's pod that is Ready and has the decision webhook in it."""
        for pod in self.pods(agent).values():
            sidecars = [one["name"] for one in pod["spec"].get("initContainers") or ()]
            if is_ready(pod) and CONTAINER in sidecars and "deletionTimestamp" not in pod["metadata"]:
                return pod
        return None

    def held(self) -> bool:
        """Say whether the worker's one pod waits at the gate."""
        gates = [pod["spec"].get("schedulingGates") for pod in self.pods(WORKER).values()]
        return gates == [[{"name": STOPPED_GATE}]]

    def until_columns(self, mode: str, decision: str = "") -> None:
        """Wait until the status of the agents knows what we know already."""

        def told() -> bool:
            listed = self.world.get(f"/apis/fleetward.dev/v1alpha1/namespaces/{NAMESPACE}/agents")["items"]
            statuses = {agent["metadata"]["name"]: agent.get("status") or {} for agent in listed}
            current = all(
                one.get("webhooks", {}).get("current") and one.get("lastDecision") for one in statuses.values()
            )
            worker = statuses[WORKER]
            in_force = worker["mode"]["operatingMode"] == mode
            return bool(current and in_force and decision in {"", worker["lastDecision"]["decision"]})

        until(told, f"the agents' status: {mode} in force at every webhook", WITHIN)

    def said(self, agent: str) -> list[Said]:
        """Give what the agent was told in all its pods so far, in order."""
        pods = (self.world.node.directory / "logs" / NAMESPACE).glob(f"{agent}-*")
        logs = "".join(self.world.node.logs(NAMESPACE, pod.name, "agent") for pod in pods)
        lines = [line for line in logs.splitlines(keepends=True) if line.startswith("{") and line.endswith("}\n")]
        return sorted((json.loads(line) for line in lines), key=lambda one: float(one["time"]))

    def first_said(self, agent: str) -> list[Said]:
        """Wait until the agent has gone through its list once, and give what it was told."""
        until(lambda: any(one["repeated"] for one in self.said(agent)), f"{agent} has done its work once", WITHIN)
        return [one for one in self.said(agent) if not one["repeated"]]

    def last(self) -> Said:
        """Give what the worker was told last."""
        return self.said(WORKER)[-1]

    def decision(self, agent: str, one: Said) -> None:
        """Show one answer."""
        decision_line(agent, one["name"], one["decision"], one["rule"], one["seconds"])
        if "reason" in one:
            aside(one["reason"])
        if "arguments" in one:
            aside(f"runs with {one['arguments']} instead of {one['asked']}")


def _ms(seconds: float) -> str:
    return f"{1000 * seconds:6.0f} ms"


def main() -> int:
    """Tell the story."""
    options = _options()
    listen_to_signals()
    try:
        screen.print(f"[bold]The report pipeline, on a real Kubernetes control plane[/] (kept in {options.directory})")
        screen.print(f"{PLAIN_WORDS}\n", markup=False)
        with world(options.directory.resolve()) as running:
            Story(running).tell()
            if options.stay:
                _stay(running, options.directory)
        if not options.stay:
            _what_to_try()
    except Interrupted as interrupted:
        screen.print("\nInterrupted. All of it is stopped.")
        return interrupted.exit_code
    except UnavailableError as error:
        return _failed(f"No Kubernetes control plane here: {error}")
    except FAILURES as error:
        logs = options.directory / "fleetward"
        return _failed(f"The story did not come true: {error}\nThe logs of operator and admission are in {logs}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Tell the report pipeline's story on a real control plane.")
    parser.add_argument("--stay", action="store_true", help="leave the cluster running until Ctrl-C")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path("build/demo-cluster"),
        help="where everything is kept; emptied first (default: %(default)s)",
    )
    return parser.parse_args()


def _stay(running: World, directory: Path) -> None:
    """Have the cluster for people to play with, until they have enough."""
    heading("The cluster stays until Ctrl-C. In another terminal:")
    file = directory / "env"
    env = {name: running.env[name] for name in ("KUBECONFIG", "KUBECACHEDIR", "PATH")}
    file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in env.items()))
    screen.print(f"  . {file}", markup=False)
    for line in (
        "kubectl get agents -n reports -w",
        'kubectl patch agentfleet reporting --type merge -p \'{"spec":{"operatingMode":"Paused"}}\'',
        f"kubectl fleetward audit tail --hub {running.fleetward.hub}",
        "kubectl explain agent.spec",
    ):
        screen.print(f"  {line}", markup=False)
    try:
        signal.pause()
    except Interrupted:
        file.unlink()


def _what_to_try() -> None:
    heading("All of it is stopped. To try:")
    for what, how in (
        ("make demo-cluster STAY=1", "the same, and the cluster stays until Ctrl-C, for your own kubectl"),
        ("make kind-up", "Fleetward on kind, for people with Docker"),
        ("make demo", "the same folder, governed on this machine without Kubernetes"),
    ):
        screen.print(f"  {what:<26}{how}", markup=False)


def _failed(message: str) -> int:
    sys.stdout.flush()
    sys.stderr.write(f"\n{message}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
