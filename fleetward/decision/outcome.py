"""Constraints on an action that is allowed: worked out with the decision, checked in its outcome."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import msgspec

from fleetward.decision.action import OutcomeRequest
from fleetward.decision.canonical import CanonicalError, digest
from fleetward.decision.evaluation import Evaluation, OpenDecision
from fleetward.decision.judgement import Judgement
from fleetward.decision.obligations import ObligationError, apply_to_arguments, concern, unmet


def constrain(evaluation: Evaluation) -> None:
    """Work out the arguments the action must be run with; where that cannot be, deny."""
    action = evaluation.request.action
    if action.arguments is None and action.arguments_digest is not None:
        fields = ", ".join(o.field for o in evaluation.judgement.obligations)
        evaluation.judgement = evaluation.judgement.refused(
            f"the action is allowed only with {fields} constrained, which needs the arguments, not just their digest"
        )
        return
    try:
        held = apply_to_arguments(action.arguments or {}, evaluation.judgement.obligations)
        evaluation.expected_digest = digest(held, "arguments")
    except (ObligationError, CanonicalError) as error:
        evaluation.judgement = evaluation.judgement.refused(f"an obligation cannot be carried out: {error}")


def settle(opened: OpenDecision, outcome: OutcomeRequest, judgement: Judgement) -> Judgement:
    """Check, before an agent is told to use a result, that every obligation was carried out.

    Obligations that only the outcome brought are asked for once: the client redacts and reports again.
    """
    if (missing := _unmet(opened, outcome)) is not None:
        return judgement.refused(missing)
    if judgement.decision != "Constrain":
        return judgement
    if outcome.result is msgspec.UNSET:
        return judgement.refused("the result must be sent, as obligations concern it")
    if not unmet(outcome.result, judgement.obligations):
        return replace(judgement, decision="Allow", obligations=())
    opened.obligations = (*opened.obligations, *judgement.obligations)
    return judgement


def _unmet(opened: OpenDecision, outcome: OutcomeRequest) -> str | None:
    """Say which obligation was not carried out, if any."""
    if opened.expected_digest is not None and outcome.arguments_digest != opened.expected_digest:
        said = outcome.arguments_digest or "no argumentsDigest"
        fields = ", ".join(o.field for o in opened.obligations if o.field.startswith("arguments."))
        return f"the action had to be run with {fields} constrained (digest {opened.expected_digest}), found {said}"
    if concern(opened.obligations, "result"):
        if outcome.result is msgspec.UNSET:
            return "the result must be sent, as obligations concern it"
        if fields := ", ".join(unmet(outcome.result, opened.obligations)):
            return f"the result still holds what had to be redacted: {fields}"
    return None


def outcome_variables(outcome: OutcomeRequest, labels: Collection[str] = ()) -> dict[str, Any]:
    """Give what expressions read of an outcome, whose result is known to carry `labels`; absent fields are left out."""
    variables: dict[str, Any] = {
        "status": outcome.status,
        "actual": {} if outcome.actual is None else msgspec.to_builtins(outcome.actual),
        "labels": [*outcome.labels, *(label for label in sorted(labels) if label not in outcome.labels)],
    }
    if outcome.result is not msgspec.UNSET:
        variables["result"] = outcome.result
    if outcome.error is not None:
        variables["error"] = outcome.error
    return variables
