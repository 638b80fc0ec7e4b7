"""The admission webhook as a cluster runs it: a process under its service account, asked by the real API server."""

import base64
import contextlib
import ipaddress
import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.controlplane.plane import ControlPlane
from support.waiting import until

from fleetward_operator.keeper import governedpods, injectedpods, webhooks
from fleetward_operator.keeper.settings import KeeperSettings

GROUP = "fleetward.dev"
IMAGE = "example.com/fleetward-webhook:test"
SECRET = "fleetward-admission-tls"  # noqa: S105 - the name of a Secret

CLUSTER_RULES = [
    {"apiGroups": [GROUP], "resources": ["agents", "agentfleets"], "verbs": ["get", "list"]},
    {
        "apiGroups": [GROUP],
        "resources": ["actioncatalogs", "agentbudgets", "clusteragentbudgets"],
        "verbs": ["list"],
    },
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get"]},
]
"""All that the admission webhook may do in the whole cluster."""
SYSTEM_RULES = [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": [SECRET], "verbs": ["get"]}]
"""All that it may do, besides, in its own namespace."""


class Authority:
    """A CA of the test's own, and certificates for 127.0.0.1 from it."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = self._sign("admission CA", self._key.public_key(), ca=True)

    @property
    def pem(self) -> bytes:
        """The CA's certificate."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def context(self) -> ssl.SSLContext:
        """Give what trusts the CA."""
        return ssl.create_default_context(cadata=self.pem.decode())

    def issue(self) -> tuple[bytes, bytes]:
        """Give a new certificate and its key, both PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign("fleetward-admission", key.public_key(), ca=False)
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM), private

    def _sign(self, name: str, public: ec.EllipticCurvePublicKey, *, ca: bool) -> x509.Certificate:
        now = datetime.now(UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admission CA")])
        addresses = [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
            .sign(self._key, hashes.SHA256())
        )


class Admission:
    """A `fleetward-admission` process; it keeps its ports over restarts."""

    def __init__(self, log: Path, *options: str, listen: str = "127.0.0.1:0", health: str = "127.0.0.1:0") -> None:
        self.log_file = log
        self._command = [sys.executable, "-m", "fleetward_webhook.admission", *options]
        self.listen, self.health = listen, health
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> "Admission":
        """Start it and wait until it says where it listens."""
        command = [*self._command, "--listen", self.listen, "--health-listen", self.health, "--image", IMAGE]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FLEETWARD_")}
        with self.log_file.open("a") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        said = json.loads(line)
        self.listen, self.health = said["address"], said["health"]
        return self

    @property
    def log(self) -> str:
        """Give what it logged."""
        return self.log_file.read_text()

    @property
    def pid(self) -> int:
        """Give its process id."""
        assert self.process is not None
        return self.process.pid

    def probe(self, path: str = "/readyz") -> tuple[int, str]:
        """Ask its health listener: the status, and what it says."""
        try:
            with urllib.request.urlopen(f"http://{self.health}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def until_ready(self) -> "Admission":
        """Wait until it is ready."""
        until(lambda: self.probe()[0] == 200, f"ready: {self.probe()[1]}")
        return self

    def post(self, path: str, body: bytes, context: ssl.SSLContext) -> tuple[int, dict[str, Any]]:
        """Ask it for a review as the API server does: the status, and the answer or problem."""
        url = f"https://{self.listen}{path}"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=20, context=context) as answer:  # noqa: S310 - ours
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def kill(self) -> None:
        """Kill it as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> int:
        """Stop it; give its exit code."""
        return self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> int:
        process, self.process = self.process, None
        if process is None:
            return 0
        process.send_signal(number)
        try:
            return process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()


def review(body: Any, **request: Any) -> bytes:
    """Give an AdmissionReview of a new pod in namespace `reports`, unless `request` says otherwise."""
    asked = {
        "uid": "1",
        "kind": {"group": "", "version": "v1", "kind": "Pod"},
        "operation": "CREATE",
        "namespace": "reports",
        "userInfo": {"username": "alice"},
        "object": body,
    }
    whole = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": asked | request}
    return json.dumps(whole).encode()


def allow(plane: ControlPlane, namespace: str, account: str) -> None:
    """Make a service account that may do what the admission webhook needs, and nothing else."""
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    name = f"{namespace}-{account}"
    apply(
        plane,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account, "namespace": namespace}},
        _role("ClusterRole", {"name": name}, CLUSTER_RULES),
        _binding("ClusterRoleBinding", {"name": name}, "ClusterRole", subject),
        _role("Role", {"name": name, "namespace": namespace}, SYSTEM_RULES),
        _binding("RoleBinding", {"name": name, "namespace": namespace}, "Role", subject),
    )


