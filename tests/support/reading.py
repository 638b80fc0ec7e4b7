"""Statuses of a view that is fed by hand, worked out one after the other."""

from datetime import UTC, datetime, timedelta

from support.clusterview import Body, View
from support.kstatus import check_status, kstatus

from fleetward.registry.slice import OperatingMode
from fleetward_operator.status.compute import Computer

NOW = datetime(2026, 3, 1, 10, tzinfo=UTC)


class Reading:
    """Statuses of one view over time."""

    def __init__(self, *bodies: Body) -> None:
        self.view = View()
        self.clock = 0.0
        self.recorded: dict[str, OperatingMode] = {}
        self.computer = Computer(self.view, clock=lambda: self.clock, recorded_mode=self.recorded.get)
        self.view.see(*bodies)

    def status(self, key: str = "reports/alpha", previous: Body | None = None, kind: str = "Agent") -> Body:
        self.computer.follow()
        observed = self.view.observed[kind, key]
        status = self.computer.status(observed, previous or {}, NOW + timedelta(seconds=self.clock))
        check_status(kind, status)
        self.state = kstatus(observed.generation, status)
        ready = status["conditions"][0]
        self.ready, self.reason, self.message = ready["status"], ready["reason"], ready["message"]
        self.beside = [c["type"] for c in status["conditions"][1:]]
        return status
