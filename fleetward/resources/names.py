"""Names that operator, admission and charts must agree on, in Kubernetes and inside a governed pod."""

from fleetward.resources.base import GROUP

SYSTEM_NAMESPACE = "fleetward-system"
"""Where Fleetward itself runs, unless the chart was told otherwise."""

OPERATOR = "fleetward-operator"
"""The operator's service account, ClusterRole, Lease and field manager."""

ADMISSION = "fleetward-admission"
"""The admission webhook's service account and Service."""

AUDITOR = "fleetward-auditor"
"""The service account whose tokens may read the audit trail."""

HUB_SERVICE = "fleetward-hub"
HUB_PORT = 8443

AUDIENCE = "fleetward"
"""Whom a decision webhook's projected token is for."""

CA_SECRET = "fleetward-ca"  # noqa: S105 - the name of a Secret, not a secret
HUB_TLS_SECRET = "fleetward-hub-tls"  # noqa: S105 - as above
ADMISSION_TLS_SECRET = "fleetward-admission-tls"  # noqa: S105 - as above
GRANT_KEYS_SECRET = "fleetward-grant-keys"  # noqa: S105 - as above

CA_CONFIG_MAP = "fleetward-ca"
"""In each governed namespace and our own: what decision webhooks and readers of the audit trail trust the hub by."""

CA_FILE = "ca.crt"
TOKEN_FILE = "token"  # noqa: S105 - the name of a file

WEBHOOK_CONFIGURATION = "fleetward"
GOVERNED_PODS_POLICY = "fleetward-governed-pods"
INJECTED_PODS_POLICY = "fleetward-injected-pods"

CONTAINER = "fleetward-webhook"
"""The decision webhook's container in a governed pod."""

HUB_VOLUME = "fleetward-hub"
HUB_MOUNT = "/var/run/fleetward/hub"
SPOOL_VOLUME = "fleetward-spool"
SPOOL_MOUNT = "/var/lib/fleetward/spool"

INJECTED_LABEL = f"{GROUP}/injected"
AGENTS_ANNOTATION = f"{GROUP}/agents"
INJECTION_LABEL = f"{GROUP}/injection"
"""On a namespace, with the value `disabled`: nothing is injected there, and its agents' pods are not governed."""

STOPPED_GATE = f"{GROUP}/stopped"
"""The scheduling gate that holds new pods of stopped and quarantined agents."""

QUARANTINED_LABEL = f"{GROUP}/quarantined"
"""On a pod, with the value `true`: all its agents are Quarantined, and the NetworkPolicy of that name cuts it off."""

QUARANTINE_POLICY = "fleetward-quarantine"
"""The NetworkPolicy in each namespace with a Quarantined agent."""
