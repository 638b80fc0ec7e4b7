"""The desk of one replica among several: its own runs it keeps, and about the others' it asks whoever keeps them."""

import secrets
from collections import Counter
from collections.abc import Collection
from typing import Protocol

from fleetward.decision.replies import Failed
from fleetward.registry.registry import Registry
from fleetward.run import calls
from fleetward_operator.hub.asks import RunAnswer
from fleetward_operator.hub.kept import KeptRuns
from fleetward_operator.hub.runs import Runs, check_served
from fleetward_operator.relay.lane import Lanes
from fleetward_operator.relay.tags import tag_of


class Twins(Protocol):
    """Who else there is; see `cluster.peers.Peers`."""

    def twin(self, kept: KeptRuns) -> str:
        """Give the URL of another replica that says the same tag; empty where there is none."""


class RunDesk:
    """See `hub.hub.Desk`."""

    def __init__(self, runs: Runs, tag: str, lanes: Lanes, twins: Twins) -> None:
        self._runs = runs
        self._lanes = lanes
        self._twins = twins
        self.kept: KeptRuns | None = KeptRuns(tag=tag, instance=secrets.token_hex(8))
        self._tag = tag
        self.answers: Counter[tuple[str, str, str]] = Counter()
        """Questions of the decision webhooks connected here, by question, answer, and who keeps the run."""

    @property
    def problem(self) -> str:
        """Why the runs of this replica cannot be counted; empty while they can."""
        return self._runs.problem or self._doubled()

    @property
    def open_runs(self) -> int:
        """How many runs are open here."""
        return self._runs.open_runs

    def public_keys(self) -> dict[str, str]:
        """Give the public keys that grants may be signed with."""
        return self._runs.public_keys()

    def ask(
        self, request: calls.Request, *, webhook: str, agents: Collection[str], registry: Registry, answer: RunAnswer
    ) -> None:
        """Have a question of a webhook that serves `agents` answered, in the order of asking for each run."""
        tag = "" if isinstance(request, calls.OpenRun) else tag_of(request.run)
        here = tag in {"", self._tag}
        answer = self._counted(type(request).__name__, "here" if here else "elsewhere", answer)
        if (refused := check_served(request, agents)) is not None:
            answer(refused)
        elif not here:
            self._lanes.put(tag, request, webhook=webhook, agent=getattr(request, "agent", None), answer=answer)
        else:
            self.ask_here(request, webhook=webhook, agents=agents, registry=registry, answer=answer)

    def ask_here(
        self, request: calls.Request, *, webhook: str, agents: Collection[str], registry: Registry, answer: RunAnswer
    ) -> None:
        """Have a question answered from this replica's own journal."""
        if problem := self._doubled():
            answer(Failed(reason=problem))
        else:
            self._runs.ask(request, webhook=webhook, agents=agents, registry=registry, answer=answer)

    def keeps(self, request: calls.Request, tag: str) -> bool:
        """Say whether a question, asked of the journal `tag` by another replica, is one for this journal."""
        return tag == self._tag and not isinstance(request, calls.OpenRun) and tag_of(request.run) == tag

    def _doubled(self) -> str:
        twin = "" if self.kept is None else self._twins.twin(self.kept)
        if not twin:
            return ""
        return (
            f"the replica {twin} keeps a journal of runs with the same tag, {self._tag}: one of them is a copy, and"
            " its data must be removed, as no run may be counted twice"
        )

    def _counted(self, question: str, where: str, answer: RunAnswer) -> RunAnswer:
        def count(reply: calls.Reply) -> None:
            self.answers[question, type(reply).__name__, where] += 1
            answer(reply)

        return count
