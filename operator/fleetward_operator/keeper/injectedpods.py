"""The admission policy that holds pods to their label: what says it was injected carries the decision webhook. Pure.

Whoever makes a pod may set any label, so the label alone may not spare a pod the policy of governed pods. What is asked
of an injected pod is the same whichever Agent selects it, so this policy has no parameters and is evaluated once for
a pod, not once for each Agent of its namespace. Whether its agents are stopped, neither policy asks: the admission
webhook sets the scheduling gate, the operator evicts what runs, and the decision webhook denies.

It also looks at updates. A pod's init containers cannot be changed later but for their images, and its labels can:
so what is injected stays injected, label and image, and no label is put on a pod that is not. An update that leaves
wrong what was wrong before passes (a pod of before an upgrade from another registry must still be able to go).
"""

from fleetward.resources.names import CONTAINER, INJECTED_LABEL, INJECTED_PODS_POLICY
from fleetward_operator.keeper.podpolicy import INJECTED, LABELLED, pods
from fleetward_operator.keeper.settings import KeeperSettings
from fleetward_operator.keeper.webhooks import quote
from fleetward_operator.kube.objects import Body


def policy(settings: KeeperSettings) -> Body:
    """Build the ValidatingAdmissionPolicy. Of an update, it sees what has the label before or after it."""
    return {
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": pods(settings, LABELLED, "CREATE", "UPDATE"),
            "validations": [
                {
                    "expression": (
                        f"(oldObject != null && ({_labelled('oldObject')}))\n|| ({_carries('object', settings)})"
                    ),
                    "reason": "Forbidden",
                    "message": (
                        f"the label {INJECTED_LABEL}={INJECTED} says that this pod carries the decision webhook, and it"
                        f" does not: an init container {CONTAINER} with restartPolicy Always and an image of"
                        f" {' or '.join(settings.repositories)}. Leave the label out; the admission webhook of"
                        " Fleetward sets it where it injects"
                    ),
                },
                {
                    "expression": (
                        f"oldObject == null || !({_injected('oldObject', settings)})"
                        f"\n|| ({_injected('object', settings)})"
                    ),
                    "reason": "Forbidden",
                    "message": (
                        "this pod carries the decision webhook, and is to keep it: its label"
                        f" {INJECTED_LABEL}={INJECTED} stays, and the image of its init container {CONTAINER} stays one"
                        f" of {' or '.join(settings.repositories)}. Create the pod again to change either"
                    ),
                },
            ],
        }
    }


def binding() -> Body:
    """Build the binding."""
    return {"spec": {"policyName": INJECTED_PODS_POLICY, "validationActions": ["Deny"]}}


def _injected(pod: str, settings: KeeperSettings) -> str:
    return f"({_labelled(pod)})\n&& ({_carries(pod, settings)})"


def _labelled(pod: str) -> str:
    """Whether a pod has the label; as `podpolicy.LABELLED`."""
    label = quote(INJECTED_LABEL)
    return (
        f"has({pod}.metadata.labels) && {label} in {pod}.metadata.labels"
        f" && {pod}.metadata.labels[{label}] == {quote(INJECTED)}"
    )


def _carries(pod: str, settings: KeeperSettings) -> str:
    """Whether a pod has the native sidecar, with an image of ours."""
    ours = " || ".join(
        f"c.image == {quote(name)} || [{quote(name + ':')}, {quote(name + '@')}].exists(p, c.image.startsWith(p))"
        for name in settings.repositories
    )
    return (
        f"has({pod}.spec.initContainers)\n"
        f"&& {pod}.spec.initContainers.exists(c, c.name == {quote(CONTAINER)}"
        " && has(c.restartPolicy) && c.restartPolicy == 'Always'\n"
        f"     && has(c.image) && ({ours}))"
    )
