"""AgentBudget: what the agents of one namespace may use."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from fleetward.resources.base import AGE, READY, REASON, WHY, Resource, Validation, column
from fleetward.resources.budget import BudgetSpec
from fleetward.resources.status import AgentBudgetStatus


class AgentBudget(Resource):
    """What the agents of one namespace may use together, or each: tokens, cost, records, calls, time."""

    PLURAL: ClassVar[str] = "agentbudgets"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("abud",)
    STATUS = AgentBudgetStatus
    PRINTER_COLUMNS = (
        READY,
        column("Scope", ".spec.scope"),
        column("Used", ".status.used"),
        column("Spent", ".status.spent"),
        column("Resets", ".status.resetsAt"),
        column("Paused", ".status.paused", "integer"),
        column("Window", ".status.window", wide=True),
        column("Pots", ".status.pots", "integer", wide=True),
        column("Agents", ".status.agents", "integer", wide=True),
        column("Generation", ".metadata.generation", "integer", wide=True),
        column("In force", ".status.generationInForce", "integer", wide=True),
        REASON,
        AGE,
        WHY,
    )
    SELECTABLE_FIELDS = (".spec.scope",)
    VALIDATIONS = (
        *Resource.VALIDATIONS,
        Validation(
            "!has(self.spec.parent) || self.spec.parent.kind != 'AgentBudget' || "
            "self.spec.parent.name != self.metadata.name",
            "spec.parent is the budget itself; name another one, or leave it out",
            ".spec.parent",
        ),
    )

    kind: Literal["AgentBudget"]
    spec: BudgetSpec

    @model_validator(mode="after")
    def _parent_is_another(self) -> Self:
        parent = self.spec.parent
        if parent is not None and (parent.kind, parent.name) == (self.kind, self.metadata.name):
            raise ValueError("spec.parent is the budget itself; name another one, or leave it out")
        return self
