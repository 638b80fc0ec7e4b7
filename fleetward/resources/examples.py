"""An example of every kind for the reference; together they use every field there is."""

EXAMPLES = {
    "Agent": """\
apiVersion: fleetward.dev/v1alpha1
kind: Agent
metadata:
  name: data-worker
  namespace: reports
  labels: {team: reports}
spec:
  role: Worker
  workload:
    selector:
      matchLabels: {app: data-worker}
    serviceAccountName: data-worker
  owner: data-platform@example.com
  riskTier: High
  dataClasses: [customer]
  mayDelegateTo:
    roles: [Worker]
    agents: [keeper, archive/keeper]
  operatingMode: Paused
  operatingReason: The export of last night is being looked into
""",
    "AgentFleet": """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentFleet
metadata:
  name: reporting
spec:
  agents:
    namespaceSelector:
      matchExpressions:
        - {key: kubernetes.io/metadata.name, operator: In, values: [reports, archive]}
    agentSelector:
      matchLabels: {team: reports}
  defaultDecision: Deny
  declaredFacts: RestrictOnly
  delegation: Intersection
  operatingMode: Running
  operatingReason: ""
""",
    "ActionCatalog": """\
apiVersion: fleetward.dev/v1alpha1
kind: ActionCatalog
metadata:
  name: crm
spec:
  entries:
    - names: [crm.customers.**]
      riskTags: [pii]
      dataClasses: [customer]
      target: crm
      estimate: {calls: 1, records: 100}
      reversibility: Reversible
    - names: [crm.**.export, mail.send.*]
      riskTags: [external, bulk]
      reversibility: Irreversible
    - names: [models.large.chat]
      estimate: {inputTokens: 8000, outputTokens: 2000, costMicroUsd: 54000}
    - names: [web.**]
      resultLabels: [web, untrusted]
---
apiVersion: fleetward.dev/v1alpha1
kind: ActionCatalog
metadata:
  name: model-prices
spec:
  models:
    - models: [example-large-*, "vendor/large:*"]
      inputMicroUsdPerMillion: 3000000
      outputMicroUsdPerMillion: 15000000
      cachedInputMicroUsdPerMillion: 300000
      reasoningMicroUsdPerMillion: 15000000
""",
    "AgentPolicy": """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentPolicy
metadata:
  name: customer-data
  namespace: reports
spec:
  enforcement: Enforce
  inheritance: Chain
  subjects:
    roles: [Planner, Worker]
    agents: [planner, data-worker]
    agentSelector:
      matchLabels: {team: reports}
  rules:
    - name: outside-needs-approval
      match:
        kinds: [ToolCall, Message]
        names: ["**.send.*", "**.export.**"]
        riskTags: [external]
      exclude:
        targets: [status.internal]
      when: "!has(action.estimate.records) || action.estimate.records > 0"
      decision: RequireApproval
      audit: Durable
      message: External actions need approval
    - name: read-in-small-portions
      match:
        names: [crm.customers.read]
        agents: [data-worker]
        roles: [Worker]
        fleets: [reporting]
        path: [planner-desk, sales/desk]
        minDepth: 1
        maxDepth: 3
      decision: Constrain
      obligations:
        - {type: Clamp, field: arguments.limit, maximum: 100}
    - name: hide-mail-addresses
      phase: After
      match:
        dataClasses: [customer]
      decision: Constrain
      obligations:
        - {type: Redact, field: result.rows.*.email}
    - name: nothing-rash-after-the-web
      match:
        labels: [web, untrusted]
        reversibility: [Irreversible]
      decision: Throttle
      retryAfterSeconds: 60
    - name: mail-in-small-doses
      match:
        names: [mail.send.*]
      decision: Throttle
      throttle:
        rate: {count: 10, perSeconds: 60, burst: 3}
        concurrency: 2
        scope: Shared
    - name: sanitized
      match:
        names: [text.sanitize]
      decision: Allow
      cleanses: [web, untrusted]
""",
    "ClusterAgentPolicy": """\
apiVersion: fleetward.dev/v1alpha1
kind: ClusterAgentPolicy
metadata:
  name: no-bulk-export
spec:
  enforcement: Audit
  inheritance: Self
  subjects:
    roles: [Coordinator, Planner, Worker]
    agents: [reports/data-worker]
    agentSelector: {}
    namespaceSelector:
      matchExpressions:
        - {key: environment, operator: NotIn, values: [test]}
  rules:
    - name: bulk
      match:
        riskTags: [bulk]
      decision: Deny
      message: Bulk export is denied on every path
""",
    "AgentBudget": """\
apiVersion: fleetward.dev/v1alpha1
kind: AgentBudget
metadata:
  name: reporting-day
  namespace: reports
spec:
  subjects:
    fleets: [reporting]
    roles: [Planner, Worker]
    agents: [planner, data-worker]
    agentSelector:
      matchLabels: {team: reports}
  scope: Shared
  window: {kind: Calendar, unit: Day, timeZone: Europe/Berlin}
  limits:
    inputTokens: 2000000
    outputTokens: 200000
    costMicroUsd: 5000000
    records: 1000
    wallSeconds: 3600
    calls:
      - {names: [crm.**], max: 100}
  thresholds:
    - {percent: 80, action: Event}
    - {percent: 95, action: Throttle, perMinute: 6}
    - {percent: 100, action: Pause}
  parent: {kind: ClusterAgentBudget, name: organisation}
  defaultEstimate: {inputTokens: 8000, outputTokens: 2000, costMicroUsd: 54000, calls: 1, records: 1, wallSeconds: 30}
  unpricedModels: Deny
  settleAfterSeconds: 3600
---
apiVersion: fleetward.dev/v1alpha1
kind: AgentBudget
metadata:
  name: each-run
  namespace: reports
spec:
  scope: Run
  window: {kind: Rolling, duration: 1h30m}
  limits: {records: 100}
""",
    "ClusterAgentBudget": """\
apiVersion: fleetward.dev/v1alpha1
kind: ClusterAgentBudget
metadata:
  name: organisation
spec:
  subjects:
    fleets: [reporting]
    roles: [Coordinator, Planner, Worker]
    agents: [reports/data-worker]
    agentSelector: {}
    namespaceSelector:
      matchExpressions:
        - {key: environment, operator: NotIn, values: [test]}
  scope: Shared
  window: {kind: Calendar, unit: Month}
  limits:
    costMicroUsd: 100000000
  thresholds:
    - {percent: 90, action: RequireApproval}
  parent: {kind: ClusterAgentBudget, name: everything}
  defaultEstimate: {costMicroUsd: 54000}
  unpricedModels: UseEstimate
  settleAfterSeconds: 600
""",
    "AuditSink": """\
apiVersion: fleetward.dev/v1alpha1
kind: AuditSink
metadata:
  name: collector
spec:
  type: CloudEvents
  cloudEvents:
    url: https://collector.example.com/events
    timeoutSeconds: 5
  records: [Decision, ModeChange]
---
apiVersion: fleetward.dev/v1alpha1
kind: AuditSink
metadata:
  name: archive
spec:
  type: JsonLines
  jsonLines:
    path: archive/records.jsonl
""",
}
