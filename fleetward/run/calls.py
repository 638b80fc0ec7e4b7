"""What a decision webhook and the hub say to each other about runs, over the stream.

The hub keeps what a run has done so far, once for all webhooks. A webhook asks before each action of a run (`Step`),
which reserves what the action may use, and says afterwards whether it went ahead (`Settle`).
"""

from typing import Annotated

from msgspec import Meta

from fleetward.decision.action import Action
from fleetward.decision.replies import Done, Failed
from fleetward.delegation.grant import Grant
from fleetward.delegation.scope import Amounts, AskedScope, Violation
from fleetward.registry.slice import ActionKind, Agent, Wire
from fleetward.registry.text import AgentKey, Reference
from fleetward.run.mandate import Mandate

MAX_PLAN_STEPS = 1000

StepId = Annotated[str, Meta(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z")]


class PlanStep(Wire, frozen=True, kw_only=True):
    """One step of a plan: who is to do what, and after which other steps."""

    id: StepId
    agent: AgentKey
    action: Action
    depends_on: Annotated[tuple[StepId, ...], Meta(max_length=MAX_PLAN_STEPS)] = ()


def recipient(kind: ActionKind, agent: str, target: str | None) -> str | None:
    """Give the agent that a message to `target` goes to, if to any: a name alone is of the sender's namespace."""
    if kind != "Message" or target is None:
        return None
    return target if "/" in target else f"{agent.partition('/')[0]}/{target}"


class View(Wire, frozen=True, kw_only=True):
    """What a run looked like to an action at the moment it was taken up: what rules read as `run`."""

    run: str
    requester: str
    purpose: str
    opened_by: str
    cause: str = ""
    """The id of the decision or of the opening that authorised the agent to act here."""
    path: tuple[str, ...] = ()
    """Who handed the work down to the agent, the agent that opened the run first."""
    grants: tuple[str, ...] = ()
    """The ids of the grants by which it came down, the first one first; as many as `path` has agents."""
    labels: tuple[str, ...] = ()
    """Provenance labels of whatever reached the agent in this run, and was not cleansed."""
    used: Amounts = Amounts()
    """What the run has used and reserved so far, without this action."""
    agents: tuple[str, ...] = ()
    """Who has acted in the run."""
    depth: int = 0
    """The longest chain in the run so far."""
    age_seconds: int = 0
    repeats: int = 0
    """How often this agent asked for the very same action (kind, name, target, arguments) before."""
    idle_steps: int = 0
    """How many actions in a row, of all agents of the run, were nothing the run had not seen before."""
    exchanges: int = 0
    """How often this agent and the one it now turns to have turned to each other in a row, with nobody else between."""
    on_target: dict[str, tuple[str, ...]] = {}
    """Who did what on this action's target in the run: agents by action name."""
    recent_on_target: dict[str, tuple[str, ...]] = {}
    """The same, in any run, within the last hour."""


class OpenRun(Wire, frozen=True, tag=True):
    """A run begins. Answered by Opened."""

    agent: AgentKey
    mandate: Mandate


class Recorded(Wire, frozen=True, tag=True):
    """The opening of a run is on record: that record is what authorises its opener. Answered by Done."""

    run: str
    agent: AgentKey
    cause: str
    """The id of the record."""


class CloseRun(Wire, frozen=True, tag=True):
    """A run is over, and its grants with it; only the agent that opened it may say so. Answered by Done."""

    run: str
    agent: AgentKey


class Step(Wire, frozen=True, tag=True):
    """An action of a run is about to be decided. Answered by Taken."""

    run: Reference
    agent: AgentKey
    kind: ActionKind
    name: str
    grant: str | None = None
    """The id of the grant that the agent acts under; None: it opened the run."""
    digest: str | None = None
    """Of the arguments."""
    target: str | None = None
    """What is known of it; what the agent declares does not make history."""
    turns_to: str | None = None
    """Of a message: whom it goes to, also if the agent only says so: labels go along."""
    data_classes: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    """What the agent declares of this action; like all labels they stay with the agent from now on."""
    brings: tuple[str, ...] = ()
    """What an ActionCatalog says of its result: the agent has these once the action goes ahead."""
    amounts: Amounts = Amounts()
    """What the action may use; a step more is understood."""


class Settle(Wire, frozen=True, tag=True):
    """Whether an action that was taken up goes ahead. Answered by Done, which nobody waits for."""

    run: str
    seq: int
    allowed: bool


class Learn(Wire, frozen=True, tag=True):
    """What came of an action: labels on its result, labels it cleansed, what it really used. Answered by Done."""

    run: str
    agent: AgentKey
    seq: int
    labels: tuple[str, ...] = ()
    cleansed: tuple[str, ...] = ()
    actual: Amounts | None = None
    """None: what was reserved stands. Only where the action has ended."""


class Propose(Wire, frozen=True, tag=True):
    """A delegation is about to be decided. Answered by Proposed."""

    run: Reference
    agent: AgentKey
    to: AgentKey
    scope: AskedScope = AskedScope()
    grant: str | None = None
    labels: tuple[str, ...] = ()


class Issue(Wire, frozen=True, tag=True):
    """A proposed delegation was allowed. Answered by Issued."""

    run: str
    grant: str
    """The id that Proposed gave."""
    cause: str
    """The id of the decision."""


class CheckPlan(Wire, frozen=True, tag=True):
    """A plan is about to be decided. Answered by PlanChecked."""

    run: Reference
    agent: AgentKey
    steps: Annotated[tuple[PlanStep, ...], Meta(max_length=MAX_PLAN_STEPS)]
    grant: str | None = None
    labels: tuple[str, ...] = ()


Request = OpenRun | Recorded | CloseRun | Step | Settle | Learn | Propose | Issue | CheckPlan


class Opened(Wire, frozen=True, tag=True):
    """The run is open."""

    run: str


class Taken(Wire, frozen=True, tag=True):
    """The action stays within mandate and grant, and is counted until it is settled."""

    seq: int
    """The reservation's number within the run."""
    view: View
    to: Agent | None = None
    """Of a message: the agent that it goes to, where it goes to one."""


class Proposed(Wire, frozen=True, tag=True):
    """The delegation would be within mandate and grant."""

    seq: int
    view: View
    grant: Grant
    """As it would be given."""
    to: Agent
    """The agent it would go to."""


class Issued(Wire, frozen=True, tag=True):
    """The signed grant."""

    token: str


class PlanTotals(Wire, frozen=True, kw_only=True):
    """A plan as a whole: what rules read as `plan`."""

    steps: int
    agents: tuple[str, ...]
    fan_out: int
    """The most steps that wait for one and the same step, or for none."""
    depth: int
    """The longest chain of steps that wait for each other."""
    data_classes: tuple[str, ...]
    targets: tuple[str, ...]
    amounts: Amounts


class PlanChecked(Wire, frozen=True, tag=True):
    """What the plan's steps come to, and where they go too far."""

    seq: int
    view: View
    totals: PlanTotals
    violations: tuple[Violation, ...] = ()
    held: tuple[str, ...] = ()
    """Steps that will need approval, or will be throttled, when their time comes; in words."""


class NotAllowed(Wire, frozen=True, tag=True):
    """The answer is Deny, whatever the rules say."""

    reason: str
    violations: tuple[Violation, ...] = ()
    view: View | None = None
    """What the run looked like, where the agent may know."""


Reply = Opened | Done | Taken | Proposed | Issued | PlanChecked | NotAllowed | Failed
