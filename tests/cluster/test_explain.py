"""`kubectl explain`: every field of every kind, spec and status, and what each one means."""

import typing
from collections.abc import Iterator
from typing import Any

import pytest
from support.controlplane.plane import ControlPlane

from fleetward.resources import KINDS
from fleetward.resources.base import Model

pytestmark = [pytest.mark.cluster, pytest.mark.xdist_group("cluster")]

OWN = ("spec", "status")


def models_in(annotation: Any) -> Iterator[type[Model]]:
    if isinstance(annotation, type) and issubclass(annotation, Model):
        yield annotation
    for argument in typing.get_args(annotation):
        yield from models_in(argument)


def fields_of(model: type[Model], under: str) -> Iterator[str]:
    """Every field of the model and of its parts, as a dotted path."""
    for name, field in model.model_fields.items():
        path = f"{under}.{field.alias or name}"
        yield path
        for part in models_in(field.annotation):
            yield from fields_of(part, path)


def expected(kind: str) -> set[str]:
    model = KINDS[kind]
    (spec,) = models_in(model.model_fields["spec"].annotation)
    return {*OWN, *fields_of(spec, "spec"), *fields_of(model.STATUS, "status")}


def explained(text: str) -> set[str]:
    """The paths that `kubectl explain --recursive` lists: each field on a line, its parts indented by two."""
    found: set[str] = set()
    way: list[str] = []
    for line in text.partition("FIELDS:\n")[2].splitlines():
        field, tab, _ = line.partition("\t")
        if tab:
            depth = (len(field) - len(field.lstrip())) // 2
            way = [*way[: depth - 1], field.strip()]
            found.add(".".join(way))
    return {path for path in found if path.partition(".")[0] in OWN}


@pytest.mark.parametrize("kind", KINDS)
def test_lists_every_field(plane: ControlPlane, kind: str) -> None:
    assert explained(plane.kubectl("explain", KINDS[kind].PLURAL, "--recursive")) == expected(kind)


def described(schema: dict[str, Any], under: str = "") -> Iterator[tuple[str, str]]:
    """Every field below, with its description, from the OpenAPI v3 that the API server publishes."""
    for name, field in schema.get("properties", {}).items():
        path = f"{under}.{name}".removeprefix(".")
        yield path, field.get("description", "")
        yield from described(field, path)
        yield from described(field.get("items", {}), path)


@pytest.mark.parametrize("kind", KINDS)
def test_says_what_each_field_means(plane: ControlPlane, kind: str) -> None:
    document = plane.request("GET", "/openapi/v3/apis/fleetward.dev/v1alpha1")
    schema = document["components"]["schemas"][f"dev.fleetward.v1alpha1.{kind}"]
    assert len(schema["description"]) > 10
    fields = {path: text for path, text in described(schema) if path.partition(".")[0] in OWN}
    assert fields.keys() == expected(kind)
    assert [path for path, text in fields.items() if len(text) < 10 or not text.endswith(".")] == []


def test_the_operating_mode_says_what_to_do(plane: ControlPlane) -> None:
    said = " ".join(plane.kubectl("explain", "agent.spec.operatingMode").split())
    assert "ENUM: Running Paused Stopped Quarantined" in said
    assert "Patch this to stop the agent" in said
    assert "Default: Running." in said


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("agentpolicy.spec.rules.match.names", "such as crm.*.export or **.send.*."),
        ("agentpolicy.spec.rules.match.kinds", "Allowed for each: ToolCall, ModelCall, Delegation, Plan or Message."),
        ("agentpolicy.spec.rules.retryAfterSeconds", "Allowed: 1 to 86400."),
        ("agentpolicy.spec.rules.obligations.field", "such as arguments.limit or result.rows.*.email."),
        ("agentbudget.spec.window.duration", "Allowed: a duration in h, m and s, in this order and with their units"),
        ("agentbudget.spec.thresholds.percent", "Allowed: 1 to 100."),
        ("clusteragentbudget.spec.settleAfterSeconds", "Default: 3600."),
        ("auditsink.spec.cloudEvents.timeoutSeconds", "Default: 10."),
        ("agent.spec.workload.serviceAccountName", "lower-case letters, digits and '-'"),
        ("agent.status.conditions", "Ready always"),
    ],
)
def test_says_what_is_allowed(plane: ControlPlane, field: str, words: str) -> None:
    """kubectl itself shows the choices of a text only: not those of a list, and no pattern, bound or default."""
    assert words in " ".join(plane.kubectl("explain", field).split())
