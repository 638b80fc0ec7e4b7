"""The process by itself: without an API server, with a certificate that changes, asked nonsense."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.admission import Admission, Authority, review
from support.podpatch import pod
from support.waiting import until


@pytest.fixture
def silent() -> Iterator[int]:
    """Give the port of a server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


class Alone:
    """An admission process with a folder for its certificate, and an API server that may not be there."""

    def __init__(self, folder: Path, port: int) -> None:
        self.authority = Authority()
        self.folder = folder / "tls"
        self.folder.mkdir()
        self.write(*self.authority.issue())
        kubeconfig = folder / "kubeconfig"
        cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "c",
        }
        kubeconfig.write_text(json.dumps(content))
        options = ("--tls-dir", str(self.folder), "--kubeconfig", str(kubeconfig))
        self.admission = Admission(folder / "log", *options).start()
        until(lambda: "got a certificate" in self.admission.log, "a certificate")

    def write(self, certificate: bytes, key: bytes) -> None:
        """Write the certificate's files, each in one step."""
        for name, content in (("tls.crt", certificate), ("tls.key", key)):
            new = self.folder / f".{name}"
            new.write_bytes(content)
            new.rename(self.folder / name)

    @property
    def context(self) -> ssl.SSLContext:
        """Give what trusts it."""
        return self.authority.context

    def post(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        """Ask it for a review."""
        return self.admission.post(path, body, self.context)

    def served(self) -> bytes:
        """Give the certificate it serves now."""
        host, _, port = self.admission.listen.rpartition(":")
        with (
            socket.create_connection((host, int(port)), 5) as plain,
            self.context.wrap_socket(plain, server_hostname=host) as secured,
        ):
            found = secured.getpeercert(binary_form=True)
        assert found is not None
        return found


@pytest.fixture
def alone(tmp_path: Path, silent: int) -> Iterator[Alone]:
    running = Alone(tmp_path, silent)
    yield running
    running.admission.stop()


AGENT = {"group": "fleetward.dev", "version": "v1alpha1", "kind": "Agent"}
MALFORMED = {
    "no JSON": ("/mutate/pods", b"{", "the body is no AdmissionReview: "),
    "no object": ("/mutate/pods", b"[]", "Expected `object`, got `array`"),
    "no request": ("/mutate/pods", b'{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}', "`request`"),
    "another version": (
        "/mutate/pods",
        review(pod()).replace(b"k8s.io/v1", b"k8s.io/v1beta1"),
        "found admission.k8s.io/v1beta1 AdmissionReview, allowed admission.k8s.io/v1 AdmissionReview",
    ),
    "no uid": ("/mutate/pods", review(pod(), uid=None), "`$.request.uid`"),
    "another operation": ("/mutate/pods", review(pod(), operation="PATCH"), "`$.request.operation`"),
    "another kind": ("/mutate/pods", review(pod(), kind=AGENT), "request.kind: found Agent, allowed Pod"),
    "no pod": ("/mutate/pods", review({"metadata": {}, "spec": {}}), "request.object is no Pod: "),
    "no pod at all": ("/mutate/pods", review(None), "request.object is no Pod: "),
    "labels of numbers": ("/mutate/pods", review(pod(labels={"app": 1})), "`$.metadata.labels"),  # type: ignore[dict-item] # on purpose
    "no agent": ("/mutate/modes", review(pod()), "request.kind: found Pod, allowed Agent or AgentFleet"),
    "an agent of nothing": ("/mutate/modes", review({}, kind=AGENT), "request.object: is no object with metadata"),
    "no old one": (
        "/mutate/modes",
        review(pod(), kind=AGENT, operation="UPDATE"),
        "request.oldObject: is no object with metadata and spec",
    ),
    "no kind of ours": (
        "/validate/resources",
        review(pod()),
        "request.kind: found Pod, allowed Agent, AgentFleet, ActionCatalog",
    ),
}


def test_nonsense_is_refused_in_words(alone: Alone) -> None:
    for case, (path, body, says) in MALFORMED.items():
        status, problem = alone.post(path, body)
        assert status == 400, case
        assert problem["title"] == "The request is no review"
        assert says in problem["detail"], case
    status, problem = alone.post("/mutate/pods", b" " * (8 * 1024 * 1024 + 1))
    assert (status, problem["detail"]) == (413, "at most 8388608 bytes are taken")
    asked = sum(path == "/mutate/pods" for path, *_ in MALFORMED.values()) + 1
    counted = f'fleetward_admission_reviews_total{{outcome="malformed",path="/mutate/pods"}} {asked}.0'
    assert counted in alone.admission.probe("/metrics")[1]


def test_a_silent_api_server_is_an_error_and_no_answer(alone: Alone) -> None:
    """What the API server makes of an error is for the webhook configuration to say (failurePolicy)."""
    status, problem = alone.post("/mutate/pods", review(pod()))
    assert status == 500
    assert problem["detail"] == (
        "the API server could not be read: "
        "GET /apis/fleetward.dev/v1alpha1/namespaces/reports/agents?resourceVersion=0: "
        "no answer within 1.1 s"
    )
    assert alone.admission.probe() == (503, "GET /apis/fleetward.dev/v1alpha1/agents?limit=1: no answer within 1.1 s\n")
    assert alone.admission.probe("/healthz") == (200, "ok\n")


def test_modes_and_expressions_need_no_api_server(alone: Alone) -> None:
    agent = {"metadata": {"name": "a"}, "spec": {"role": "Worker", "operatingMode": "Paused"}}
    status, answer = alone.post("/mutate/modes", review(agent, kind=AGENT))
    assert status == 200
    assert answer["response"]["uid"] == "1"
    assert answer["response"]["patchType"] == "JSONPatch"
    kind = AGENT | {"kind": "AgentPolicy"}
    rule = {"name": "r", "match": {"agents": ["b"]}, "decision": "Deny"}
    body = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"rules": [rule]}}
    status, answer = alone.post("/validate/resources", review(body, kind=kind))
    assert answer["response"]["allowed"]
    assert answer["response"]["warnings"][0].startswith("what it refers to could not be checked: GET ")
    body["spec"]["rules"] = [rule | {"decision": "Perhaps"}]  # type: ignore[index] # JSON
    status, answer = alone.post("/validate/resources", review(body, kind=kind))
    assert answer["response"]["status"]["code"] == 422
    assert 'spec.rules[0].decision: found "Perhaps", allowed Allow, ' in answer["response"]["status"]["message"]


