"""The synchronous client."""

import functools
import inspect
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack, cast

from msgspec import UNSET

from fleetward.decision.action import Answer
from fleetward.registry.slice import ActionKind
from fleetward.sdk.asking import Facts, ask
from fleetward.sdk.context import context
from fleetward.sdk.errors import Refused
from fleetward.sdk.exchange import Exchange, Flow, Reply
from fleetward.sdk.permit import PermitState, describe_error
from fleetward.sdk.runs import Handing, Mandate, Planning, RunState, Step, hand_over, propose
from fleetward.sdk.settings import DEFAULT_TIMEOUT, settings
from fleetward.sdk.tool import Expect, Measure, Tool
from fleetward.sdk.transport import Transport
from fleetward.sdk.usage import Used

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Client:
    """Asks the decision webhook before an agent acts, and reports what came of it. For any number of threads.

    Every refusal is an exception (see `errors`), and whatever goes wrong on the way to the webhook is one: Unavailable.
    `url` is `http://127.0.0.1:PORT` or `unix:///path` (FLEETWARD_URL where left out), `agent` is `namespace/name`
    (FLEETWARD_AGENT; not needed where the webhook serves one agent), `timeout` is in seconds, for each step of an
    exchange.
    """

    def __init__(self, url: str | None = None, *, agent: str | None = None, timeout: float = DEFAULT_TIMEOUT) -> None:
        self._settings = settings(url, agent, timeout)
        self._transport = Transport(self._settings.address, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._transport.close()

    def decide(self, kind: ActionKind, name: str, **facts: Unpack[Facts]) -> "Permit":
        """Ask whether the action may be run. Raises Refused where it may not."""
        answer, arguments = self._run(ask(kind, name, facts, self._settings.agent))
        return Permit(self._run, answer, arguments)

    def action(self, kind: ActionKind, name: str, **facts: Unpack[Facts]) -> "Attempt":
        """Run an action in a `with` block that begins only if it is allowed, and whose end is reported.

            with client.action("ToolCall", "crm.customers.read", arguments={"limit": 20}) as permit:
                rows = permit.succeed(read(**permit.arguments), records=20)

        An exception is reported as failure; a block that ends without `succeed`, as success without a result.
        """
        return Attempt(functools.partial(self.decide, kind, name, **facts))

    def tool(
        self,
        name: str,
        *,
        kind: ActionKind = "ToolCall",
        ignore: Collection[str] = (),
        expect: Expect | None = None,
        measure: Measure | None = None,
        **facts: Unpack[Facts],
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Have each call of the decorated function ask first, run as allowed, and report before it returns.

        The call's arguments are the action's, save those that `ignore` names. `expect` gives the estimate from them,
        `measure` gives from the result what was used. What the function asks for in turn has the call as its parent.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
                raise TypeError(f"{function.__qualname__} is asynchronous: decorate it with an AsyncClient's tool")
            if inspect.isgeneratorfunction(function):
                raise TypeError(f"{function.__qualname__} is a generator: use action() and progress() inside it")
            tool = Tool(function, name, kind, facts, ignore=ignore, expect=expect, measure=measure)

            @functools.wraps(function)
            def governed(*args: P.args, **kwargs: P.kwargs) -> R:
                call = tool.bind(args, kwargs)
                with self.action(tool.kind, tool.name, **tool.facts(call)) as permit:
                    held_args, held_kwargs = call.under(permit)
                    with context(parent=permit.id):
                        result: R = function(*held_args, **held_kwargs)
                    used: R = permit.succeed(result, **tool.used(result))
                    return used

            return governed

        return decorate

    def run(self, *, requester: str, purpose: str, **mandate: Unpack[Mandate]) -> "Run":
        """Open a run in a `with` block: what is asked for inside belongs to it, and its end closes it.

        with client.run(requester="ana", purpose="answer ticket 7", limits={"steps": 10}) as run:
            grant = run.delegate("care/data-worker", actions=["db.customers.read"])
        """
        return Run(self, requester, purpose, mandate)

    def delegate(self, to: str, **handing: Unpack[Handing]) -> str:
        """Hand work of the current run to another agent; return the grant to send along with it.

        Raises Refused where that may not be; its `violations` say which part of the scope goes too far.
        """
        return self._run(hand_over(to, handing, self._settings.agent))

    def plan(self, steps: Iterable[Step | Mapping[str, Any]], **planning: Unpack[Planning]) -> Answer:
        """Have a plan of the current run checked as a whole, before its first step; return the answer, with its advice.

        A step is a `Step`, or what `POST /v1/plans` takes. Raises Refused where the plan may not be followed; its
        `violations` name the steps and totals that go too far.
        """
        return self._run(propose(steps, planning, self._settings.agent))

    def _run(self, flow: Flow[T]) -> T:
        reply: Reply | None = None
        try:
            while True:
                step = flow.send(reply)
                reply = None
                if isinstance(step, Exchange):
                    reply = self._transport.exchange(step)
                else:
                    time.sleep(step.seconds)
        except StopIteration as end:
            value: T = end.value
            return value


class Permit(PermitState):
    """An action that is allowed. Run it with `arguments`, then `succeed` or `fail`."""

    def __init__(self, run: Callable[[Flow[Any]], Any], answer: Answer, arguments: dict[str, Any] | None) -> None:
        super().__init__(answer, arguments)
        self._run = run

    def progress(self, *, labels: Sequence[str] = (), **used: Unpack[Used]) -> None:
        """Report that the action goes on, with what it used up to now. Raises OutcomeRefused when it must stop."""
        self._run(self.going_on(labels, used))

    def succeed(self, result: Any = UNSET, *, labels: Sequence[str] = (), **used: Unpack[Used]) -> Any:
        """Report success, and return the result as it may be used: redacted, where that is owed.

        Raises OutcomeRefused where it may not be used at all, and Unavailable where nobody can say.
        """
        return self._run(self.succeeding(result, labels, used))

    def fail(self, error: BaseException | str, **used: Unpack[Used]) -> None:
        """Report failure, and what was used. Raises OutcomeRefused or Unavailable where that is not taken."""
        self._run(self.failing(error if isinstance(error, str) else describe_error(error), used))


class Run(RunState):
    """The context manager that `Client.run` gives."""

    def __init__(self, client: Client, requester: str, purpose: str, mandate: Mandate) -> None:
        super().__init__(requester, purpose, mandate, client._settings.agent)  # noqa: SLF001 - they are one
        self._client = client

    def __enter__(self) -> Self:
        self._client._run(self.opening())  # noqa: SLF001
        return self

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._client._run(self.closing())  # noqa: SLF001
        except Refused as trouble:
            if error is None:
                raise
            error.add_note(f"run {self.id} could not be closed: {trouble}")

    def delegate(self, to: str, **handing: Unpack[Handing]) -> str:
        """See `Client.delegate`: in this run, as the agent that opened it."""
        return self._client.delegate(to, **cast("Handing", self.own(handing)))

    def plan(self, steps: Iterable[Step | Mapping[str, Any]], **planning: Unpack[Planning]) -> Answer:
        """See `Client.plan`: in this run, as the agent that opened it."""
        return self._client.plan(steps, **cast("Planning", self.own(planning)))


class Attempt:
    """The context manager that `Client.action` gives."""

    def __init__(self, decide: Callable[[], Permit]) -> None:
        self._decide = decide
        self._permit: Permit | None = None

    def __enter__(self) -> Permit:
        self._permit = self._decide()
        return self._permit

    def __exit__(
        self, _: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._permit is None or self._permit.ended:
            return
        if error is None:
            self._permit.succeed()
            return
        try:
            self._permit.fail(error)
        except Refused as trouble:
            error.add_note(f"Fleetward could not be told of this: {trouble}")
