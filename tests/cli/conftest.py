"""A small folder of resources, and the command run in this process or as one of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cli import chains
from click.testing import CliRunner, Result

from fleetward.cli.main import cli

RESOURCES = """\
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: data-worker, namespace: reports, labels: {team: reports}}
spec:
  role: Worker
  owner: data@example.com
  riskTier: High
---
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: writer, namespace: reports, labels: {team: reports}}
spec: {role: Planner}
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentFleet
metadata: {name: reporting}
spec:
  agents: {agentSelector: {matchLabels: {team: reports}}}
"""

POLICY = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata: {name: work, namespace: reports}
spec:
  rules:
  - {name: read, match: {kinds: [ToolCall], names: ["crm.*.read"], roles: [Worker]}, decision: Allow}
  - name: short
    match: {kinds: [ModelCall]}
    decision: Constrain
    obligations: [{type: Clamp, field: arguments.limit, maximum: 10}]
  - {name: slow, match: {names: [crm.search]}, decision: Throttle, retryAfterSeconds: 7}
  - {name: send, match: {names: ["**.send.*"]}, decision: RequireApproval, message: Sending needs approval}
  - {name: never, match: {names: [crm.drop]}, decision: Deny}
  - name: large
    phase: After
    match: {names: ["crm.*.read"]}
    when: outcome.actual.records > 10
    decision: Deny
"""

TESTS = """\
apiVersion: fleetward.dev/v1alpha1
kind: PolicyTest
metadata: {name: basics}
cases:
- name: the worker reads
  request: {agent: reports/data-worker, action: {kind: ToolCall, name: crm.customers.read}}
  expect: {decision: Allow, rule: read, policy: work}
- name: mail is held
  request: {agent: reports/writer, action: {kind: Message, name: mail.send.customer}}
  expect: {decision: RequireApproval, rule: send, policy: reports/work, rules: [send], reason: needs approval}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two agents, a fleet, a policy and a policy test, all without a fault."""
    path = tmp_path / "policies"
    path.mkdir()
    (path / "agents.yaml").write_text(RESOURCES)
    (path / "policy.yaml").write_text(POLICY)
    (path / "tests.yaml").write_text(TESTS)
    return path


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A folder with a chain of agents; see `chains`."""
    path = tmp_path / "chain"
    path.mkdir()
    (path / "agents.yaml").write_text(chains.AGENTS)
    (path / "policies.yaml").write_text(chains.POLICIES)
    return path


Run = Callable[..., Result]
Process = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run() -> Run:
    """The command in this process."""

    def invoke(*args: str | Path, stdin: str | None = None) -> Result:
        result = CliRunner().invoke(cli, [str(arg) for arg in args], input=stdin, prog_name="fleetward")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def process(tmp_path: Path) -> Process:
    """The installed command as a process of its own."""

    def start(
        *args: str | Path, stdin: str = "", program: str = "fleetward", env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).with_name(program)), *map(str, args)]
        return subprocess.run(
            command,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd=tmp_path,
            env={**os.environ, **(env or {})},
        )

    return start
