"""The admission policy that keeps an agent's pod from running without its decision webhook. Pure.

The API server itself evaluates it (CEL), once for each Agent of the pod's namespace, so it holds while the admission
webhook is down: an agent's pod is then refused and all others are made. It looks at new pods only. The labels of a
running pod can still be changed so that an Agent selects it; that pod is not stopped, and shows as one without a
decision webhook in the agent's status.

Each Agent costs an evaluation for each pod, so it leaves out the pods that have the label which injection sets, as
nearly all pods of agents do. `injectedpods` sees to it that those have the decision webhook indeed: neither is
worth anything without the other.
"""

from fleetward.resources.base import API_VERSION, GROUP
from fleetward.resources.names import GOVERNED_PODS_POLICY
from fleetward_operator.keeper.podpolicy import NOT_LABELLED, pods
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
            "matchConstraints": pods(settings, NOT_LABELLED, "CREATE"),
            # All of it is worked out for each Agent of the namespace. Here, most pods are done with; a validation costs
            # the API server some three times as much before its expression is even looked at.
            "matchConditions": [{"name": "selected", "expression": _SELECTED}],
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


def _message(settings: KeeperSettings) -> str:
    what = (
        " selects this pod, and it carries no decision webhook: the admission webhook of Fleetward is not answering."
        f" Controllers try again by themselves; a bare pod has to be created again. See the pods {settings.namespace}/"
        "fleetward-admission"
    )
    return f"'Agent ' + params.metadata.namespace + '/' + params.metadata.name + {quote(what)}"
