"""Makes paths and addresses of a pod fit a process that has neither a file system nor a network of its own."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

LOOPBACK = re.compile(r"(?<![\w.:])(?:127\.0\.0\.1|0\.0\.0\.0|localhost):(\d+)(?!\d)")


def expand(text: str, env: Mapping[str, str]) -> str:
    """Expand `$(NAME)` as Kubernetes does: an unknown name stays as it is written, and `$$(NAME)` is not expanded."""
    return re.sub(
        r"\$\$|\$\(([^)]*)\)",
        lambda found: "$" if found[1] is None else env.get(found[1], found[0]),
        text,
    )


class Rewriter:
    """Rewrites the values of environment variables and arguments of one container.

    - A mount path, wherever it stands as a whole path or at the beginning of one, becomes the volume's directory.
    - `127.0.0.1`, `0.0.0.0` or `localhost`, followed by a port that is the pod's own, becomes the pod's address:
      containers of a pod share a loopback interface that others do not see, processes share the machine's.
      Any other port is left alone, so an address of the machine (a hub, an API server) still works.
    - `services` maps `host:port` of a Service to where it is served here, as there is no cluster DNS.
    """

    def __init__(
        self, *, mounts: Mapping[str, Path], address: str, ports: Collection[int], services: Mapping[str, str]
    ) -> None:
        self._address, self._ports, self._services = address, ports, services
        longest_first = sorted(mounts, key=len, reverse=True)
        choice = "|".join(re.escape(path.rstrip("/")) for path in longest_first)
        self._mounts = {path.rstrip("/"): str(target) for path, target in mounts.items()}
        self._paths = re.compile(rf"(?<![\w.-])({choice})(?![\w.-])") if mounts else None

    def __call__(self, text: str) -> str:
        """Rewrite one value."""
        for service, served in self._services.items():
            text = re.sub(rf"(?<![\w.-]){re.escape(service)}(?!\d)", served, text)
        text = LOOPBACK.sub(self._own, text)
        if self._paths is not None:
            text = self._paths.sub(lambda found: self._mounts[found[1]], text)
        return text

    def _own(self, found: "re.Match[str]") -> str:
        return f"{self._address}:{found[1]}" if int(found[1]) in self._ports else found[0]


def ports_of(containers: Iterable[Mapping[str, Any]]) -> set[int]:
    """Give the ports that containers declare, or that their probes ask."""
    found: set[int] = set()
    for container in containers:
        found |= {int(port["containerPort"]) for port in container.get("ports") or ()}
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for way in ("httpGet", "tcpSocket"):
                port = ((container.get(probe) or {}).get(way) or {}).get("port")
                found |= {port} if isinstance(port, int) else set()
    return found