def test_what_did_not_change_is_never_refused(alone: Alone) -> None:
    kind = AGENT | {"kind": "AgentPolicy"}
    rule = {"name": "r", "match": {}, "decision": "Deny", "when": "nobody"}
    bad: dict[str, Any] = {"metadata": {"name": "p", "namespace": "n"}, "spec": {"rules": [rule]}}

    def allowed(new: dict[str, Any], old: dict[str, Any], of: dict[str, str] = kind) -> bool:
        body = review(new, kind=of, operation="UPDATE", oldObject=old)
        return bool(alone.post("/validate/resources", body)[1]["response"]["allowed"])

    worse = {**bad, "spec": {"rules": [rule | {"when": "somebody"}]}}
    assert allowed({**bad, "metadata": bad["metadata"] | {"labels": {"a": "b"}}}, bad)
    assert not allowed(worse, bad)
    assert allowed({**worse, "metadata": bad["metadata"] | {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, bad)
    odd = {"metadata": bad["metadata"], "spec": {"role": "Sorcerer"}}
    paused: dict[str, Any] = {**odd, "spec": {"role": "Sorcerer", "operatingMode": "Paused", "operatingReason": "odd"}}
    assert allowed(paused, odd, AGENT)
    assert not allowed({**paused, "spec": paused["spec"] | {"owner": "me"}}, odd, AGENT)


def test_a_new_certificate_is_taken_and_half_of_one_is_not(alone: Alone) -> None:
    first = alone.served()
    certificate, key = alone.authority.issue()
    (alone.folder / "tls.crt").write_bytes(certificate)  # its key is still the old one's
    until(lambda: "the certificate cannot be used" in alone.admission.log, "told of half a pair")
    assert alone.served() == first
    (alone.folder / "tls.key").write_bytes(key)
    until(lambda: alone.served() != first, "the new certificate")
    assert alone.served() == ssl.PEM_cert_to_DER_cert(certificate.decode())
    (alone.folder / "tls.crt").unlink()
    until(lambda: "No such file" in alone.admission.log, "told of no certificate")
    assert alone.served() == ssl.PEM_cert_to_DER_cert(certificate.decode())


def test_it_stops_when_told(alone: Alone) -> None:
    assert alone.admission.stop() == 0


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FLEETWARD_", "KUBE"))}
    command = [sys.executable, "-m", "fleetward_webhook.admission", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, check=False, env=clean | {"HOME": "/nowhere"} | environment
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((), "--image is missing; give the decision webhook's image, or set FLEETWARD_IMAGE"),
        (("--listen", "9443"), "found '9443', allowed HOST:PORT such as 0.0.0.0:9443, or :PORT for all"),
        (("--memory-limit", "many"), "found 'many', allowed a quantity such as 10m, 64Mi or 1"),
        (("--token-seconds", "60"), "found '60', allowed whole seconds from 600"),
        (("--image-pull-policy", "Often"), "found 'Often', allowed Always, IfNotPresent, Never"),
        (("--image", "i"), "names no cluster to go to"),
        (("--image", "i", "--kubeconfig", "/nowhere/config"), "/nowhere/config names no cluster to go to"),
    ],
)
def test_a_bad_start_is_told_in_words(arguments: tuple[str, ...], says: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_address_in_use_is_told(alone: Alone, silent: int) -> None:
    kubeconfig = str(alone.folder.parent / "kubeconfig")
    done = run(FLEETWARD_IMAGE="i", FLEETWARD_LISTEN=f"127.0.0.1:{silent}", FLEETWARD_KUBECONFIG=kubeconfig,
               FLEETWARD_HEALTH_LISTEN="127.0.0.1:0")  # fmt: skip
    assert done.returncode == 2
    assert f"fleetward-admission: cannot listen on 127.0.0.1:{silent}: " in done.stderr


def test_it_stops_at_once_on_an_interrupt(alone: Alone) -> None:
    os.kill(alone.admission.pid, signal.SIGINT)
    assert alone.admission.process is not None
    assert alone.admission.process.wait(20) == 0
