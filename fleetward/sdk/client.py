"""The synchronous client."""

import functools
import inspect
import time
from collections.abc import Callable, Collection, Sequence
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, Unpack

from msgspec import UNSET

from fleetward.decision.action import Answer
from fleetward.registry.slice import ActionKind
from fleetward.sdk.asking import Facts, ask
from fleetward.sdk.errors import Refused
from fleetward.sdk.exchange import Exchange, Flow, Reply
from fleetward.sdk.permit import PermitState, Used, describe_error
from fleetward.sdk.settings import DEFAULT_TIMEOUT, settings
from fleetward.sdk.tool import Expect, Measure, Tool
from fleetward.sdk.transport import Transport

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
        `measure` gives from the result what was used.
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
                    result: R = function(*held_args, **held_kwargs)
                    used: R = permit.succeed(result, **tool.used(result))
                    return used

            return governed

        return decorate

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

    def fail(self, error: BaseException | str) -> None:
        """Report failure. Raises OutcomeRefused or Unavailable where that is not taken."""
        self._run(self.failing(error if isinstance(error, str) else describe_error(error)))


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
