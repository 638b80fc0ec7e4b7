"""What the admission webhook is told at its start, and what it makes of pods because of it."""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleetward import __version__
from fleetward.resources.names import HUB_PORT, HUB_SERVICE, SYSTEM_NAMESPACE

LISTEN = ":9443"
HEALTH_LISTEN = ":8081"
PULL_POLICIES = ("Always", "IfNotPresent", "Never")
MIN_TOKEN_SECONDS = 600
"""The API server gives no projected token for less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sidecar:
    """The decision webhook as it is put into pods. Quantities are Kubernetes'; an empty one is left out."""

    image: str
    image_pull_policy: str = "IfNotPresent"
    hub_url: str = f"https://{HUB_SERVICE}.{SYSTEM_NAMESPACE}.svc:{HUB_PORT}"
    cpu_request: str = "10m"
    memory_request: str = "64Mi"
    cpu_limit: str = ""
    memory_limit: str = "128Mi"
    spool_size: str = "256Mi"
    token_seconds: int = 3600


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens; without a host, on all addresses."""

    host: str | None
    port: int

    def __str__(self) -> str:
        host = self.host or ""
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an admission process is told at its start."""

    listen: Endpoint
    health_listen: Endpoint
    namespace: str
    """Fleetward's own: nothing in it is governed, and the certificate's Secret is there."""
    kubeconfig: Path | None = None
    context: str | None = None
    tls_dir: Path | None = None
    sidecar: Sidecar


def read_settings(arguments: Sequence[str] | None) -> Settings:
    """Read the command line and the environment; exits with 2, in words, where they do not make sense."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if not given.image:
        parser.error(f"--image is missing; give the decision webhook's image, or set {variable('image')}")
    return Settings(
        listen=given.listen,
        health_listen=given.health_listen,
        namespace=given.namespace,
        kubeconfig=Path(given.kubeconfig) if given.kubeconfig else None,
        context=given.context or None,
        tls_dir=Path(given.tls_dir) if given.tls_dir else None,
        sidecar=Sidecar(
            image=given.image,
            image_pull_policy=given.image_pull_policy,
            hub_url=given.hub_url or f"https://{HUB_SERVICE}.{given.namespace}.svc:{HUB_PORT}",
            cpu_request=given.cpu_request,
            memory_request=given.memory_request,
            cpu_limit=given.cpu_limit,
            memory_limit=given.memory_limit,
            spool_size=given.spool_size,
            token_seconds=given.token_seconds,
        ),
    )


def variable(name: str) -> str:
    """Give the environment variable that sets an option."""
    return f"FLEETWARD_{name.upper().replace('-', '_')}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fleetward-admission",
        description="Puts the decision webhook into agents' pods, holds pods of stopped agents, checks resources.",
        epilog="Each option can be set in the environment, too: --spool-size as FLEETWARD_SPOOL_SIZE, and so on.",
    )
    parser.add_argument("--version", action="version", version=f"fleetward-admission {__version__}")

    def add(name: str, text: str, *, default: str = "", kind: Callable[[str], object] = str) -> None:
        shown = f"{text} (default {default})" if default else text
        value = os.environ.get(variable(name), default)
        parser.add_argument(f"--{name}", type=kind, default=value, help=shown, metavar=name.upper().replace("-", "_"))

    preset = Sidecar(image="")
    add("listen", "HOST:PORT where the API server asks, over TLS", default=LISTEN, kind=_endpoint)
    add("health-listen", "HOST:PORT of /healthz, /readyz and /metrics", default=HEALTH_LISTEN, kind=_endpoint)
    add("namespace", "the namespace Fleetward runs in", default=SYSTEM_NAMESPACE)
    add("kubeconfig", "the way to the API server; left out, the pod's service account or the default kubeconfig")
    add("context", "the context in the kubeconfig")
    add("tls-dir", "a folder with tls.crt and tls.key, instead of the Secret in the namespace")
    add("image", "the decision webhook's image")
    add("image-pull-policy", "when it is pulled", default=preset.image_pull_policy, kind=_pull_policy)
    add("hub-url", "where decision webhooks find the hub; left out, its Service in the namespace")
    add("cpu-request", "CPU requested for a decision webhook", default=preset.cpu_request, kind=_quantity)
    add("memory-request", "memory requested for it", default=preset.memory_request, kind=_quantity)
    add("cpu-limit", "the CPU it may use; left out, any", kind=_quantity)
    add("memory-limit", "the memory it may use", default=preset.memory_limit, kind=_quantity)
    add("spool-size", "how much a pod's spool of records may hold", default=preset.spool_size, kind=_quantity)
    add("token-seconds", "how long its token is valid", default=str(preset.token_seconds), kind=_token_seconds)
    return parser


def _endpoint(text: str) -> Endpoint:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed HOST:PORT such as 0.0.0.0:9443, or :PORT for all")
    return Endpoint(host.removeprefix("[").removesuffix("]") or None, int(port))


def _quantity(text: str) -> str:
    if text and not re.fullmatch(r"[0-9]+(\.[0-9]+)?(m|[kMGTPE]|[KMGTPE]i)?", text):
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed a quantity such as 10m, 64Mi or 1")
    return text


def _pull_policy(text: str) -> str:
    if text not in PULL_POLICIES:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed {', '.join(PULL_POLICIES)}")
    return text


def _token_seconds(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < MIN_TOKEN_SECONDS:
        raise argparse.ArgumentTypeError(f"found {text!r}, allowed whole seconds from {MIN_TOKEN_SECONDS}")
    return int(text)
