"""What `fleetward-operator` is told, by options or by the environment."""

import argparse
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetward import __version__
from fleetward.resources.names import HUB_PORT, SYSTEM_NAMESPACE
from fleetward_operator.hub.hub import DEFAULT_TTL
from fleetward_operator.kube.access import Access
from fleetward_operator.view.relist import RELIST_SECONDS

VIEW_BOUND_SECONDS = 10.0
"""How old the view of the cluster may be before no authority is given any more."""

LEAST_VIEW_BOUND_SECONDS = 6.0
"""A healthy view is up to 4 s old (see `watching.WATCH_SECONDS`); too close to that, authority would come and go."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to run an operator."""

    access: Access
    namespace: str
    identity: str
    data: Path
    image: str
    listen: str
    health_listen: str
    lease_seconds: float
    view_seconds: float
    relist_seconds: float
    admission_url: str
    tls_names: tuple[str, ...]
    admission_names: tuple[str, ...]
    excluded_namespaces: tuple[str, ...]
    ledger: Path | None
    """The file with the URL of the PostgreSQL database of the ledger; None: a file of the replica that keeps it."""
    ledger_keeper: str
    """The identity of the replica that keeps the ledger in a file; empty: this one."""
    peers: tuple[str, ...]
    peer_token: Path | None
    address: str


def read_settings(arguments: Sequence[str] | None = None) -> Settings:
    """Read the command line; what is left out comes from the environment. Ends the process (2) where it is wrong."""
    given = _parser().parse_args(arguments)
    return Settings(
        access=Access(Path(given.kubeconfig) if given.kubeconfig else None, given.context or None),
        namespace=given.namespace,
        identity=given.identity,
        data=Path(given.data),
        image=given.image,
        listen=given.listen,
        health_listen=given.health_listen,
        lease_seconds=given.lease_seconds,
        view_seconds=given.view_seconds,
        relist_seconds=given.relist_seconds,
        admission_url=given.admission_url,
        tls_names=_parts(given.tls_names),
        admission_names=_parts(given.admission_names),
        excluded_namespaces=_parts(given.excluded_namespaces),
        peer_token=Path(given.peer_token) if given.peer_token else None,
        peers=_parts(given.peers),
        ledger=Path(given.ledger_url_file) if given.ledger_url_file else None,
        ledger_keeper=given.ledger_keeper,
        address=given.address,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleetward-operator",
        description="Lets custom resources govern agents: serves the hub, writes status, evicts and gates pods.",
        epilog="Each option can be set in the environment, too: --lease-seconds as FLEETWARD_LEASE_SECONDS, and so on.",
    )
    parser.add_argument("--version", action="version", version=f"fleetward-operator {__version__}")

    def add(name: str, text: str, default: str) -> None:
        key = name.replace("-", "_").upper()
        parser.add_argument(f"--{name}", default=os.environ.get(f"FLEETWARD_{key}", default), help=text, metavar=key)

    def add_seconds(name: str, text: str, default: float, least: float, most: float) -> None:
        key = name.replace("-", "_").upper()
        parser.add_argument(
            f"--{name}",
            type=lambda value: _seconds(value, least, most),
            default=os.environ.get(f"FLEETWARD_{key}", default),
            help=f"{text} ({least:g} to {most:g}; default {default:g})",
            metavar=key,
        )

    add("kubeconfig", "which cluster; left out: the pod's service account, KUBECONFIG, ~/.kube/config", "")
    add("context", "which context of the kubeconfig", "")
    add("namespace", "the namespace Fleetward runs in", os.environ.get("POD_NAMESPACE") or SYSTEM_NAMESPACE)
    add("identity", "this replica's name", os.environ.get("POD_NAME") or f"{socket.gethostname()}-{os.getpid()}")
    add(
        "address",
        "this replica's own IP address, so that it does not take itself for a peer",
        os.environ.get("POD_IP", ""),
    )
    add(
        "data",
        "the directory of the audit store, of the journal of runs and of the ledger of budgets",
        "/var/lib/fleetward/audit",
    )
    add("image", "the decision webhook's image: governed pods must carry it", f"fleetward:{__version__}")
    add("listen", "where decision webhooks connect (TLS)", f"https://0.0.0.0:{HUB_PORT}")
    add("health-listen", "where /healthz, /readyz and /metrics are (no TLS)", "0.0.0.0:8080")
    add("admission-url", "where the API server finds the admission webhook; left out: its Service", "")
    add("tls-names", "further DNS names and IP addresses for the hub's certificate, separated by commas", "")
    add("admission-names", "the same for the admission webhook's certificate", "")
    add("excluded-namespaces", "namespaces left alone besides kube-system and our own, separated by commas", "")
    add(
        "ledger-url-file",
        "the file with the URL (postgresql://...) of the database that all replicas keep budgets in; left out: SQLite",
        "",
    )
    add("ledger-keeper", "with SQLite: the identity of the replica that keeps budgets; left out: this one", "")
    add("peer-token", "the file with this replica's token for the audience fleetward, to ask its peers with", "")
    add("peers", "base URLs of the other replicas, separated by commas; left out: the hub Service's endpoints", "")
    add_seconds("lease-seconds", "how long a webhook that lost the hub goes on deciding", DEFAULT_TTL, 1, 300)
    add_seconds(
        "view-seconds",
        "how old the view of the cluster may be before no authority is given any more",
        VIEW_BOUND_SECONDS,
        LEAST_VIEW_BOUND_SECONDS,
        300,
    )
    add_seconds("relist-seconds", "how often everything is listed anew", RELIST_SECONDS, 5, 86_400)
    return parser


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _seconds(text: str, least: float, most: float) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a number of seconds") from None
    if not least <= value <= most:
        raise argparse.ArgumentTypeError(f"found {text}, allowed {least:g} to {most:g}")
    return value
