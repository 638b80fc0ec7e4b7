"""A binding that proves who connects, as one for Kubernetes does: by tokens that the test hands out."""

from collections.abc import Collection

from fleetward.registry.registry import Registry


class Gate:
    """Lets workloads in by their tokens. Unless told otherwise, each serves the agent of its own name."""

    def __init__(self) -> None:
        self.tokens: dict[str, str] = {}
        """Workload by token."""
        self.serves: dict[str, list[str]] = {}
        """Agents by workload."""
        self.gone: dict[str, Exception] = {}
        """What asking for a workload's agents raises."""
        self.asked: list[str | None] = []
        """Every token that was presented."""
        self.unavailable: Exception | None = None

    async def authenticate(self, workload: str, token: str | None) -> None:
        self.asked.append(token)
        if self.unavailable is not None:
            raise self.unavailable
        if self.tokens.get(token or "") != workload:
            raise PermissionError(f"the token is not workload {workload}'s")

    def agents(self, workload: str, registry: Registry) -> Collection[str]:  # noqa: ARG002 - as bindings have it
        if (error := self.gone.get(workload)) is not None:
            raise error
        return self.serves.get(workload, [f"reports/{workload}"])
