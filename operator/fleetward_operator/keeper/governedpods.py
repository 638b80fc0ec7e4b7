"""The admission policy that keeps an agent's pod from running without its decision webhook. Pure.

The API server itself evaluates it (CEL), once for each Agent of the pod's namespace, so it holds while the admission
webhook is down: an agent's pod is then refused and all others are made. It looks at new pods only. The labels of a
running pod can still be changed so that an Agent selects it; that pod is not stopped, and shows as one without a
decision webhook in the agent's status.
"""

from fleetward.resources.base import API_VERSION, GROUP
from fleetward.resources.names import CONTAINER, GOVERNED_PODS_POLICY, INJECTED_LABEL
from fleetward_operator.keeper.settings import KeeperSettings
from fleetward_operator.keeper.webhooks import quote
from fleetward_operator.kube.objects import Body

AGENTS_CRD = f"agents.{GROUP}"

_LABELS = "has(object.metadata.labels) ? object.metadata.labels : {}"
_SERVICE_ACCOUNT = (
    "has(object.spec.serviceAccountName) && object.spec.serviceAccountName != ''"
    " ? object.spec.serviceAccountName : 'default'"
)
_SELECTED = f"""\
has(params.spec.workload)
&& (has(params.spec.workload.serviceAccountName) ? params.spec.workload.serviceAccountName : 'default')
   == ({_SERVICE_ACCOUNT})
&& (!has(params.spec.workload.selector.matchLabels)
    || params.spec.workload.selector.matchLabels.all(k,
         k in ({_LABELS}) && ({_LABELS})[k] == params.spec.workload.selector.matchLabels[k]))
&& (!has(params.spec.workload.selector.matchExpressions)
    || params.spec.workload.selector.matchExpressions.all(e,
         e.operator == 'Exists' ? e.key in ({_LABELS})
         : e.operator == 'DoesNotExist' ? !(e.key in ({_LABELS}))
         : e.operator == 'In' ? (e.key in ({_LABELS}) && ({_LABELS})[e.key] in e.values)
         : e.operator == 'NotIn' ? !(e.key in ({_LABELS}) && ({_LABELS})[e.key] in e.values)
         : true))"""
"""Whether an Agent selects the pod; as `fleetward_operator.view.pods.runs`. What is unknown counts as selected."""


def policy(settings: KeeperSettings) -> Body:
    """Build the ValidatingAdmissionPolicy."""
    return {
        "spec": {
            "paramKind": {"apiVersion": API_VERSION, "kind": "Agent"},
            "failurePolicy": "Fail",
            "matchConstraints": {
                "matchPolicy": "Equivalent",
                "namespaceSelector": settings.governed_namespaces,
                "objectSelector": {},
                "resourceRules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "resources": ["pods"],
                        "operations": ["CREATE"],
                        "scope": "Namespaced",
                    }
                ],
            },
            # All of it is worked out for each Agent of the namespace. Here, most pods are done with; a validation costs
            # the API server some three times as much before its expression is even looked at.
            "matchConditions": [
                {"name": "not-injected", "expression": f"!({_injected(settings)})"},
                {"name": "selected", "expression": _SELECTED},
            ],
            "validations": [
                {
                    "expression": "false",
                    "reason": "Forbidden",
                    "messageExpression": _message(settings),
                }
            ],
        }
    }


def binding() -> Body:
    """Build the binding: every Agent of the pod's namespace is a parameter, and where there is none, all pass."""
    return {
        "spec": {
            "policyName": GOVERNED_PODS_POLICY,
            "validationActions": ["Deny"],
            "paramRef": {"selector": {}, "parameterNotFoundAction": "Allow"},
        }
    }


def _injected(settings: KeeperSettings) -> str:
    """Whether the pod carries the label and the native sidecar, with an image of ours."""
    ours = " || ".join(
        f"c.image == {quote(name)} || [{quote(name + ':')}, {quote(name + '@')}].exists(p, c.image.startsWith(p))"
        for name in settings.repositories
    )
    return (
        f"has(object.metadata.labels) && {quote(INJECTED_LABEL)} in object.metadata.labels"
        f" && object.metadata.labels[{quote(INJECTED_LABEL)}] == 'true'\n"
        "&& has(object.spec.initContainers)\n"
        f"&& object.spec.initContainers.exists(c, c.name == {quote(CONTAINER)}"
        " && has(c.restartPolicy) && c.restartPolicy == 'Always'\n"
        f"     && has(c.image) && ({ours}))"
    )


def _message(settings: KeeperSettings) -> str:
    what = (
        " selects this pod, and it carries no decision webhook: the admission webhook of Fleetward is not answering."
        f" Controllers try again by themselves; a bare pod has to be created again. See the pods {settings.namespace}/"
        "fleetward-admission"
    )
    return f"'Agent ' + params.metadata.namespace + '/' + params.metadata.name + {quote(what)}"
