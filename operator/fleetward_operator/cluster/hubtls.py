"""The hub's certificate, as every replica serves it: read from its Secret, and taken up anew when that changes."""

import asyncio
import logging
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path

from kubernetes.aio.client import ApiClient

from fleetward.resources.names import CA_FILE, HUB_TLS_SECRET
from fleetward_operator.keeper.tls import CERTIFICATE, KEY, decode
from fleetward_operator.kube.objects import SECRET, Objects
from fleetward_operator.kube.rest import RequestError

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """A server's certificate and key, and the CAs to trust it by; all PEM."""

    certificate: bytes
    key: bytes
    ca: bytes


async def hub_tls(api: ApiClient, namespace: str) -> TlsFiles | None:
    """Read the hub's certificate; None while there is none. Raises RequestError."""
    data = decode(await Objects(api).get(SECRET, HUB_TLS_SECRET, namespace))
    if not all(data.get(key) for key in (CERTIFICATE, KEY, CA_FILE)):
        return None
    return TlsFiles(data[CERTIFICATE], data[KEY], data[CA_FILE])


class HubCertificate:
    """An SSL context that always has the newest certificate; connections that are open keep theirs.

    `period` is how often, in seconds, the Secret is read; a certificate is replaced a month before it ends.
    """

    def __init__(self, api: ApiClient, namespace: str, *, period: float = 10.0) -> None:
        self._api = api
        self._namespace = namespace
        self._period = period
        self._files: TlsFiles | None = None
        self._ready = asyncio.Event()
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        """For clients of a hub: what to trust it by. Another context after each change; the first trusts nobody."""
        self.problem = "the hub has no certificate yet"
        """What is wrong, in one line; empty where nothing is."""

    async def ready(self) -> ssl.SSLContext:
        """Wait until there is a certificate, and give the context that `run` keeps up to date."""
        await self._ready.wait()
        return self.context

    async def run(self) -> None:
        """Read the Secret and take up its certificate, until cancelled."""
        while True:
            try:
                await self._look()
            except RequestError as error:
                self._complain(str(error))
            # Until the leader has made the first one, every second counts.
            await asyncio.sleep(self._period if self._ready.is_set() else min(1.0, self._period))

    async def _look(self) -> None:
        files = await hub_tls(self._api, self._namespace)
        if files is None:
            self._complain(f"Secret {self._namespace}/{HUB_TLS_SECRET} holds no certificate; the leader makes it")
            return
        if files != self._files:
            try:
                await asyncio.to_thread(self._load, files)
            except (ssl.SSLError, ValueError) as error:  # what is served stays, and the leader puts the Secret right
                self._complain(f"Secret {self._namespace}/{HUB_TLS_SECRET} holds no usable certificate: {error}")
                return
            _log.info("hub: serves the certificate of Secret %s/%s", self._namespace, HUB_TLS_SECRET)
            self._files = files
            self._ready.set()
        self.problem = ""

    def _load(self, files: TlsFiles) -> None:
        with tempfile.NamedTemporaryFile() as file:  # OpenSSL takes files only; this one is ours alone, and goes
            Path(file.name).write_bytes(files.certificate + files.key)
            # Tried on another first: one that is half loaded would serve nothing.
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(file.name)
            trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            trust.load_verify_locations(cadata=files.ca.decode("ascii", "replace"))
            self.context.load_cert_chain(file.name)
        self.trust = trust

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("hub: %s", problem)
        self.problem = problem
