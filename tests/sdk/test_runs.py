"""Runs, plans and delegations against `fleetward serve`: the hub that keeps the runs, and a webhook for each agent."""

import base64
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from support.serving import Serve
from support.waiting import until
from support.webhook import SmallHub, Webhook

from fleetward.sdk import (
    ApprovalRequired,
    Client,
    Denied,
    InvalidAction,
    Step,
    Throttled,
    Unavailable,
    context,
)
from fleetward.sdk.exchange import Reply

DESK, WORKER, MAILER = "care/desk", "care/data-worker", "care/mailer"
READ, MAIL, FETCH = "db.customers.read", "mail.send.customer", "web.page.fetch"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Agents:
    """A client for each agent, and the records that come of what they do."""

    def __init__(self, chain: Serve, stack: ExitStack) -> None:
        self._chain = chain
        self.desk, self.worker, self.mailer = (
            stack.enter_context(Client(chain.address(agent), agent=agent, timeout=20))
            for agent in (DESK, WORKER, MAILER)
        )

    def record(self, decision: str) -> dict[str, Any]:
        """Give the record of a decision, once the hub has it."""
        found: list[dict[str, Any]] = []

        def stored() -> bool:
            found[:] = [r for r in self._chain.records() if r["id"] == decision]
            return bool(found)

        until(stored, f"the record of {decision}")
        return found[0]

    def openings(self, run: str) -> list[dict[str, Any]]:
        """Give the records of a run's opening and closing, once both are there."""
        until(lambda: len(self._of_run(run)) == 2, f"the records of {run}")
        return self._of_run(run)

    def _of_run(self, run: str) -> list[dict[str, Any]]:
        return [r for r in self._chain.records() if r["type"] == "Run" and r["run"] == run]


@pytest.fixture
def agents(chain: Serve) -> Iterator[Agents]:
    with ExitStack() as stack:
        yield Agents(chain, stack)


@pytest.fixture
def run_of(agents: Agents) -> Callable[..., Any]:
    def open_(**mandate: Any) -> Any:
        return agents.desk.run(requester="ana", purpose="answer ticket 7", **mandate)

    return open_


def test_a_run_is_opened_with_its_mandate_and_closed_at_the_end(agents: Agents) -> None:
    with agents.desk.run(
        requester="ana",
        purpose="answer ticket 7",
        data_classes=["customer"],
        targets=["customer-db", "web"],
        limits={"steps": 10, "agents": 3, "depth": 2, "cost_micro_usd": 500, "input_tokens": 9},
        expires_in_seconds=600,
        parent="gsts-1",
        traceparent=TRACE,
    ) as run:
        inside = agents.desk.decide("ToolCall", FETCH)
    outside = agents.desk.decide("ToolCall", FETCH)
    opened, closed = agents.openings(run.id)
    assert opened["mandate"] == {
        "requester": "ana",
        "purpose": "answer ticket 7",
        "dataClasses": ["customer"],
        "targets": ["customer-db", "web"],
        "limits": {"steps": 10, "agents": 3, "depth": 2, "costMicroUsd": 500, "inputTokens": 9},
        "expiresInSeconds": 600,
    }
    assert (opened["agent"], opened["parent"], opened["traceparent"]) == (DESK, "gsts-1", TRACE)
    assert closed["state"] == "Closed"
    assert agents.record(inside.id)["run"] == run.id
    assert "run" not in agents.record(outside.id)


def test_an_exception_closes_the_run_and_goes_on(agents: Agents, run_of: Callable[..., Any]) -> None:
    with pytest.raises(ZeroDivisionError), run_of() as run:
        1 / 0  # noqa: B018
    assert agents.openings(run.id)[1]["state"] == "Closed"
    with context(run=run.id), pytest.raises(Denied, match="is closed"):
        agents.desk.decide("ToolCall", FETCH)


