"""The command lines of etcd, the API server, the controller manager and the scheduler."""

from pathlib import Path

CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "daemonset-controller",
    "deployment-controller",
    "disruption-controller",
    "endpointslice-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "node-lifecycle-controller",
    "pod-garbage-collector-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "statefulset-controller",
    "ttl-after-finished-controller",
    "validatingadmissionpolicy-status-controller",
)
"""What a fleet of agents needs. Volumes, quotas and cloud providers are left out to save memory."""

ADVERTISED = "192.0.2.1"
"""The API server wants an address that is not loopback to advertise (RFC 5737: one that nobody has). Nothing reads it,
as the endpoint reconciler is off."""

ISSUER = "https://kubernetes.default.svc"


def etcd(directory: Path, port: int, peer_port: int) -> list[str]:
    """Give etcd's. Data of a test need not survive the machine, so nothing is synced to disk."""
    client, peer = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer_port}"
    return [
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def apiserver(directory: Path, port: int, etcd_port: int) -> list[str]:
    """Give the API server's: RBAC, tokens from a file for the plane's own users, limits that no test reaches."""
    return [
        f"--etcd-servers=http://127.0.0.1:{etcd_port}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--advertise-address={ADVERTISED}",
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={directory / 'apiserver.crt'}",
        f"--tls-private-key-file={directory / 'apiserver.key'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={directory / 'service-account.key'}",
        f"--service-account-signing-key-file={directory / 'service-account.key'}",
        "--service-cluster-ip-range=10.96.0.0/24",
        "--max-requests-inflight=3000",
        "--max-mutating-requests-inflight=2000",
        "--profiling=false",
    ]


def controller_manager(directory: Path, port: int) -> list[str]:
    """Give the controller manager's. Each controller acts under its own service account, as in a real cluster."""
    return [
        *_client(directory, "kube-controller-manager", port),
        f"--controllers={','.join(CONTROLLERS)}",
        "--use-service-account-credentials=true",
        f"--service-account-private-key-file={directory / 'service-account.key'}",
        f"--root-ca-file={directory / 'ca.crt'}",
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def scheduler(directory: Path, port: int) -> list[str]:
    """Give the scheduler's."""
    return [
        *_client(directory, "kube-scheduler", port),
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]


def _client(directory: Path, name: str, port: int) -> list[str]:
    kubeconfig = directory / f"{name}.kubeconfig"
    return [
        f"--kubeconfig={kubeconfig}",
        f"--authentication-kubeconfig={kubeconfig}",
        f"--authorization-kubeconfig={kubeconfig}",
        "--leader-elect=false",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={directory / name}",
        "--profiling=false",
    ]
