"""Who waits for a slot of a limit on concurrency: agents take turns, however many requests each of them has.

An agent that was refused keeps its place for a little longer than it was told to wait, and for as long as it asks
again in time. When it gets a slot it leaves the queue; what else it has waiting queues up behind the others.
"""

PATIENCE_SECONDS = 3.0
"""How much longer than it was told to wait an agent keeps its place."""

_MOST = 1_000
"""Agents in one queue; who comes then is refused and gets no place."""


def ahead(queue: dict[str, float], agent: str, now: float) -> int:
    """Count the agents that are to be served before this one."""
    count = 0
    for waiting, until in queue.items():
        if waiting == agent:
            break
        if until > now:
            count += 1
    return count


def wait(queue: dict[str, float], agent: str, now: float, retry_after: float) -> None:
    """Give an agent a place at the end, or keep the one it has."""
    for gone in [waiting for waiting, until in queue.items() if until <= now]:
        del queue[gone]
    if agent in queue or len(queue) < _MOST:
        queue[agent] = now + retry_after + PATIENCE_SECONDS
