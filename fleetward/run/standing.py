"""Standing: whether an agent may act in a run at all, and every reason why it may not, in words."""

from dataclasses import dataclass
from typing import NoReturn

from fleetward.delegation.scope import Scope, Violation
from fleetward.run.ledger import Ledger
from fleetward.run.state import EndedRun, Holding, Member, Reservation, Run


@dataclass(frozen=True, slots=True)
class Place:
    """Where an agent stands that may act in a run."""

    run: Run
    member: Member
    holding: Holding | None
    """The grant it acts under; None: it opened the run."""

    @property
    def scope(self) -> tuple[str, Scope] | None:
        """The scope of that grant, after the grant's name as in `Violation.by`."""
        return (self.holding.by, self.holding.grant.scope) if self.holding else None


class Refusal(Exception):  # noqa: N818 - an answer, not a failure
    """What was asked is not allowed, whatever the rules say; with `place`, the agent may know of the run."""

    def __init__(
        self,
        reason: str,
        violations: tuple[Violation, ...] = (),
        place: Place | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.violations = violations
        self.place = place


class TooLongAgoError(Refusal):
    """An action of a run is no longer known by itself."""

    def __init__(self, run: Run, seq: int) -> None:
        super().__init__(f"action {seq} of run {run.id} is too long ago: what it reserved stands")
        self.run = run


def go_beyond(what: str, violations: tuple[Violation, ...], place: Place) -> NoReturn:
    """Refuse what goes beyond what was authorised."""
    said = "; ".join(in_words(violation) for violation in violations)
    raise Refusal(f"{what} goes beyond what was authorised: {said}", violations, place)


def in_words(violation: Violation) -> str:
    """Say a violation: where, what was found, what was allowed, and who says so."""
    where = f"step {violation.step}" if violation.step is not None else violation.total
    by = f" by {violation.by}" if violation.by else ""
    return f"{where}: found {violation.found}, allowed{by} {violation.allowed}"


def open_run(ledger: Ledger, run: str, now: float) -> Run:
    """Give a run that is open. Raises Refusal."""
    found = ledger.runs.get(run)
    if found is None:
        ended = ledger.ended.get(run)
        if ended is None:
            raise Refusal(f"run {run} is unknown: it was never opened here, or ended long ago")
        raise Refusal(_over(ended.id, ended.opener, ended.mandate.expires_in_seconds, expired=ended.expired))
    if now >= found.expires_at:
        raise Refusal(_over(found.id, found.opener, found.mandate.expires_in_seconds, expired=True))
    return found


def remembered(ledger: Ledger, run: str) -> Run | EndedRun:
    """Give a run, also one that ended a while ago. Raises Refusal."""
    found = ledger.runs.get(run) or ledger.ended.get(run)
    if found is None:
        raise Refusal(f"run {run} is unknown: it was never opened here, or ended long ago")
    return found


def standing(ledger: Ledger, run: str, agent: str, grant: str | None, now: float) -> Place:
    """Give where the agent stands in the run, under the grant it names. Raises Refusal."""
    found = open_run(ledger, run, now)
    holding = None if grant is None else _held(ledger, found, agent, grant, now)
    member = found.members.get(agent)
    if member is None or (holding is None and agent != found.opener):
        held = [key for key, each in found.holdings.items() if each.given and each.grant.to == agent]
        if held:
            raise Refusal(f"agent {agent} did not open run {run}, and says no grant; it holds {_some(held)}")
        raise Refusal(f"agent {agent} neither opened run {run} nor holds a grant of it; {found.opener} opened it")
    if found.labels.overflowed:
        raise Refusal(f"run {run} has met more different labels than are kept, so they can no longer be followed")
    return Place(found, member, holding)


def taken_up(
    ledger: Ledger, run: str, seq: int, webhook: str, agent: str | None = None
) -> tuple[Run, Reservation] | None:
    """Give the action that a webhook speaks of; None where its run is over. Raises Refusal."""
    found = remembered(ledger, run)
    if isinstance(found, EndedRun):
        return None
    taken = found.reservations.get(seq)
    if taken is None:
        if 0 < seq <= found.last_seq:
            raise TooLongAgoError(found, seq)
        raise Refusal(f"run {run} has no action {seq}")
    if taken.webhook != webhook:
        raise Refusal(f"action {seq} of run {run} was taken up through another decision webhook")
    if agent is not None and taken.agent != agent:
        raise Refusal(f"action {seq} of run {run} is one of {taken.agent}, not of {agent}")
    return found, taken


def proposed(ledger: Ledger, run: str, grant: str, now: float, webhook: str) -> tuple[Run, Holding]:
    """Give a grant that may be given. Raises Refusal."""
    found = open_run(ledger, run, now)
    holding = found.holdings.get(grant)
    if holding is None:
        raise Refusal(f"grant {grant} is not proposed in run {run}, or its delegation was denied")
    if holding.webhook != webhook:
        raise Refusal(f"grant {grant} was proposed through another decision webhook")
    if now >= holding.grant.expires_at:
        raise Refusal(f"grant {grant} expired before it was given")
    return found, holding


def _held(ledger: Ledger, run: Run, agent: str, grant: str, now: float) -> Holding:
    holding = run.holdings.get(grant)
    if holding is None:
        other = ledger.of_grant.get(grant)
        if other:
            raise Refusal(f"grant {grant} is of another run, not of run {run.id}")
        raise Refusal(f"grant {grant} is unknown in run {run.id}: it was never given, or its run ended")
    if holding.grant.to != agent:
        raise Refusal(f"grant {grant} is for agent {holding.grant.to}, not for {agent}")
    if not holding.given:
        raise Refusal(f"grant {grant} was proposed, and not given: its delegation is not decided")
    if now >= holding.grant.expires_at:
        late = int(now) - holding.grant.expires_at
        raise Refusal(f"grant {grant} expired {late} s ago, by the clock of the hub")
    return holding


def _over(run: str, opener: str, seconds: int, *, expired: bool) -> str:
    if expired:
        return f"run {run} has expired: its mandate gave it {seconds} s (expiresInSeconds); its grants ended with it"
    return f"run {run} is closed: {opener}, which opened it, closed it; its grants ended with it"


def _some(grants: list[str]) -> str:
    shown = ", ".join(grants[:3])
    return f"{shown} and {len(grants) - 3} more" if len(grants) > 3 else shown
