"""Having questions of decision webhooks answered."""

from collections.abc import Callable, Collection
from typing import Protocol

from fleetward.registry.registry import Registry
from fleetward.stream import messages


class Asks(Protocol):
    """Whoever has questions answered: the hub for its links."""

    def ask(
        self,
        request: messages.Request,
        *,
        webhook: str,
        agents: Collection[str],
        registry: Registry,
        answer: Callable[[messages.AnyReply], None],
    ) -> None:
        """Have a question of a webhook that serves `agents` answered."""
