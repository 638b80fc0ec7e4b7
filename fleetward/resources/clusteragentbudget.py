"""ClusterAgentBudget: what agents of any namespace may use."""

from typing import ClassVar, Literal, Self

from pydantic import model_validator

from fleetward.resources.agentbudget import AgentBudget
from fleetward.resources.base import LabelSelector, ObjectName, Resource, Validation
from fleetward.resources.budget import BudgetSpec, BudgetSubjects, Parent


class ClusterBudgetSubjects(BudgetSubjects):
    """Who shares a cluster budget: all the fields given must hold; empty, every agent."""

    namespace_selector: LabelSelector = LabelSelector()
    """Labels of the agents' namespaces."""


class ClusterParent(Parent):
    """The cluster budget that this one is a part of."""

    kind: Literal["ClusterAgentBudget"]
    """Its kind: a cluster budget is part of no namespace's."""
    name: ObjectName
    """Its name."""


class ClusterBudgetSpec(BudgetSpec):
    """What may be used, by whom in which namespaces, in which time."""

    subjects: ClusterBudgetSubjects = ClusterBudgetSubjects()
    """Who shares it; left out, every agent."""
    parent: ClusterParent | None = None
    """The cluster budget that this one is a part of: what counts here counts there, too, and both must have room."""


class ClusterAgentBudget(Resource):
    """What agents of any namespace may use together, or each: tokens, cost, records, calls, time."""

    SCOPE: ClassVar[Literal["Namespaced", "Cluster"]] = "Cluster"
    PLURAL: ClassVar[str] = "clusteragentbudgets"
    SHORT_NAMES: ClassVar[tuple[str, ...]] = ("cabud",)
    STATUS = AgentBudget.STATUS
    PRINTER_COLUMNS = AgentBudget.PRINTER_COLUMNS
    SELECTABLE_FIELDS = AgentBudget.SELECTABLE_FIELDS
    VALIDATIONS = (
        *Resource.VALIDATIONS,
        Validation(
            "!has(self.spec.parent) || self.spec.parent.name != self.metadata.name",
            "spec.parent is the budget itself; name another one, or leave it out",
            ".spec.parent",
        ),
    )

    kind: Literal["ClusterAgentBudget"]
    spec: ClusterBudgetSpec

    @model_validator(mode="after")
    def _parent_is_another(self) -> Self:
        parent = self.spec.parent
        if parent is not None and parent.name == self.metadata.name:
            raise ValueError("spec.parent is the budget itself; name another one, or leave it out")
        return self
