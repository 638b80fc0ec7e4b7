"""What is kept of one run."""

from dataclasses import dataclass

from fleetward.delegation.grant import Grant
from fleetward.delegation.scope import MAX_DEPTH, Amounts, Scope
from fleetward.run.amounts import Account, Six, limits_of, tighter
from fleetward.run.bounds import Bounds
from fleetward.run.events import RunOpened
from fleetward.run.history import Actions, Latest, Mark, Marks, Turns, fingerprint
from fleetward.run.labels import Labels
from fleetward.run.mandate import Mandate

MAX_INCOMING = 64
"""Messages to an agent that nobody settled; where there are more, their labels stay."""


class Member:
    """An agent of a run: it opened the run, or was given a grant."""

    __slots__ = ("above", "acts", "claims", "granted_until", "incoming", "key", "labels", "print")

    def __init__(self, key: str) -> None:
        self.key = key
        self.print = fingerprint(key)
        self.labels = 0
        """As bits of the run's labels."""
        self.incoming: dict[int, int] = {}
        """Labels of messages to it, and of its own results, that may be on their way, by the action's number."""
        self.acts = 0
        """Its actions that went ahead, or are reserved."""
        self.claims = 0
        """What makes it count as an agent of the run: its actions, and grants to it, given or proposed."""
        self.above: set[str] = set()
        """Who handed it work, all the way up."""
        self.granted_until = 0.0
        """When its last grant expires."""

    @property
    def reached_by(self) -> int:
        """All labels that reached it, or may have."""
        labels = self.labels
        for more in self.incoming.values():
            labels |= more
        return labels

    def had_at(self, seq: int) -> int:
        """All labels that reached it, or may have, but by the action of that number."""
        labels = self.labels
        for number, more in self.incoming.items():
            if number != seq:
                labels |= more
        return labels

    def expect(self, seq: int, labels: int) -> None:
        """Note a message to it, or a result, that may be on its way."""
        if labels:
            self.incoming[seq] = self.incoming.get(seq, 0) | labels
        if len(self.incoming) > MAX_INCOMING:
            self.labels = self.reached_by
            self.incoming.clear()


class Holding:
    """A grant in a run, given or still only proposed."""

    __slots__ = ("accounts", "begun", "chain", "given", "grant", "labels", "seq", "webhook")

    def __init__(
        self, grant: Grant, *, seq: int, webhook: str, labels: int, mandate: Account, under: "Holding | None"
    ) -> None:
        above: tuple[Account, ...] = under.accounts if under else ()
        self.grant = grant
        self.chain: tuple[str, ...] = (*under.chain, grant.id) if under else (grant.id,)
        """The ids of the grants by which the work comes down to its holder, the first one first."""
        self.seq = seq
        """Of its delegation."""
        self.webhook = webhook
        """Through which it was proposed."""
        self.labels = labels
        self.given = False
        self.begun = False
        """Whether its holder has used it, and so has its labels."""
        own = Account(self.by, tighter(grant.scope.limits, (mandate, *above)))
        self.accounts: tuple[Account, ...] = (own, *above) if own.limits else above
        """What is charged for actions under it besides the run: the grants, from it up, with limits of their own."""

    @property
    def by(self) -> str:
        """As in `Violation.by`."""
        return f"grant {self.grant.id}"


@dataclass(slots=True)
class Reservation:
    """An action that was taken up."""

    agent: str
    holding: Holding | None
    amounts: Six
    webhook: str
    kind: str
    name: str
    target: str | None
    turns_to: str | None = None
    settled: bool | None = None
    """Whether it went ahead; None: nobody has said so."""
    ended: bool = False
    """Whether `amounts` is what it really used."""
    labels: int = 0
    """What was learned from it so far; saying so again changes nothing."""
    cleansed: int = 0
    marks: tuple[Mark, Mark] | None = None
    """In the history of the run, and of all runs."""
    proposed: Holding | None = None