def test_a_run_that_cannot_be_closed_says_so(agents: Agents, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise Unavailable("the decision webhook is gone")

    with pytest.raises(Unavailable), agents.desk.run(requester="ana", purpose="x"):
        monkeypatch.setattr(agents.desk._transport, "exchange", gone)
    monkeypatch.undo()
    with pytest.raises(ZeroDivisionError) as caught, agents.desk.run(requester="ana", purpose="x") as run:  # noqa: PT012
        monkeypatch.setattr(agents.desk._transport, "exchange", gone)
        1 / 0  # noqa: B018
    assert caught.value.__notes__ == [f"run {run.id} could not be closed: Deny: the decision webhook is gone"]


def test_a_run_is_opened_once(run_of: Callable[..., Any]) -> None:
    run = run_of()
    with pytest.raises(RuntimeError, match="not open"):
        _ = run.id
    with run:
        pass
    with pytest.raises(RuntimeError, match="opened already"), run:
        pytest.fail("the block ran")


def test_the_mandate_holds_and_the_refusal_names_what_goes_too_far(agents: Agents, run_of: Callable[..., Any]) -> None:
    with run_of(targets=["customer-db"], limits={"steps": 2}):
        with pytest.raises(Denied) as caught:
            agents.desk.decide("ToolCall", FETCH)
        violation = caught.value.violations[0]
        assert (violation.total, violation.found, violation.allowed, violation.by) == (
            "targets",
            "web",
            "customer-db",
            "mandate",
        )
    with run_of(limits={"steps": 1}):
        agents.desk.decide("ToolCall", FETCH)
        with pytest.raises(Denied) as caught:
            agents.desk.decide("ToolCall", FETCH)
        assert caught.value.violations[0].total == "steps"
    with run_of(data_classes=[]) as run:  # an empty list allows none
        grant = run.delegate(WORKER)
        with context(grant=grant), pytest.raises(Denied) as caught:
            agents.worker.decide("ToolCall", READ)
        assert caught.value.violations[0].total == "dataClasses"


def test_a_grant_is_a_text_that_another_process_acts_under(
    agents: Agents, run_of: Callable[..., Any], chain: Serve
) -> None:
    with run_of() as run:
        grant = run.delegate(WORKER, actions=[READ], traceparent=TRACE)
        assert isinstance(grant, str)
        program = (
            "import json, sys\n"
            "from fleetward.sdk import Client, context\n"
            "message = json.load(sys.stdin)\n"
            "with Client(message['url'], agent='care/data-worker', timeout=20) as client:\n"
            "    with context(grant=message['grant']):\n"
            "        print(client.decide('ToolCall', 'db.customers.read').id)\n"
        )
        message = json.dumps({"url": chain.address(WORKER), "grant": grant})
        done = subprocess.run(
            [sys.executable, "-c", program], input=message, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
    record = agents.record(done.stdout.strip())
    assert (record["run"], record["path"], record["agent"]) == (run.id, [DESK], WORKER)
    cause = agents.record(record["cause"])
    assert (cause["action"]["kind"], cause["handover"]["grant"]) == ("Delegation", record["grant"])
    assert cause["traceparent"] == TRACE


@pytest.mark.parametrize(
    ("scope", "name", "total"),
    [
        ({"actions": ["db.orders.*"]}, READ, "actions"),
        ({"data_classes": []}, READ, "dataClasses"),
        ({"targets": ["mail"]}, READ, "targets"),
        ({"limits": {"records": 10}}, READ, "records"),
    ],
)
def test_each_part_of_the_scope_narrows(
    agents: Agents, run_of: Callable[..., Any], scope: dict[str, Any], name: str, total: str
) -> None:
    with run_of() as run:
        with context(grant=run.delegate(WORKER)):
            agents.worker.decide("ToolCall", name)
        with context(grant=run.delegate(WORKER, **scope)), pytest.raises(Denied) as caught:
            agents.worker.decide("ToolCall", name)
        assert [v.total for v in caught.value.violations] == [total]
        assert caught.value.violations[0].by.startswith("grant g-")


def test_depth_expiry_and_labels_go_with_the_grant(agents: Agents, run_of: Callable[..., Any]) -> None:
    with run_of() as run:
        with context(grant=run.delegate(WORKER, depth=0)), pytest.raises(Denied) as caught:
            agents.worker.delegate(MAILER)
        assert caught.value.violations[0].total == "depth"
        claims = json.loads(_payload(run.delegate(WORKER, expires_in_seconds=60)))
        assert claims["exp"] - claims["iat"] == 60
        # What is untrusted may not reach the worker with the database: the label is seen on what is handed over.
        with pytest.raises(Denied, match="Untrusted content may not reach"):
            run.delegate(WORKER, labels=["untrusted"])
        with (
            context(grant=run.delegate(MAILER, labels="untrusted")),
            pytest.raises(Denied, match="not-to-the-database"),
        ):
            agents.mailer.delegate(WORKER)


def test_an_agent_under_a_grant_hands_on_no_more_than_it_has(agents: Agents, run_of: Callable[..., Any]) -> None:
    with run_of() as run:
        narrow = run.delegate(WORKER, actions=["db.**", "mail.**"])
        with context(grant=narrow):
            with pytest.raises(Denied) as caught:
                agents.worker.delegate(MAILER, actions=["web.**"])
            assert (caught.value.violations[0].total, caught.value.violations[0].found) == ("actions", "web.**")
            onward = agents.worker.delegate(MAILER, actions=["mail.**"])
        with context(grant=onward), pytest.raises(ApprovalRequired, match="A person reads") as held:
            agents.mailer.decide("ToolCall", MAIL)
        assert held.value.answer is not None
        assert agents.record(held.value.answer.id)["path"] == [DESK, WORKER]


def test_a_grant_is_for_one_agent_and_what_is_none_is_said(agents: Agents, run_of: Callable[..., Any]) -> None:
    with run_of() as run:
        grant = run.delegate(MAILER)
        with context(grant=grant), pytest.raises(Denied, match="was given to care/mailer, not to care/data-worker"):
            agents.worker.decide("ToolCall", READ)
        head, payload, signature = grant.split(".")
        forged = f"{head}.{payload}.{signature[:-4]}AAAA"
        with context(grant=forged), pytest.raises(Denied, match="changed or forged"):
            agents.mailer.decide("ToolCall", MAIL)
    for wrong in ("", "g-1", "a.b.c", "a.e30.c"):
        with (
            pytest.raises(InvalidAction, match="allowed: a grant as `delegate` gave it") as caught,
            context(grant=wrong),
        ):
            pytest.fail("the block ran")
        assert caught.value.field == "grant"
        with pytest.raises(InvalidAction, match="grant: found"):
            agents.mailer.decide("ToolCall", MAIL, grant=wrong)


def test_another_run_leaves_the_grant_behind(agents: Agents, run_of: Callable[..., Any]) -> None:
    with run_of() as first, context(grant=first.delegate(WORKER)):
        assert agents.record(agents.worker.decide("ToolCall", READ).id)["run"] == first.id
        with run_of() as second:  # the desk opens a run of its own, and acts in it without the worker's grant
            assert agents.record(agents.desk.decide("ToolCall", FETCH).id)["run"] == second.id
        # The worker's grant holds here, and what the run's opener does is still its own.
        claims = json.loads(_payload(first.delegate(MAILER)))
        assert (claims["path"], claims["run"]) == ([DESK], first.id)
        assert first.plan([Step("a", WORKER, "ToolCall", READ)]).decision == "Allow"


def test_a_grant_can_be_said_at_each_call(agents: Agents, run_of: Callable[..., Any]) -> None:
    with run_of() as run:
        grant = run.delegate(WORKER)
    with pytest.raises(Denied, match="is closed"):
        agents.worker.decide("ToolCall", READ, grant=grant)
    with run_of() as run:
        grant = run.delegate(WORKER)
        with context(run="another"):
            permit = agents.worker.decide("ToolCall", READ, grant=grant)
            onward = agents.worker.delegate(MAILER, grant=grant, depth=0)
        with pytest.raises(Denied, match="no rule matches Plan") as caught:
            agents.worker.plan([Step("a", WORKER, "ToolCall", READ)], grant=grant)
        assert caught.value.answer is not None
    assert json.loads(_payload(onward))["path"] == [DESK, WORKER]
    for decision in (permit.id, caught.value.answer.id):
        record = agents.record(decision)
        assert (record["run"], record["grant"]) == (run.id, json.loads(_payload(grant))["jti"])


def test_a_plan_is_checked_as_a_whole(agents: Agents, run_of: Callable[..., Any]) -> None:
    steps = [
        Step("read", WORKER, "ToolCall", READ, estimate={"records": 5}, arguments={"id": 7}),
        Step("send", MAILER, "ToolCall", MAIL, depends_on="read", labels=["crm"]),
    ]
    with run_of(limits={"steps": 3}) as run:
        answer = run.plan(steps, traceparent=TRACE)
        assert answer.decision == "Allow"
        assert "send" in answer.advice[0]  # it will need approval, when its time comes
        record = agents.record(answer.id)
        assert [(s["id"], s["agent"], s.get("dependsOn", [])) for s in record["plan"]] == [
            ("read", WORKER, []),
            ("send", MAILER, ["read"]),
        ]
        assert (record["run"], record["traceparent"]) == (run.id, TRACE)
        with pytest.raises(Denied) as caught:
            run.plan([Step(f"s{n}", WORKER, "ToolCall", READ) for n in range(40)])
        assert "steps" in {v.total for v in caught.value.violations}
        with pytest.raises(Denied) as caught:
            run.plan([Step("bulk", WORKER, "ToolCall", READ, estimate={"records": 500})])
        assert caught.value.violations[0].step == "bulk"
        labelled = run.plan([Step("read", WORKER, "ToolCall", READ)], labels=["web"])
        assert agents.record(labelled.id)["action"]["declared"]["labels"] == ["web"]
    with run_of() as run, pytest.raises(Denied) as caught:  # what goes in a circle has no first step
        run.plan(
            [
                Step("a", WORKER, "ToolCall", READ, depends_on=["b"]),
                Step("b", WORKER, "ToolCall", READ, depends_on=["a"]),
            ]
        )


def test_a_step_may_be_what_the_api_takes(run_of: Callable[..., Any]) -> None:
    with run_of() as run:
        step = {"id": "read", "agent": WORKER, "action": {"kind": "ToolCall", "name": READ}}
        assert run.plan([step]).decision == "Allow"


def test_what_is_wrong_is_told_by_field(agents: Agents, run_of: Callable[..., Any]) -> None:
    cases: list[tuple[Callable[[], Any], str, str]] = [
        (lambda: run_of(data_classes=["a b"]), "mandate.dataClasses[0]", 'found "a b"'),
        (lambda: run_of(limits={"steps": -1}), "mandate.limits.steps", "found -1"),
        (lambda: run_of(limits={"stesp": 1}), "mandate.limits.stesp", "did you mean steps?"),
        (lambda: agents.desk.delegate(WORKER), "run", "open a run"),
        (lambda: agents.desk.plan([]), "run", "open a run"),
        (lambda: agents.desk.delegate("worker", run="r"), "to", "namespace/name"),
        (lambda: agents.desk.delegate(WORKER, run="r", actions=["a b"]), "scope.actions[0]", 'found "a b"'),
        (lambda: agents.desk.delegate(WORKER, run="r", depth=33), "scope.depth", "found 33"),
        (
            lambda: agents.desk.plan([Step("a", "worker", "ToolCall", READ)], run="r"),
            "steps[0].agent",
            "namespace/name",
        ),
        (lambda: agents.desk.plan([], run="r"), "steps", "length >= 1"),
        (lambda: Step("a", WORKER, "ToolCall", READ, arguments={"when": object()}), "arguments.when", "found object"),
    ]
    for ask, field, words in cases:
        with pytest.raises(InvalidAction) as caught:
            ask()
        assert caught.value.field == field
        assert words in str(caught.value)
    for misspelt in (
        lambda: run_of(limit={}),
        lambda: agents.desk.delegate(WORKER, action=[READ]),  # type: ignore[call-arg]
        lambda: agents.desk.plan([], stesp=[]),  # type: ignore[call-arg]
        lambda: Step("a", WORKER, "ToolCall", READ, risktags=[]),  # type: ignore[call-arg]
    ):
        with pytest.raises(TypeError, match="unknown facts"):
            misspelt()


def test_only_the_agent_that_opened_a_run_may_close_it(agents: Agents, run_of: Callable[..., Any]) -> None:
    with run_of() as run:
        other = agents.worker.run(requester="ana", purpose="x")
        other._id = run.id
        with pytest.raises(Denied, match="can only be closed by care/desk"):
            agents.worker._run(other.closing())


def test_a_governed_function_is_the_parent_of_what_it_asks_for(agents: Agents, run_of: Callable[..., Any]) -> None:
    seen: list[str] = []

    @agents.desk.tool("text.sanitize")
    def inner() -> None:
        seen.append(agents.desk.decide("ToolCall", FETCH).id)

    @agents.desk.tool(FETCH)
    def outer() -> None:
        inner()
        seen.append(agents.desk.decide("ToolCall", FETCH).id)
        seen.append(agents.desk.decide("ToolCall", FETCH, parent="said").id)

    with run_of():
        outer()
        seen.append(agents.desk.decide("ToolCall", FETCH).id)
    in_inner, in_outer, said, after = [agents.record(decision) for decision in seen]
    assert said["parent"] == "said"
    assert "parent" not in after
    inner_call, outer_call = agents.record(in_inner["parent"]), agents.record(in_outer["parent"])
    assert (inner_call["action"]["name"], inner_call["parent"]) == ("text.sanitize", outer_call["id"])
    assert outer_call["action"]["name"] == FETCH


def test_threads_have_runs_of_their_own(agents: Agents, run_of: Callable[..., Any]) -> None:
    done: dict[str, str] = {}

    def act() -> None:
        with run_of() as run:
            done[agents.desk.decide("ToolCall", FETCH).id] = run.id

    threads = [threading.Thread(target=act) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(set(done.values())) == 8
    assert {decision: agents.record(decision)["run"] for decision in done} == done


def _payload(grant: str) -> bytes:
    payload = grant.split(".")[1]
    return base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))


def test_a_throttled_delegation_or_plan_is_asked_for_again_when_so_told(
    agents: Agents, run_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    answer = {"id": "w-1", "decision": "Throttle", "reason": "r", "rules": [], "obligations": []}
    throttled = json.dumps({**answer, "registryVersion": "1", "retryAfterSeconds": 7}).encode()
    monkeypatch.setattr("fleetward.sdk.client.time.sleep", waits.append)
    with run_of() as run:
        monkeypatch.setattr(agents.desk._transport, "exchange", lambda _: Reply(200, throttled))
        steps = [Step("a", WORKER, "ToolCall", READ)]
        asks: list[Callable[[bool], Any]] = [
            lambda wait: run.delegate(WORKER, wait=wait),
            lambda wait: run.plan(steps, wait=wait),
        ]
        for ask in asks:
            with pytest.raises(Throttled):
                ask(False)
            assert waits == []
            with pytest.raises(Throttled):
                ask(True)
            assert waits == [7, 7, 7]
            waits.clear()
        monkeypatch.undo()


def test_a_delegation_with_obligations_is_no_grant(
    agents: Agents, run_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    owed = b'{"id":"w-1","decision":"Constrain","reason":"r","rules":[],"obligations":[],"registryVersion":"1"}'
    with run_of() as run:
        monkeypatch.setattr(agents.desk._transport, "exchange", lambda _: Reply(200, owed))
        with pytest.raises(Denied, match="with obligations only") as caught:
            run.delegate(WORKER)
        assert caught.value.answer is not None
        monkeypatch.undo()


def test_a_hub_that_is_not_there_refuses_the_run(own: tuple[SmallHub, Webhook]) -> None:
    _, webhook = own
    webhook.kill()
    with (
        Client(webhook.address, timeout=1) as client,
        pytest.raises(Unavailable),
        client.run(requester="a", purpose="b"),
    ):
        pytest.fail("the block ran")
