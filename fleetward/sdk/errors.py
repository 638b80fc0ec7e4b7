"""Why an action may not be run, or its result not be used: every refusal is a `Refused`, and says why."""

from fleetward.decision.action import Answer, RuleRef, Shortfall
from fleetward.delegation.scope import Violation
from fleetward.registry.slice import Decision


class Refused(Exception):  # noqa: N818 - named for what was decided, like its subclasses
    """The action may not be run. `answer` is what the webhook said, where it said anything."""

    decision: Decision = "Deny"

    def __init__(self, reason: str, answer: Answer | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.answer = answer
        if answer is not None:
            self.decision = answer.decision

    def __str__(self) -> str:
        return f"{self.decision}: {self.reason}"

    @property
    def rules(self) -> tuple[RuleRef, ...]:
        """The rules that counted."""
        return () if self.answer is None else self.answer.rules

    @property
    def violations(self) -> tuple[Violation, ...]:
        """Where the action, plan or scope goes beyond the run's mandate or the grant: what, found, allowed, by what."""
        return () if self.answer is None else self.answer.violations

    @property
    def shortfall(self) -> Shortfall | None:
        """The budget, or the throttled rule, that has no room for the action: what is needed, left, and until when."""
        return None if self.answer is None else self.answer.shortfall


class Denied(Refused):
    """A rule, a default, a mode, an agent's own limits, the run's mandate, the grant or a budget deny the action."""


class ApprovalRequired(Refused):
    """The action is held until somebody approves it."""

    decision: Decision = "RequireApproval"


class Throttled(Refused):
    """The action, or asking for it, may be tried again after `retry_after_seconds`."""

    decision: Decision = "Throttle"

    def __init__(self, reason: str, answer: Answer | None = None, retry_after_seconds: int = 1) -> None:
        super().__init__(reason, answer)
        self.retry_after_seconds = retry_after_seconds
        if answer is not None and answer.retry_after_seconds is not None:
            self.retry_after_seconds = answer.retry_after_seconds


class OutcomeRefused(Refused):
    """The action must stop, or its result may not be used."""


class Unavailable(Refused):
    """The webhook is not there, may not decide at present, or gave no answer that makes sense: that denies, too."""


class InvalidAction(Refused, ValueError):  # noqa: N818 - as above
    """The action cannot be asked for as described; `field` says where, such as `arguments.when`."""

    def __init__(self, reason: str, field: str = "") -> None:
        super().__init__(f"{field}: {reason}" if field and not reason.startswith(field) else reason)
        self.field = field
