"""Events about budgets: thresholds passed, agents paused and resumed, more used than was reserved."""

from collections.abc import Callable, Mapping

from fleetward.budget.news import News
from fleetward_operator.kube.events import EventPoster, EventType, about
from fleetward_operator.view.observed import Observed

_TYPES: dict[str, EventType] = {"Resumed": "Normal"}
"""All others are warnings."""

_REASONS = {
    "Threshold": "BudgetThreshold",
    "Paused": "BudgetPaused",
    "Resumed": "BudgetResumed",
    "SettledAtEstimate": "BudgetSettledAtEstimate",
    "Overshoot": "BudgetOvershoot",
    "Forfeited": "BudgetForfeited",
}


class BudgetNews:
    """Tells of what happened to a budget in an Event on it. Each is told by the replica that put it on record."""

    def __init__(self, events: EventPoster, observed: Callable[[], Mapping[tuple[str, str], Observed]]) -> None:
        self._events = events
        self._observed = observed

    def told(self, news: News) -> None:
        """Take what is on record now."""
        kind, _, key = news.budget.partition("/")
        thing = self._observed().get((kind, key))
        if thing is not None:
            self._events.post(about(thing), _TYPES.get(news.event, "Warning"), _REASONS[news.event], news.reason)
