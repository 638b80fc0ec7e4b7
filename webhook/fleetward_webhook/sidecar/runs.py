"""Runs opened and closed by the agents here."""

from fleetward.audit.record import RunRecord
from fleetward.decision.action import Action, DecisionRequest
from fleetward.decision.replies import Done
from fleetward.run import calls
from fleetward.run.api import CloseRequest, RunAnswer, RunRequest
from fleetward_webhook.sidecar.problem import Kind, Problem
from fleetward_webhook.sidecar.questions import Questions
from fleetward_webhook.sidecar.recording import Recorder
from fleetward_webhook.sidecar.rundesk import Decider, refused


class Runs:
    """Opens and closes runs. Lives on the service's loop."""

    def __init__(self, service: Decider, recorder: Recorder, questions: Questions) -> None:
        self._service = service
        self._recorder = recorder
        self._questions = questions

    async def open(self, request: RunRequest) -> RunAnswer:
        """Open a run. Raises Problem and RequestError."""
        agent = self._standing_agent(request.agent)
        reply = await self._questions.ask(calls.OpenRun(agent=agent, mandate=request.mandate))
        if not isinstance(reply, calls.Opened):
            raise refused(reply)
        cause = self._record_run(reply.run, agent, request)
        self._questions.tell(calls.Recorded(run=reply.run, agent=agent, cause=cause))
        return RunAnswer(run=reply.run)

    async def close(self, run: str, request: CloseRequest) -> RunAnswer:
        """Close a run, and its grants with it. Raises Problem and RequestError."""
        agent = self._standing_agent(request.agent)
        reply = await self._questions.ask(calls.CloseRun(run=run, agent=agent))
        if not isinstance(reply, Done):
            raise refused(reply)
        self._record_run(run, agent, None)
        return RunAnswer(run=run)

    def _record_run(self, run: str, agent: str, opening: RunRequest | None) -> str:
        version = self._service.engine.slice.version
        return self._recorder.run(
            lambda id_, writer, seq, now: RunRecord(
                id=id_,
                writer=writer,
                seq=seq,
                time=now,
                run=run,
                agent=agent,
                state="Closed" if opening is None else "Opened",
                mandate=opening.mandate if opening else None,
                parent=opening.parent if opening else None,
                traceparent=opening.traceparent if opening else None,
                registry_version=version,
            )
        )

    def _standing_agent(self, agent: str | None) -> str:
        """Give the agent that asks for a run. Raises Problem where it may do nothing now, and RequestError."""
        request = DecisionRequest(action=Action(kind="Plan", name="run"), agent=agent)
        self._service.deny_unready(request)
        key = self._service.engine.agent_of(request)
        if (why := self._service.engine.standstill(key)) is not None:
            raise Problem(Kind.RUN_REFUSED, why[0])
        return key
