"""Events about operating modes: who stopped or released an agent, why, and when it was in force where."""

from collections.abc import Callable

from fleetward.registry.registry import Registry
from fleetward.registry.slice import Mode
from fleetward_operator.hub.inforce import ModeInForce
from fleetward_operator.kube.events import EventPoster, EventType, about


class ModeNews:
    """Tells of each change of an agent's mode in one Event, on the replica that leads.

    A stop that decision webhooks must apply is told once they have; where none is connected, at once.
    """

    def __init__(self, events: EventPoster, leading: Callable[[], bool]) -> None:
        self._events = events
        self._leading = leading
        self._registry = Registry()

    def published(self, registry: Registry, connected: Callable[[str], bool]) -> None:
        """Take a registry that came into force; `connected` says whether an agent has a decision webhook here."""
        before, self._registry = self._registry, registry
        for key in {**before.not_running, **registry.not_running}:  # no other agent can have changed its mode
            known, item = before.agents.get(key), registry.agents.get(key)
            if known is None or item is None or known.mode.operating_mode == item.mode.operating_mode:
                continue
            if item.mode.operating_mode == "Running":
                self._post(key, "Normal", "Resumed", f"{_who(item.mode)}; it may act again")
            elif not connected(key):
                note = f"{_why(item.mode)}; no decision webhook of it is connected to this replica"
                self._post(key, "Warning", item.mode.operating_mode, note)

    def in_force(self, news: ModeInForce) -> None:
        """Take that a mode is in force at all webhooks of an agent."""
        item = self._registry.agents.get(news.agent)
        if item is None or item.mode.operating_mode != news.mode:
            return  # it has been changed again, and that is told then
        webhooks = f"{news.links} decision webhook{'' if news.links == 1 else 's'}"
        note = f"{_why(item.mode)}; in force at {webhooks} after {news.seconds * 1000:.0f} ms"
        if news.lost:
            note += f"; {news.lost} went away before they said so, and can allow nothing once their lease lapses"
        self._post(news.agent, "Warning", news.mode, note)

    def _post(self, key: str, type_: EventType, reason: str, note: str) -> None:
        inside = self._registry.agents_in.get(key.partition("/")[0])
        agent = inside.get(key) if inside is not None else None
        if agent is not None and self._leading():
            self._events.post(about(agent), type_, reason, note)


def _who(mode: Mode) -> str:
    return f"by {mode.set_by}" if mode.set_by else "nobody said by whom"


def _why(mode: Mode) -> str:
    if "AgentBudget " in mode.source:
        return f"by {mode.source}: {mode.reason}"
    fleet = f" on {mode.source}" if mode.source.startswith("AgentFleet") else ""
    return f"{_who(mode)}{fleet}: {mode.reason or 'no reason was given'}"
