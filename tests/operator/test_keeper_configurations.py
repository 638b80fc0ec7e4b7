"""What the keeper wants in the cluster, before any API server sees it."""

from typing import Any

import pytest

from fleetward.resources import KINDS
from fleetward_operator.keeper import KeeperSettings, webhooks
from fleetward_operator.keeper.proof import Proof
from fleetward_operator.keeper.settings import repository

SETTINGS = KeeperSettings("example/webhook:1")
HOOKS = [
    *webhooks.mutating(SETTINGS, b"bundle")["webhooks"],
    *webhooks.validating(SETTINGS, b"bundle", "Fail")["webhooks"],
]


@pytest.mark.parametrize("hook", HOOKS, ids=lambda hook: hook["name"])
def test_no_webhook_can_stand_in_the_clusters_way(hook: dict[str, Any]) -> None:
    assert hook["timeoutSeconds"] == 3
    assert hook["sideEffects"] == "None"
    (rule,) = hook["rules"]
    allowed = {"pods", *(model.PLURAL for model in KINDS.values())}
    assert set(rule["resources"]) <= allowed
    assert rule["apiGroups"] == ([""] if rule["resources"] == ["pods"] else ["fleetward.dev"])
    selector = hook["namespaceSelector"]
    first = selector["matchExpressions"][0]
    assert first["key"] == "kubernetes.io/metadata.name"
    assert first["operator"] == "NotIn"
    assert "kube-system" in first["values"]
    blocks = hook["failurePolicy"] == "Fail"
    assert blocks == (hook["name"] == "resources.fleetward.dev")
    assert not blocks or not {"agents", "agentfleets", "pods"} & set(rule["resources"])


def test_every_kind_is_reviewed() -> None:
    reviewed = {*webhooks.BLOCKABLE, *webhooks.NEVER_BLOCKED}
    assert reviewed == {model.PLURAL for model in KINDS.values()}


def test_the_service_or_a_url() -> None:
    inside, outside = (
        webhooks.mutating(KeeperSettings("i", namespace="ours", admission_url=url), b"bundle")["webhooks"][0]
        for url in ("", "https://10.0.0.1:9443/")
    )
    service = {"namespace": "ours", "name": "fleetward-admission", "path": "/mutate/pods", "port": 443}
    assert inside["clientConfig"] == {"service": service, "caBundle": "YnVuZGxl"}
    assert outside["clientConfig"] == {"url": "https://10.0.0.1:9443/mutate/pods", "caBundle": "YnVuZGxl"}


@pytest.mark.parametrize("url", ["http://a", "https://u@a", "https://a?b", "https://a#b", "a:1"])
def test_a_url_the_api_server_would_refuse(url: str) -> None:
    with pytest.raises(ValueError, match=r"admission_url: .* must be https://"):
        KeeperSettings("i", admission_url=url)


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("webhook", "webhook"),
        ("webhook:1", "webhook"),
        ("r.example:5000/a/webhook", "r.example:5000/a/webhook"),
        ("r.example:5000/a/webhook:1@sha256:0", "r.example:5000/a/webhook"),
        ("r.example/webhook@sha256:0", "r.example/webhook"),
    ],
)
def test_repository(image: str, expected: str) -> None:
    assert repository(image) == expected


def test_validation_blocks_from_a_proof_until_it_fails_for_the_whole_grace() -> None:
    proof = Proof(60)
    assert not blocks(proof)
    assert not proof.saw("let through", 0)
    assert not proof.saw("let through", 100)
    assert proof.saw("", 101)
    assert blocks(proof)
    assert not proof.saw("let through", 200)
    assert not proof.saw("", 259), "it works again"
    assert not proof.saw("let through", 300)
    assert not proof.saw("let through", 359)
    assert proof.failing_for(359) == 59
    assert proof.saw("let through", 360)
    assert not blocks(proof)


def test_a_new_leader_gives_what_it_finds_the_whole_grace() -> None:
    proof = Proof(60)
    proof.adopt({"webhooks": [{"name": "resources.fleetward.dev", "failurePolicy": "Fail"}]}, 1000)
    assert blocks(proof)
    assert not proof.saw("let through", 1059)
    assert proof.saw("let through", 1060)
    fresh = Proof(60)
    fresh.adopt(None, 1000)
    assert not blocks(fresh)


def blocks(proof: Proof) -> bool:
    return proof.failure_policy == "Fail"
