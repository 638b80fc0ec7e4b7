"""Whether validation may block: only after it has proven, through the API server, that it refuses what is bad."""

import datetime as dt
import logging
import secrets

from fleetward.resources.base import API_VERSION, GROUP, VERSION
from fleetward.resources.names import OPERATOR, WEBHOOK_CONFIGURATION
from fleetward_operator.keeper.webhooks import RESOURCES_WEBHOOK, FailurePolicy
from fleetward_operator.kube.objects import EVENT, VALIDATING, Body, Kind, Objects
from fleetward_operator.kube.rest import RequestError

POLICIES = Kind("ClusterAgentPolicy", f"/apis/{GROUP}/{VERSION}", "clusteragentpolicies")

BAD_POLICY: Body = {
    "apiVersion": API_VERSION,
    "kind": "ClusterAgentPolicy",
    "metadata": {"name": "fleetward-proof"},
    "spec": {
        "rules": [
            {"name": "proof", "match": {"kinds": ["ToolCall"]}, "when": "this does not compile (", "decision": "Deny"}
        ]
    },
}
"""What the API server alone takes and validation has to refuse. It is only ever sent as a dry run."""

_log = logging.getLogger(__name__)


class Proof:
    """Whether validation was seen to refuse, and not seen to fail for `grace` seconds since."""

    def __init__(self, grace: float) -> None:
        self._grace = grace
        self._failing_since: float | None = None
        self.failure_policy: FailurePolicy = "Ignore"
        self.why = "validation has not been tried yet"
        """Why it may not block, or is about not to."""

    def adopt(self, found: Body | None, now: float) -> None:
        """Take over what is in force, such as another leader left it; it has the whole grace to prove itself anew."""
        policies = {each["name"]: each.get("failurePolicy") for each in (found or {}).get("webhooks") or ()}
        if policies.get(RESOURCES_WEBHOOK) == "Fail":
            self.failure_policy, self._failing_since = "Fail", now

    def saw(self, why_not: str, now: float) -> bool:
        """Take in a trial: empty for a refusal as it should be, or what came instead. Says whether anything changes."""
        before, self.why = self.failure_policy, why_not
        if not why_not:
            self.failure_policy, self._failing_since = "Fail", None
        elif self._failing_since is None:
            self._failing_since = now
        elif now - self._failing_since >= self._grace:
            self.failure_policy = "Ignore"
        return self.failure_policy != before

    def failing_for(self, now: float) -> float:
        """Say for how many seconds it has failed."""
        return 0.0 if self._failing_since is None else now - self._failing_since


async def try_validation(objects: Objects) -> str:
    """Ask the API server, as a dry run, to take a policy whose CEL does not compile.

    Empty where our webhook refused it; otherwise what happened. Raises RequestError where it was not even asked.
    """
    try:
        await objects.create(POLICIES, BAD_POLICY, dry_run=True)
    except RequestError as error:
        if error.message.startswith(f'admission webhook "{RESOURCES_WEBHOOK}" denied the request'):
            return ""
        if error.status in {0, 429}:
            raise
        return str(error)
    return "a policy that does not compile was let through"


async def tell(objects: Objects, proof: Proof) -> None:
    """Say in log and Event that validation blocks from now on, or that it does not any more."""
    if proof.failure_policy == "Fail":
        reason, note = "ValidationProven", "Validation refuses what is bad; from now on nothing passes without it"
    else:
        reason = "ValidationNotProven"
        note = f"Validation has failed for long, so resources pass without it until it works again: {proof.why}"
    warning = proof.failure_policy == "Ignore"
    _log.log(logging.WARNING if warning else logging.INFO, "%s", note)
    found = await objects.get(VALIDATING, WEBHOOK_CONFIGURATION)
    await objects.create(
        EVENT,
        {
            "metadata": {"name": f"{WEBHOOK_CONFIGURATION}.{secrets.token_hex(8)}", "namespace": "default"},
            "eventTime": dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "action": "Validate",
            "note": note[:1024],
            "reportingController": f"{GROUP}/{OPERATOR}",
            "reportingInstance": OPERATOR,
            "regarding": {
                "apiVersion": VALIDATING.api_version,
                "kind": VALIDATING.name,
                "name": WEBHOOK_CONFIGURATION,
                "uid": found["metadata"]["uid"] if found else "",
            },
        },
    )
