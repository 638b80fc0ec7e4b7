"""The budgets of a cluster: how they stand its hub says, what they are its resources."""

from collections.abc import Mapping
from functools import cached_property

from msgspec.structs import replace

from fleetward.budget.report import BudgetsReport
from fleetward.cli.cluster.content import read_cluster
from fleetward.cli.cluster.hub import HubRecords
from fleetward.cli.cluster.kubectl import Kubectl, KubectlError
from fleetward.cli.output import note, printable
from fleetward.registry.slice import Budget

KINDS = ("AgentBudget", "ClusterAgentBudget")


class HubBudgets:
    """See `fleetward.cli.budgets.read.Budgets`. With a namespace, its budgets and those of the cluster."""

    def __init__(self, records: HubRecords, kubectl: Kubectl, namespace: str | None) -> None:
        self.records = records
        self.where = "the hub of the cluster"
        self._kubectl = kubectl
        self._namespace = namespace

    def report(self) -> BudgetsReport:
        """Ask the hub."""
        report = self.records.budgets()
        return replace(report, pots=tuple(pot for pot in report.pots if self._is_asked_for(pot.budget)))

    @cached_property
    def known(self) -> Mapping[str, Budget]:
        """The resources; none where they may not be read, and then that is told."""
        try:
            content = read_cluster(self._kubectl, self._namespace, KINDS)
        except KubectlError as error:
            note(printable(f"note: the budgets themselves cannot be read: {error.message}"), style="yellow")
            return {}
        return dict(content.registry.budgets.items())

    def _is_asked_for(self, budget: str) -> bool:
        kind, _, name = budget.partition("/")
        inside = name.partition("/")[0]
        return self._namespace is None or kind.startswith("Cluster") or inside == self._namespace
