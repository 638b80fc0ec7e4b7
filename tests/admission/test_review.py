"""AdmissionReview on the wire."""

import base64
import json

import pytest

from fleetward_webhook.admission.review import Answer, Cause, Kind, MalformedError, Request, answer_review, read_review
from fleetward_webhook.admission.settings import read_settings

REQUEST = Request(uid="u-1", kind=Kind("fleetward.dev", "v1alpha1", "AgentPolicy"), operation="CREATE", name="p")


def answered(answer: Answer) -> dict[str, object]:
    review = json.loads(answer_review(REQUEST, answer))
    assert (review["apiVersion"], review["kind"]) == ("admission.k8s.io/v1", "AdmissionReview")
    response: dict[str, object] = review["response"]
    assert response.pop("uid") == "u-1"
    return response


def test_a_patch_travels_in_base64() -> None:
    patch = [{"op": "add", "path": "/metadata/labels", "value": {"a": "b"}}]
    response = answered(Answer("changed", patch=patch))
    assert response.pop("patch") == base64.b64encode(json.dumps(patch, separators=(",", ":")).encode()).decode()
    assert response == {"allowed": True, "patchType": "JSONPatch"}


def test_no_patch_is_no_patch() -> None:
    assert answered(Answer("unchanged")) == {"allowed": True}


def test_warnings_are_one_short_line_each() -> None:
    long = answered(Answer("warned", warnings=["a\nb", "x" * 200]))["warnings"]
    assert long == ["a b", "x" * 117 + "..."]


def test_a_refusal_of_an_object_names_its_fields() -> None:
    answer = Answer("refused", refusal="it has mistakes", causes=[Cause("spec.a", "found 1, allowed 2")])
    assert answered(answer) == {
        "allowed": False,
        "status": {
            "code": 422,
            "reason": "Invalid",
            "message": "it has mistakes",
            "details": {
                "group": "fleetward.dev",
                "kind": "AgentPolicy",
                "name": "p",
                "causes": [{"reason": "FieldValueInvalid", "field": "spec.a", "message": "found 1, allowed 2"}],
            },
        },
    }


def test_any_other_refusal_is_forbidden() -> None:
    status = {"code": 403, "reason": "Forbidden", "message": "no"}
    assert answered(Answer("refused", refusal="no")) == {"allowed": False, "status": status}


@pytest.mark.parametrize("body", [b"", b"null", b'{"kind": "AdmissionReview"}', b"\xff"])
def test_what_is_no_review_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedError, match="the body is no AdmissionReview"):
        read_review(body)


def test_settings_come_from_the_command_line_and_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEETWARD_IMAGE", "from-environment")
    monkeypatch.setenv("FLEETWARD_SPOOL_SIZE", "1Gi")
    monkeypatch.setenv("FLEETWARD_LISTEN", "[::1]:1")
    settings = read_settings(["--spool-size", "2Gi", "--namespace", "elsewhere"])
    assert settings.sidecar.image == "from-environment"
    assert settings.sidecar.spool_size == "2Gi"
    assert settings.sidecar.hub_url == "https://fleetward-hub.elsewhere.svc:8443"
    assert (settings.listen.host, settings.listen.port, str(settings.listen)) == ("::1", 1, "[::1]:1")
    assert (settings.health_listen.host, str(settings.health_listen)) == (None, ":8081")
    assert read_settings(["--hub-url", "https://h:1"]).sidecar.hub_url == "https://h:1"


def test_a_bad_setting_of_the_environment_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLEETWARD_TOKEN_SECONDS", "soon")
    with pytest.raises(SystemExit):
        read_settings(["--image", "i"])
    assert "--token-seconds: found 'soon', allowed whole seconds from 600" in capsys.readouterr().err
