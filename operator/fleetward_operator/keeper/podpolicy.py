"""What the two admission policies for pods share. Pure."""

from fleetward.resources.names import INJECTED_LABEL
from fleetward_operator.keeper.settings import KeeperSettings
from fleetward_operator.kube.objects import Body

INJECTED = "true"
"""The value of the label that injection sets on a pod."""

LABELLED: Body = {"matchExpressions": [{"key": INJECTED_LABEL, "operator": "In", "values": [INJECTED]}]}
NOT_LABELLED: Body = {"matchExpressions": [{"key": INJECTED_LABEL, "operator": "NotIn", "values": [INJECTED]}]}
"""As an objectSelector: the pods that LABELLED leaves out, so that no pod is seen by neither policy or by both."""


def pods(settings: KeeperSettings, selector: Body, *operations: str) -> Body:
    """Build the matchConstraints: which pods a policy looks at, and when."""
    return {
        "matchPolicy": "Equivalent",
        "namespaceSelector": settings.governed_namespaces,
        "objectSelector": selector,
        "resourceRules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "resources": ["pods"],
                "operations": list(operations),
                "scope": "Namespaced",
            }
        ],
    }
