"""What a webhook process is told at its start: by options, or by the environment."""

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetward import __version__
from fleetward.stream.address import Address, parse_address
from fleetward_webhook.sidecar.credentials import Credentials
from fleetward_webhook.sidecar.limits import Limits

DEFAULT_LISTEN = "http://127.0.0.1:8180"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a webhook process is told at its start."""

    listen: Address
    health_listen: Address | None = None
    """Where the kubelet and Prometheus ask, beside `listen`."""
    hub: str
    credentials: Credentials | None = None
    """With a hub over https."""
    workload: str
    spool: str
    exit_with_parent: bool = False
    limits: Limits


def read_settings(arguments: Sequence[str] | None) -> Settings:
    """Read the options, then the environment. Ends the process with code 2, and words, for what cannot be."""
    parser = _parser()
    given = parser.parse_args(arguments)
    for name in ("hub", "workload", "spool"):
        if not getattr(given, name):
            parser.error(f"--{name} is missing; give it, or set {_variable(name)}")
    try:
        listen = parse_address(given.listen)
        health_listen = parse_host_port(given.health_listen) if given.health_listen else None
        credentials = _credentials(parse_address(given.hub, tls=True), given.hub_ca, given.hub_token)
    except ValueError as error:
        parser.error(str(error))
    return Settings(
        listen=listen,
        health_listen=health_listen,
        hub=given.hub,
        credentials=credentials,
        workload=given.workload,
        spool=given.spool,
        exit_with_parent=given.exit_with_parent,
        limits=Limits(
            body_seconds=given.body_timeout,
            rate=given.rate,
            burst=given.burst,
            connections=given.max_connections,
        ),
    )


def _credentials(hub: Address, ca: str, token: str) -> Credentials | None:
    options = {"hub-ca": ca, "hub-token": token}
    if hub.tls and (missing := [name for name, file in options.items() if not file]):
        name = missing[0]
        raise ValueError(f"--{name} is missing, and {hub} needs it; give it, or set {_variable(name)}")
    if not hub.tls and (given := [name for name, file in options.items() if file]):
        raise ValueError(f"--{given[0]} goes with https://, and the hub is {hub}: nothing would protect the token")
    return Credentials(Path(ca), Path(token)) if hub.tls else None


def parse_host_port(text: str) -> Address:
    """Read HOST:PORT, such as 0.0.0.0:8182 or [::]:8182. Raises ValueError."""
    host, _, port = text.rpartition(":")
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or any(c in host for c in "/@[] ") or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError(f"the address {text!r} is not of the form HOST:PORT, such as 0.0.0.0:8182")
    return Address(host=host, port=int(port))


def _parser() -> argparse.ArgumentParser:
    bounds = Limits()
    parser = argparse.ArgumentParser(
        prog="fleetward-webhook",
        description="Decides, beside the agents of one workload, what they may do. Agents ask on loopback only.",
        epilog="Each option can be set in the environment, too: --body-timeout as FLEETWARD_BODY_TIMEOUT, and so on.",
    )
    parser.add_argument("--version", action="version", version=f"fleetward-webhook {__version__}")

    def add(name: str, text: str, *, default: object = "", kind: Callable[[str], object] = str) -> None:
        key = name.replace("-", "_")
        parser.add_argument(
            f"--{name}", type=kind, default=os.environ.get(_variable(key), default), help=text, metavar=key.upper()
        )

    add(
        "listen",
        f"where agents ask: http://127.0.0.1:PORT or unix:///path (default {DEFAULT_LISTEN})",
        default=DEFAULT_LISTEN,
    )
    add("health-listen", "where /healthz, /readyz and /metrics are served besides, for other machines: HOST:PORT")
    add("hub", "where policies come from and records go: https://HOST:PORT, http://127.0.0.1:PORT or unix:///path")
    add(
        "hub-ca",
        "with https: the file of the CA certificates (PEM) that the hub's must come from; read at each connection",
    )
    add("hub-token", "with https: the file of the token that says who this is; read at each connection")
    add("workload", "the group of agents to decide for, as the hub knows it")
    add("spool", "the directory where records wait for the hub")
    add(
        "body-timeout",
        f"seconds a request body may take (default {bounds.body_seconds:g})",
        default=bounds.body_seconds,
        kind=_positive,
    )
    add(
        "rate",
        f"requests a second taken in the long run (default {bounds.rate:g})",
        default=bounds.rate,
        kind=_positive,
    )
    add("burst", f"requests taken at once (default {bounds.burst})", default=bounds.burst, kind=_count)
    add("max-connections", f"connections taken (default {bounds.connections})", default=bounds.connections, kind=_count)
    parser.add_argument(
        "--exit-with-parent",
        action="store_true",
        default=os.environ.get(_variable("exit_with_parent"), "").lower() in {"1", "true", "yes"},
        help="stop when standard input ends, as it does when the starting process is gone",
    )
    return parser


def _variable(name: str) -> str:
    return f"FLEETWARD_{name.upper().replace('-', '_')}"


def _positive(text: str) -> float:
    if not 0 < (value := float(text)) < float("inf"):
        raise ValueError
    return value


def _count(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError
    return value


_positive.__name__, _count.__name__ = (
    "positive number",
    "positive whole number",
)  # argparse names the type in its errors
