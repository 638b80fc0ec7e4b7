"""Having questions about runs answered."""

from collections.abc import Callable, Collection
from typing import Protocol

from fleetward.registry.registry import Registry
from fleetward.run import calls


class Asks(Protocol):
    """Whoever has questions about runs answered: the hub for its links, a desk for the hub."""

    def ask(
        self,
        request: calls.Request,
        *,
        webhook: str,
        agents: Collection[str],
        registry: Registry,
        answer: Callable[[calls.Reply], None],
    ) -> None:
        """Have a question of a webhook that serves `agents` answered."""