def disallow(plane: ControlPlane, namespace: str, account: str) -> None:
    """Remove what `allow` made in the whole cluster."""
    name = f"{namespace}-{account}"
    plane.kubectl("delete", "clusterrole,clusterrolebinding", name, "--ignore-not-found")


def put_certificate(plane: ControlPlane, namespace: str, pair: tuple[bytes, bytes]) -> None:
    """Write the Secret with the webhook's certificate."""
    data = {name: base64.b64encode(part).decode() for name, part in zip(("tls.crt", "tls.key"), pair, strict=True)}
    metadata = {"name": SECRET, "namespace": namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": metadata, "data": data}
    apply(plane, secret)


@contextlib.contextmanager
def configured(plane: ControlPlane, name: str, address: str, ca: bytes, system: str) -> Iterator[None]:
    """Tell the API server to ask the webhook, as the operator does."""
    apply(plane, *configurations(name, address, ca, system))
    try:
        yield
    finally:
        plane.kubectl("delete", "mutatingwebhookconfiguration,validatingwebhookconfiguration", name)


def configurations(name: str, address: str, ca: bytes, system: str) -> list[dict[str, Any]]:
    """Give the webhook configurations that the operator makes, as they are once validation has proven itself."""
    settings = KeeperSettings(webhook_image=IMAGE, namespace=system, admission_url=f"https://{address}")
    api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": name}}
    return [
        {**api, "kind": "MutatingWebhookConfiguration", **webhooks.mutating(settings, ca)},
        {**api, "kind": "ValidatingWebhookConfiguration", **webhooks.validating(settings, ca, "Fail")},
    ]


@contextlib.contextmanager
def guarded(plane: ControlPlane, name: str, system: str) -> Iterator[None]:
    """Have the API server itself refuse ungoverned pods of agents, as the operator does."""
    settings = KeeperSettings(webhook_image=IMAGE, namespace=system)
    names = (f"{name}-injected", name)
    for one, part in zip(names, (injectedpods, governedpods), strict=True):
        api = {"apiVersion": "admissionregistration.k8s.io/v1", "metadata": {"name": one}}
        policy = {**api, "kind": "ValidatingAdmissionPolicy", **part.policy(settings)}
        binding = {**api, "kind": "ValidatingAdmissionPolicyBinding", **part.binding()}
        binding["spec"] = {**binding["spec"], "policyName": one}
        apply(plane, policy, binding)
    try:
        yield
    finally:
        plane.kubectl("delete", "validatingadmissionpolicy,validatingadmissionpolicybinding", *names)


def apply(plane: ControlPlane, *objects: dict[str, Any]) -> str:
    """Apply objects as admin; give what kubectl says, warnings included."""
    return plane.kubectl("apply", "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))


def _role(kind: str, metadata: dict[str, str], rules: list[dict[str, Any]]) -> dict[str, Any]:
    return {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind, "metadata": metadata, "rules": rules}


def _binding(kind: str, metadata: dict[str, str], role: str, subject: dict[str, str]) -> dict[str, Any]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": role, "name": metadata["name"]}
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": reference,
        "subjects": [subject],
    }
