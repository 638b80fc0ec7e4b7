"""Having questions of decision webhooks answered."""

from collections.abc import Callable, Collection
from typing import Protocol

from fleetward.budget import calls as budget_calls
from fleetward.registry.registry import Registry
from fleetward.run import calls as run_calls
from fleetward.stream import messages

RunAnswer = Callable[[run_calls.Reply], None]
BudgetAnswer = Callable[[budget_calls.Reply], None]


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


class AsksBudgets(Protocol):
    """Whoever has questions about budgets answered; see `budgets.Budgets`."""

    def ask(
        self, request: budget_calls.Request, *, webhook: str, agents: Collection[str], answer: BudgetAnswer
    ) -> None:
        """Have a question of a webhook that serves `agents` answered."""