class Run:
    """A run that has not ended."""

    def __init__(self, number: int, opened: RunOpened, bounds: Bounds) -> None:
        self.number = number
        """Stands for the run in the journal."""
        self.id = opened.id
        self.opener = opened.agent
        self.mandate = opened.mandate
        self.cause = ""
        self.opened_at = opened.at
        self.expires_at = opened.at + opened.mandate.expires_in_seconds
        self.scope = scope_of(opened.mandate)
        self.max_depth = MAX_DEPTH if opened.mandate.limits.depth is None else opened.mandate.limits.depth
        self.account = Account("mandate", limits_of(self.scope.limits))
        self.members = {opened.agent: Member(opened.agent)}
        self.members[opened.agent].claims = 1
        self.agents = 1
        """How many members have a claim."""
        self.acted: tuple[str, ...] = ()
        """Who has acted, in order; made anew when that changes."""
        self.holdings: dict[str, Holding] = {}
        self.depth = 0
        self.last_seq = 0
        self.reservations: Latest[int, Reservation] = Latest(bounds.reservations)
        self.labels = Labels(bounds.labels)
        self.actions = Actions(bounds.actions)
        self.turns = Turns()
        self.marks = Marks(bounds.marks, bounds.marks_of_target)

    def claim(self, agent: str) -> Member:
        """Give the agent as a member, which counts from now on."""
        member = self.members.get(agent)
        if member is None:
            member = self.members[agent] = Member(agent)
        self.agents += not member.claims
        member.claims += 1
        return member

    def unclaim(self, member: Member) -> None:
        """Take one claim back."""
        member.claims -= 1
        self.agents -= not member.claims
        if not member.claims and not member.reached_by:
            del self.members[member.key]

    def count_act(self, member: Member, change: int) -> None:
        """Count an action of a member, or take one back."""
        had = member.acts > 0
        member.acts += change
        if had != (member.acts > 0):
            self.acted = tuple(sorted(key for key, each in self.members.items() if each.acts))

    def charge(self, holding: Holding | None, amounts: Six) -> None:
        """Charge an action to the run, to its grant and to every grant above."""
        self.account.charge(amounts)
        if holding:
            for account in holding.accounts:
                account.charge(amounts)

    def recharge(self, holding: Holding | None, old: Six, new: Six) -> None:
        """Charge `new` instead of `old`."""
        self.account.replace(old, new)
        if holding:
            for account in holding.accounts:
                account.replace(old, new)

    def knows(self, labels: tuple[str, ...], bits: int) -> bool:
        """Say whether the labels are among `bits`, or there is no room to note them."""
        return self.labels.overflowed or all(self.labels.known_bits((name,)) & bits for name in labels)

    def has_learned(self, taken: Reservation, labels: tuple[str, ...], cleansed: tuple[str, ...]) -> bool:
        """Say whether that was all learned from the action before."""
        return self.knows(labels, taken.labels) and not self.labels.known_bits(cleansed) & ~taken.cleansed

    def path(self, holding: Holding | None) -> tuple[str, ...]:
        """Give who handed the work down."""
        return holding.grant.path if holding else ()

    def grants(self, holding: Holding | None) -> tuple[str, ...]:
        """Give the ids of the grants by which the work came down, the first one first."""
        return holding.chain if holding else ()

    def state(self) -> object:
        """Give all that is kept, to compare it with another book's."""
        return {
            "id": (self.number, self.id, self.opener, self.mandate, self.cause, self.opened_at),
            "used": self.account.used,
            "members": {
                m.key: (self.labels.names(m.labels), m.incoming, m.above, m.acts, m.claims, m.granted_until)
                for m in self._members
            },
            "agents": (self.agents, self.acted, self.depth, self.last_seq, self.labels.overflowed),
            "holdings": {
                key: (each.grant, each.given, each.begun, [account.used for account in each.accounts])
                for key, each in self.holdings.items()
            },
            "reservations": {
                seq: (r.agent, r.amounts, r.webhook, r.settled, r.ended, r.labels, r.cleansed)
                for seq, r in self.reservations.items().items()
            },
            "history": (self.actions.state(), self.turns.state()),
            "marks": {target: self.marks.on(target) for target in self.marks.targets()},
        }

    @property
    def _members(self) -> list[Member]:
        return list(self.members.values())


@dataclass(frozen=True, slots=True)
class EndedRun:
    """What is remembered of a run that is over."""

    number: int
    id: str
    opener: str
    expired: bool
    """Whether its time ended it; otherwise it was closed."""
    mandate: Mandate
    at: float


def scope_of(mandate: Mandate) -> Scope:
    """Give the scope of whoever opens a run with the mandate; `limits` without those that are not amounts."""
    limits = mandate.limits
    return Scope(
        data_classes=mandate.data_classes,
        targets=mandate.targets,
        depth=limits.depth,
        limits=Amounts(
            limits.steps,
            limits.calls,
            limits.records,
            limits.input_tokens,
            limits.output_tokens,
            limits.cost_micro_usd,
        ),
    )
