"""Resources, engines and requests for tests, made from the plain data a user would write."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from fleetward.decision.action import DecisionRequest, OutcomeRequest
from fleetward.decision.cel.runtime import Runtime
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Slice
from fleetward.resources import API_VERSION, KINDS, Resource

AGENT = "reports/worker"


def resource(kind: str, name: str, spec: Mapping[str, Any], namespace: str | None = None, **metadata: Any) -> Resource:
    """Give a checked resource."""
    place = {"namespace": namespace} if namespace else {}
    return load({"kind": kind, "metadata": {"name": name, **place, **metadata}, "spec": spec})


def load(document: Mapping[str, Any]) -> Resource:
    """Give the checked resource of a document without its apiVersion."""
    return KINDS[document["kind"]].model_validate({"apiVersion": API_VERSION, **document})


def agent(name: str = "worker", namespace: str = "reports", **spec: Any) -> Resource:
    labels = spec.pop("labels", {})
    return resource("Agent", name, {"role": "Worker", **spec}, namespace, labels=labels)


def policy(*rules: Mapping[str, Any], name: str = "p", namespace: str = "reports", **spec: Any) -> Resource:
    """Give an AgentPolicy; a rule needs neither a name nor a match."""
    return resource("AgentPolicy", name, {"rules": [*named(rules)], **spec}, namespace)


def named(rules: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"name": f"r{number}", "match": {}, **rule} for number, rule in enumerate(rules)]


def catalog(*entries: Mapping[str, Any], name: str = "c") -> Resource:
    return resource("ActionCatalog", name, {"entries": list(entries)})


def fleet(name: str = "f", **spec: Any) -> Resource:
    return resource("AgentFleet", name, {"agents": {}, **spec})


def slice_of(*resources: Resource, namespaces: Mapping[str, Mapping[str, str]] | None = None) -> Slice:
    registry = Registry.build(resources, namespaces)
    return registry.cut(registry.agents)


def engine_of(
    *resources: Resource,
    namespaces: Mapping[str, Mapping[str, str]] | None = None,
    runtime: Runtime | None = None,
) -> Engine:
    """Give an engine that decides for every agent among the resources."""
    return Engine(slice_of(*resources, namespaces=namespaces), runtime)


def request(agent_key: str | None = AGENT, /, kind: str = "ToolCall", name: str = "crm.read", **action: Any) -> Any:
    return read_request({"agent": agent_key, "action": {"kind": kind, "name": name, **action}})


def read_request(data: Mapping[str, Any]) -> DecisionRequest:
    return msgspec.convert(data, DecisionRequest)


def ask(engine: Engine, agent_key: str = AGENT, /, **action: Any) -> Evaluation:
    """Ask about one action of an agent, given in camelCase."""
    return engine.decide(request(agent_key, **action))


def outcome(status: str = "Succeeded", **data: Any) -> OutcomeRequest:
    return msgspec.convert({"status": status, **data}, OutcomeRequest)


def all_of(evaluation: Evaluation) -> dict[str, Any]:
    """Give all that an evaluation says, as plain data that can be compared."""
    return {
        "answer": msgspec.to_builtins(evaluation.answer("id")),
        "recorded": msgspec.to_builtins(evaluation.recorded_action()),
        "durable": evaluation.judgement.durable,
        "digests": (evaluation.arguments_digest, evaluation.expected_digest),
    }
