"""The other replicas: where they are, and which decision webhooks are connected to them.

Every replica serves its own hub, so only together do they know what is connected. The one that leads asks the others.
"""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient

from fleetward.resources.names import HUB_PORT, HUB_SERVICE
from fleetward_operator.hub.hub import LinkStatus, Status
from fleetward_operator.kube.rest import RequestError, request
from fleetward_operator.records.sources import Others

ASK_SECONDS = 1.0
"""How often peers are asked, and how long each may take to answer."""

FIND_SECONDS = 5.0
"""How often peers are looked for."""

STATUS_PATH = "/v1/status"

_log = logging.getLogger(__name__)


class Peers:
    """The other replicas as last seen. `fixed`, where given, are their base URLs; else the hub Service tells.

    `token_file` holds this replica's own service-account token for the audience `fleetward`; `trust` gives what to
    trust the others by. `changed` is called when something else is connected to them than before.
    """

    def __init__(
        self,
        client: ApiClient,
        namespace: str,
        *,
        own_address: str,
        fixed: Sequence[str] = (),
        token_file: Path | None,
        trust: Callable[[], ssl.SSLContext],
        changed: Callable[[], None],
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._own_address = own_address
        self._fixed = tuple(fixed)
        self._token_file = token_file
        self._server_name = f"{HUB_SERVICE}.{namespace}.svc"
        self._trust = trust
        self._changed = changed
        self._links: dict[str, tuple[LinkStatus, ...]] = {}
        self._urls = self._fixed
        self.problems: dict[str, str] = {}
        """Why a replica does not answer, by its URL."""

    @property
    def others(self) -> Others:
        """How to read the other replicas' records."""
        return Others(urls=lambda: self._urls, token=self._token, tls=self._trust, server_name=self._server_name)

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs of the other replicas."""
        return self._urls

    @property
    def links(self) -> list[LinkStatus]:
        """The decision webhooks connected to the other replicas."""
        return [link for url in self._urls for link in self._links.get(url, ())]

    async def run(self) -> None:
        """Look and ask, until cancelled."""
        asked = FIND_SECONDS
        async with aiohttp.ClientSession() as session:
            while True:
                if not self._fixed and asked >= FIND_SECONDS:
                    await self._find()
                    asked = 0.0
                await asyncio.gather(*(self._ask(session, url) for url in self._urls))
                await asyncio.sleep(ASK_SECONDS)
                asked += ASK_SECONDS

    async def _find(self) -> None:
        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._namespace}/endpointslices"
        try:
            query = {"labelSelector": f"kubernetes.io/service-name={HUB_SERVICE}"}
            found = await request(self._client, "GET", path, f"list the endpoints of {HUB_SERVICE}", query=query)
        except RequestError as error:
            self._trouble(HUB_SERVICE, str(error))
            return
        self.problems.pop(HUB_SERVICE, None)
        addresses = {
            address
            for part in found["items"] or ()
            for endpoint in part.get("endpoints") or ()
            if endpoint.get("conditions", {}).get("ready") is not False
            for address in endpoint["addresses"]
        }
        hosts = sorted(f"[{a}]" if ":" in a else a for a in addresses - {self._own_address})
        self._urls = tuple(f"https://{host}:{HUB_PORT}" for host in hosts)

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> None:
        try:
            links = await self._links_of(session, url)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._links.pop(url, None)
            why = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
            self._trouble(url, f"the replica {url} does not say what is connected to it: {why}")
            return
        self.problems.pop(url, None)
        if links != self._links.get(url):
            self._links[url] = links
            self._changed()

    async def _links_of(self, session: aiohttp.ClientSession, url: str) -> tuple[LinkStatus, ...]:
        async with session.get(
            url + STATUS_PATH,
            headers={"Authorization": f"Bearer {self._token()}"},
            ssl=self._trust(),
            server_hostname=self._server_name,
            timeout=aiohttp.ClientTimeout(total=ASK_SECONDS),
        ) as response:
            data = await response.read()
        if response.status != 200:
            raise ValueError(f"it answered {response.status}: {data[:200].decode(errors='replace')}")
        return msgspec.json.decode(data, type=Status).links

    def _token(self) -> str:
        """Read the token; the kubelet replaces it every now and then."""
        return self._token_file.read_text().strip() if self._token_file is not None else ""

    def _trouble(self, what: str, problem: str) -> None:
        if self.problems.get(what) != problem:
            _log.warning("%s", problem)
        self.problems[what] = problem
