"""Hand-made records of runs, and stores of them."""

from typing import Any

from fleetward.audit.record import DecisionRecord, OutcomeRecord, RunRecord
from fleetward.decision.action import Actual, Facts, Handover, PlannedStep, RecordedAction, RuleRef
from fleetward.delegation.scope import Amounts, Scope, Violation
from fleetward.run.mandate import Limits, Mandate

WRITER = "aaaa"
RUN = "run-1"
A, B, C = "reports/coordinator", "reports/reader", "reports/mailer"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def at(number: int) -> str:
    """A time, `number` seconds into the run."""
    minute, second = divmod(number, 60)
    hour, minute = divmod(minute, 60)
    return f"2026-03-01T{10 + hour:02}:{minute:02}:{second:02}.000000Z"


def _head(seq: int, changes: dict[str, Any]) -> dict[str, Any]:
    writer = changes.get("writer", WRITER)
    head = {"id": f"{writer}-{seq}", "writer": writer, "seq": seq, "time": at(seq), "registry_version": "v7"}
    return {**head, "run": RUN, **changes}


def opening(seq: int = 1, **changes: Any) -> RunRecord:
    mandate = Mandate(
        requester="kim@example.com",
        purpose="Write to the customers of the north",
        data_classes=("customer",),
        targets=("crm", "mail.outside"),
        limits=Limits(steps=40, agents=3, depth=2, records=500),
    )
    return RunRecord(**_head(seq, {"agent": A, "state": "Opened", "mandate": mandate, **changes}))


def rule(name: str, decision: str = "Allow", **changes: Any) -> RuleRef:
    fields: dict[str, Any] = {
        "policy": "reports/work",
        "kind": "AgentPolicy",
        "uid": "11111111-2222-3333-4444-555555555555",
        "generation": 3,
        "hash": "cafe0123",
        "rule": name,
        "decision": decision,
        "enforcement": "Enforce",
        "principal": A,
    }
    return RuleRef(**fields | changes)


def decision(seq: int, kind: str = "ToolCall", name: str = "crm.customers.read", **changes: Any) -> DecisionRecord:
    action = RecordedAction(kind=kind, name=name, trusted=Facts(labels=changes.pop("labels", ())))  # type: ignore[arg-type]
    given = {"agent": A, "action": action, "decision": "Allow", "reason": "allowed by rule work"}
    return DecisionRecord(**_head(seq, {**given, **changes}))


def outcome(seq: int, decision_id: str, **changes: Any) -> OutcomeRecord:
    given = {"agent": B, "decision_id": decision_id, "status": "Succeeded", "decision": "Allow", "reason": "fine"}
    return OutcomeRecord(**_head(seq, {**given, **changes}))


def handover(to: str, grant: str | None) -> Handover:
    scope = Scope(actions=("crm.**",), data_classes=("customer",), depth=1, limits=Amounts(records=100))
    return Handover(to=to, scope=scope, labels=("web",), grant=grant)


def story() -> list[Any]:
    """The accountability chain: opening, plan, delegation, a read, and mail that is held; and some that went wrong."""
    by_b: dict[str, Any] = {"agent": B, "grant": "g-1", "path": (A,), "cause": "aaaa-3"}
    by_c: dict[str, Any] = {"agent": C, "grant": "g-2", "path": (A, B), "cause": "aaaa-6"}
    return [
        opening(traceparent=TRACEPARENT),
        decision(
            2,
            "Plan",
            "customer-letter",
            cause="aaaa-1",
            rules=(rule("plans"),),
            plan=(PlannedStep(id="read", agent=B, kind="ToolCall", name="crm.customers.read"),),
        ),
        decision(
            3,
            "Delegation",
            "delegate",
            cause="aaaa-1",
            parent="aaaa-2",
            rules=(rule("dispatch"),),
            handover=handover(B, "g-1"),
        ),
        decision(4, **by_b, rules=(rule("read", principal=B),), labels=("web",), traceparent=TRACEPARENT),
        outcome(5, "aaaa-4", actual=Actual(records=7, duration_ms=81)),
        decision(
            6,
            "Delegation",
            "delegate",
            **by_b,
            parent="aaaa-4",
            rules=(rule("dispatch", principal=B),),
            handover=handover(C, "g-2"),
        ),
        decision(
            7,
            "ToolCall",
            "mail.send.customer",
            **by_c,
            parent="aaaa-4",
            decision="RequireApproval",
            reason="External actions from any agent need approval",
            rules=(rule("outside", "RequireApproval"), rule("try-out", "Deny", enforcement="Audit")),
        ),
        decision(
            8,
            **by_b,
            parent="other-1",
            decision="Deny",
            reason="the run's mandate does not allow it",
            violations=(Violation(total="records", found="507", allowed="500", by="mandate"),),
        ),
        decision(9, agent="reports/stranger", decision="Deny", reason="reports/stranger holds no grant of this run"),
        decision(10, agent=C, grant="g-9", path=(A,), cause="gone-3", rules=(rule("read", principal=C),)),
        opening(11, state="Closed"),
    ]


def large(count: int) -> list[Any]:
    """A run of `count` records: delegations twenty deep, and calls under each."""
    records: list[Any] = [opening()]
    path: tuple[str, ...] = ()
    agent, cause, grant = A, "aaaa-1", None
    calls = max(count // 20 - 1, 2)
    while len(records) < count:
        seq = len(records) + 1
        its: dict[str, Any] = {"agent": agent, "cause": cause, "grant": grant, "path": path}
        if seq % calls == 0 and len(path) < 20:
            given, to = f"g-{seq}", f"reports/worker-{len(path)}"
            records.append(decision(seq, "Delegation", "delegate", **its, handover=handover(to, given)))
            path, agent, cause, grant = (*path, agent), to, f"aaaa-{seq}", given
        elif seq % 3 == 0 and records[-1].id != cause and isinstance(records[-1], DecisionRecord):
            records.append(outcome(seq, records[-1].id, agent=agent))
        else:
            verdict = "Deny" if seq % 17 == 0 else "Allow"
            rules = (rule(f"rule-{seq % 40}", verdict, principal=agent),)
            said = records[-1].id if seq % 5 == 0 else None
            records.append(decision(seq, **its, decision=verdict, rules=rules, parent=said))
    return records
