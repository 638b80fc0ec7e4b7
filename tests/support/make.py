"""Resources, registries and records for the tests of the stream."""

from collections.abc import Iterable
from typing import Any

from fleetward.audit.record import DecisionRecord, encode
from fleetward.decision.action import Facts, RecordedAction
from fleetward.registry.registry import Registry
from fleetward.resources import Agent, AgentFleet, AgentPolicy, Resource

API = "fleetward.dev/v1alpha1"


def agent(name: str, **spec: Any) -> Agent:
    return Agent.model_validate(
        {
            "apiVersion": API,
            "kind": "Agent",
            "metadata": {"name": name, "namespace": "reports", "labels": {"team": "reports"}},
            "spec": {"role": "Worker", **spec},
        }
    )


def fleet(name: str, **spec: Any) -> AgentFleet:
    return AgentFleet.model_validate(
        {
            "apiVersion": API,
            "kind": "AgentFleet",
            "metadata": {"name": name},
            "spec": {"agents": {}, **spec},
        }
    )


def policy(name: str, *names: str) -> AgentPolicy:
    match = {"names": list(names) or ["crm.**"]}
    return AgentPolicy.model_validate(
        {
            "apiVersion": API,
            "kind": "AgentPolicy",
            "metadata": {"name": name, "namespace": "reports"},
            "spec": {"rules": [{"name": "all", "match": match, "decision": "Allow"}]},
        }
    )


def registry(agents: Iterable[str] = ("alpha",), policies: int = 3, **spec: Any) -> Registry:
    resources: list[Resource] = [agent(name, **spec) for name in agents]
    resources += [policy(f"policy-{number}", f"tool-{number}.**") for number in range(policies)]
    return Registry.build(resources)


def record(writer: str, seq: int, **changes: Any) -> bytes:
    record = DecisionRecord(
        id=f"{writer}-{seq}",
        writer=writer,
        seq=seq,
        time="2026-03-01T10:00:00.000000Z",
        agent="reports/alpha",
        action=RecordedAction(kind="ToolCall", name="crm.read", trusted=Facts()),
        decision="Allow",
        reason="allowed by rule all",
        registry_version="v1",
    )
    return encode(DecisionRecord(**{name: getattr(record, name) for name in record.__struct_fields__} | changes))
