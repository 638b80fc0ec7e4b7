"""A Kubernetes control plane of one's own: etcd, API server, controller manager and scheduler as local processes."""

import asyncio
import json
import os
import random
import secrets
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kubernetes.aio import client, config
from support.controlplane import flags
from support.controlplane.build import program
from support.controlplane.certificates import write_certificates
from support.controlplane.errors import KubectlError, StartError
from support.controlplane.kubeconfig import kubeconfig, write_kubeconfig
from support.controlplane.programs import Program

READY_WITHIN = 90.0
"""Seconds that starting may take; on an idle machine it takes four."""

USERS = {
    "admin": ("admin", "system:masters"),
    "kube-controller-manager": ("system:kube-controller-manager", ""),
    "kube-scheduler": ("system:kube-scheduler", ""),
}
"""The plane's own users: for each, who it is for the API server, and its group."""


class ControlPlane:
    """Kubernetes without nodes, on loopback and free ports, in a private directory that goes when it stops.

    No process of it outlives this one, however this one ends. Raises `UnavailableError` or `BuildError` (see `build`),
    and `StartError` with the end of the log of what did not start. Its methods block: in an event loop that serves
    something else too (a `ProcessNode`), call them by `asyncio.to_thread`.
    """

    def __init__(
        self, *, controllers: bool = True, scheduler: bool = True, apiserver_options: Sequence[str] = ()
    ) -> None:
        self._with = {"kube-controller-manager": controllers, "kube-scheduler": scheduler}
        self._kubectl = program("kubectl")
        self.directory = Path(tempfile.mkdtemp(prefix="fleetward-plane-"))
        ports = free_ports(5)
        self.port = ports[0]
        """The API server's; it keeps it over restarts."""
        self.url = f"https://127.0.0.1:{self.port}"
        self.ca_file = self.directory / "ca.crt"
        self.admin_kubeconfig = self.directory / "admin.kubeconfig"
        write_certificates(self.directory)
        self._write_users()
        self.ssl = ssl.create_default_context(cafile=str(self.ca_file))
        arguments = {
            "etcd": flags.etcd(self.directory, ports[1], ports[2]),
            "kube-apiserver": [*flags.apiserver(self.directory, ports[0], ports[1]), *apiserver_options],
            "kube-controller-manager": flags.controller_manager(self.directory, ports[3]),
            "kube-scheduler": flags.scheduler(self.directory, ports[4]),
        }
        self.programs = {
            name: Program(program(name), line, self.directory / f"{name}.log")
            for name, line in arguments.items()
            if self._with.get(name, True)
        }
        """The processes by program name, in the order in which they start."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start everything, and return once all of it serves and namespaces get their service accounts."""
        try:
            self.programs["etcd"].start()
            self.start_apiserver()
            for name, wanted in self._with.items():
                if wanted:
                    self.programs[name].start()
            if self._with["kube-controller-manager"]:
                self._wait("kube-controller-manager", lambda: self.namespace_ready("default"))
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop everything and remove the directory."""
        for running in reversed(self.programs.values()):
            running.stop() if running.name == "etcd" else running.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start_apiserver(self) -> None:
        """Start the API server and wait until it serves."""
        self.programs["kube-apiserver"].start()
        self._wait("kube-apiserver", self.ready)

    def stop_apiserver(self) -> None:
        """Kill the API server as a crash does. Its port stays its own."""
        self.programs["kube-apiserver"].kill()

    def restart_apiserver(self) -> None:
        """Kill the API server and start it anew, at the same URL, with the same data."""
        self.stop_apiserver()
        self.start_apiserver()

    def ready(self) -> bool:
        """Say whether the API server says of itself that it serves."""
        try:
            self.request("GET", "/readyz")
        except OSError:
            return False
        return True

    def namespace_ready(self, namespace: str) -> bool:
        """Say whether pods can be made in a namespace: it has its service account and the CA's ConfigMap."""
        try:
            self.request("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/default")
            self.request("GET", f"/api/v1/namespaces/{namespace}/configmaps/kube-root-ca.crt")
        except OSError:
            return False
        return True

    def kubectl(self, *arguments: str, input: str | None = None, check: bool = True) -> str:  # noqa: A002 - as subprocess names it
        """Run kubectl as admin and give its output; with `check` off, also what it wrote to stderr, after it.

        Raises `KubectlError` where it fails and `check` is on.
        """
        home = {"KUBECONFIG": str(self.admin_kubeconfig), "KUBECACHEDIR": str(self.directory / "kubectl")}
        done = subprocess.run(
            [self._kubectl, *arguments],
            input=input,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            env={**os.environ, **home},
        )
        if not check:
            return done.stdout + done.stderr
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}", done.stderr)
        return done.stdout

    def kubeconfig_for(
        self,
        namespace: str,
        service_account: str,
        *,
        audiences: tuple[str, ...] = (),
        seconds: int = 3600,
        url: str | None = None,
    ) -> Path:
        """Write a kubeconfig with a token that the API server issued for a service account (TokenRequest)."""
        token = self.token_for(namespace, service_account, audiences=audiences, seconds=seconds)
        content = kubeconfig(url or self.url, self.ca_file, token, user=service_account, namespace=namespace)
        name = f"{namespace}-{service_account}-{secrets.token_hex(4)}.kubeconfig"
        return write_kubeconfig(self.directory / "kubeconfigs" / name, content)

    def token_for(
        self, namespace: str, service_account: str, *, audiences: tuple[str, ...] = (), seconds: int = 3600
    ) -> str:
        """Give a token for a service account; 600 s is the shortest that the API server issues."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{service_account}/token"
        spec = {"audiences": list(audiences), "expirationSeconds": seconds}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return str(self.request("POST", path, body)["status"]["token"])

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Make one request as admin and give the answer's JSON (its text where it is none).

        Raises `urllib.error.HTTPError` for an answer that is an error and `OSError` where there is none.
        """
        headers = {"Authorization": f"Bearer {self._tokens['admin']}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        asked = urllib.request.Request(self.url + path, data, headers, method=method)  # noqa: S310 - https, ours
        with urllib.request.urlopen(asked, timeout=15, context=self.ssl) as answer:  # noqa: S310 - as above
            text = answer.read().decode()
        return json.loads(text) if text[:1] in "{[" else text

    @asynccontextmanager
    async def api(self) -> AsyncIterator[client.ApiClient]:
        """Give a client of the API server as admin, closed in the end."""
        async with connected(self.admin_kubeconfig) as api:
            yield api

    def _write_users(self) -> None:
        self._tokens = {name: secrets.token_urlsafe(24) for name in USERS}
        lines = [f'{self._tokens[name]},{user},{name},"{group}"\n' for name, (user, group) in USERS.items()]
        tokens = self.directory / "tokens.csv"
        tokens.touch(mode=0o600)
        tokens.write_text("".join(lines))
        for name, token in self._tokens.items():
            content = kubeconfig(self.url, self.ca_file, token, user=name)
            write_kubeconfig(self.directory / f"{name}.kubeconfig", content)

    def _wait(self, name: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_WITHIN
        while not condition():
            for running in self.programs.values():
                if not running.running and running.log.exists():
                    raise StartError(f"{running.name} ended while {name} started. Its log ends with:\n{running.tail()}")
            if time.monotonic() > deadline:
                tail = self.programs[name].tail()
                raise StartError(f"{name} was not ready after {READY_WITHIN:.0f} s. Its log ends with:\n{tail}")
            time.sleep(0.05)


@asynccontextmanager
async def connected(kubeconfig_file: Path) -> AsyncIterator[client.ApiClient]:
    """Give a client for a kubeconfig, closed in the end."""
    configuration = client.Configuration()
    await config.load_kube_config(str(kubeconfig_file), client_configuration=configuration, persist_config=False)
    try:
        async with client.ApiClient(configuration) as api:
            yield api
    finally:
        await _let_go()


async def _let_go() -> None:
    """Give the loop a moment to close what was cancelled while it was being connected: its socket is open until then.

    Else whichever test runs when the garbage is collected fails by its ResourceWarning.
    """
    loop = asyncio.get_running_loop()
    watched = getattr(loop, "_selector", None)
    for _ in range(100):
        if watched is None or len(watched.get_map()) <= 1:  # its own waker is the one
            return
        await asyncio.sleep(0.005)


def free_ports(count: int) -> list[int]:
    """Give ports that nobody listens on, below those that Linux takes for outgoing connections.

    So no connection takes the API server's port while it is down.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randint(15000, 31999)
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
    return found
