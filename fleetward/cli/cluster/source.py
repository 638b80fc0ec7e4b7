"""A cluster as the source of a command."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleetward.cli.change import Change, Standing, Wanted
from fleetward.cli.cluster.content import Content, read_cluster
from fleetward.cli.cluster.kubectl import Kubectl
from fleetward.cli.output import CliError
from fleetward.cli.records import Records
from fleetward.resources.names import SYSTEM_NAMESPACE

if TYPE_CHECKING:
    from fleetward.cli.budgets.read import Budgets
    from fleetward.cli.cluster.hub import HubRecords

COMPLETION_SECONDS = 2


@dataclass(frozen=True)
class HubPlace:
    """Where the hub is, as far as the user says."""

    url: str | None = None
    ca_file: str | None = None
    system_namespace: str | None = None


@dataclass(frozen=True)
class ClusterSource:
    """The custom resources of a cluster, of one namespace or all, and the records of its hubs."""

    kubectl: Kubectl
    namespace: str | None = None
    hub: HubPlace = HubPlace()

    def read(self, *, references: bool = False) -> Content:
        """Read the resources; see `read_cluster`."""
        return read_cluster(self.kubectl, self.namespace, references=references)

    def names(self, kind: str) -> list[str]:
        """Give the keys of a kind, or nothing where the cluster does not give them at once."""
        from fleetward.cli.cluster.mode import names  # noqa: PLC0415 - loaded where it is used

        try:
            return names(self.kubectl, kind, self.namespace, COMPLETION_SECONDS)
        except CliError:
            return []

    def set_mode(self, wanted: Wanted) -> Change:
        """Patch an operating mode. Raises KubectlError, CliError."""
        from fleetward.cli.cluster.mode import set_mode  # noqa: PLC0415 - as above

        return set_mode(self.kubectl, self.namespace, wanted)

    def wait(self, change: Change, seconds: float, tell: Callable[[str], None]) -> Standing:
        """Wait until the operator says that a change is in force."""
        from fleetward.cli.cluster.waiting import wait_until_in_force  # noqa: PLC0415 - as above

        return wait_until_in_force(self.kubectl, change, seconds, tell)

    def records(self) -> AbstractContextManager[Records]:
        """Reach the hub. CliError where that cannot be done."""
        return self._hub(self.namespace)

    @contextlib.contextmanager
    def budgets(self) -> "Iterator[Budgets]":
        """Reach the hub. CliError where that cannot be done."""
        from fleetward.cli.cluster.hubbudgets import HubBudgets  # noqa: PLC0415 - as above

        # Whoever shares a budget may be in any namespace.
        with self._hub(None) as records:
            yield HubBudgets(records, self.kubectl, self.namespace)

    def _hub(self, namespace: str | None) -> "AbstractContextManager[HubRecords]":
        from fleetward.cli.cluster.hub import open_hub  # noqa: PLC0415 - as above

        system = self.hub.system_namespace or SYSTEM_NAMESPACE
        return open_hub(self.kubectl, system, self.hub.url, self.hub.ca_file, namespace)
