"""A folder with a chain of agents in two namespaces, and policies that look at the chain, the run and the labels."""

AGENTS = """\
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: desk, namespace: care, labels: {team: care}}
spec: {role: Coordinator, dataClasses: [customer, staff]}
---
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: worker, namespace: care, labels: {team: care}}
spec: {role: Worker, riskTier: High, dataClasses: [customer]}
---
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata: {name: mailer, namespace: post, labels: {team: post}}
spec: {role: Worker, dataClasses: [customer]}
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentFleet
metadata: {name: care}
spec: {agents: {agentSelector: {matchLabels: {team: care}}}}
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentFleet
metadata: {name: post}
spec: {agents: {agentSelector: {matchLabels: {team: post}}}}
---
apiVersion: fleetward.dev/v1alpha1
kind: ActionCatalog
metadata: {name: care}
spec:
  entries:
  - {names: [db.read], target: db}
  - {names: [note.send], target: worker}
"""

POLICIES = """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata: {name: desk, namespace: care}
spec:
  subjects: {agents: [desk]}
  rules:
  - {name: hand-out, match: {kinds: [Delegation, Plan, Message]}, decision: Allow}
  - {name: no-drop, match: {names: [db.drop]}, decision: Deny, message: The desk drops nothing}
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata: {name: desk-alone, namespace: care}
spec:
  inheritance: Self
  subjects: {agents: [desk]}
  rules:
  - {name: no-reading, match: {names: [db.read]}, decision: Deny}
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata: {name: work, namespace: care}
spec:
  subjects: {agents: [worker]}
  rules:
  - {name: read, match: {names: [db.*], path: [desk]}, decision: Allow}
  - {name: deep, match: {names: [deep.*], minDepth: 2}, decision: Allow}
  - {name: own, match: {names: [own.*], maxDepth: 0}, decision: Allow}
  - {name: clean, match: {names: [db.clean]}, decision: Allow, cleanses: [untrusted, web]}
---
apiVersion: fleetward.dev/v1alpha1
kind: ClusterAgentPolicy
metadata: {name: everywhere}
spec:
  rules:
  - {name: tainted, match: {names: [db.read], labels: [untrusted]}, decision: RequireApproval}
  - name: to-high
    match: {kinds: [Delegation, Message]}
    when: has(to.riskTier) && to.riskTier == 'High'
    decision: RequireApproval
  - {name: staff, match: {kinds: [Delegation, Plan], dataClasses: [staff]}, decision: Deny}
  - {name: to-worker, match: {kinds: [Delegation], targets: [care/worker], labels: [web]}, decision: Deny}
  - {name: wide, match: {kinds: [Plan]}, when: plan.fanOut > 5 || plan.steps > 10, decision: Deny}
  - {name: again, match: {names: [db.*]}, when: run.repeats >= 3, decision: Throttle, retryAfterSeconds: 9}
  - {name: own-run, match: {names: [db.*]}, when: has(run.requester) && run.requester == 'mallory', decision: Deny}
  - name: two-people
    match: {names: [db.write]}
    when: "'db.propose' in run.onTarget && agent.key in run.onTarget['db.propose']"
    decision: Deny
    message: Who proposed may not execute
"""


def read(
    agent: str = "care/worker", name: str = "db.read", kind: str = "ToolCall", **fields: object
) -> dict[str, object]:
    """A request."""
    return {"agent": agent, "action": {"kind": kind, "name": name}, **fields}
