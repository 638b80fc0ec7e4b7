"""The other replicas: where they are, which decision webhooks are connected to them, and whose runs they keep.

Every replica serves its own hub, so only together do they know what is connected, and what every run has done.
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
from fleetward_operator.hub.kept import KeptRuns
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
        self.server_name = f"{HUB_SERVICE}.{namespace}.svc"
        """The name in the certificate of each."""
        self._trust = trust
        self._changed = changed
        self._links: dict[str, tuple[LinkStatus, ...]] = {}
        self._kept: dict[str, KeptRuns] = {}
        """The runs that each keeps, as it said last."""
        self._budgets: set[str] = set()
        """Those that keep the ledger of budgets, as they said last."""
        self._urls = self._fixed
        self.problems: dict[str, str] = {}
        """Why a replica does not answer, by its URL."""

    @property
    def others(self) -> Others:
        """How to read the other replicas' records."""
        return Others(urls=lambda: self._urls, token=self.token, tls=self.tls, server_name=self.server_name)

    @property
    def urls(self) -> tuple[str, ...]:
        """The base URLs of the other replicas."""
        return self._urls

    @property
    def links(self) -> list[LinkStatus]:
        """The decision webhooks connected to the other replicas."""
        return [link for url in self._urls for link in self._links.get(url, ())]

    def token(self) -> str:
        """Read the token; the kubelet replaces it every now and then. Raises OSError."""
        return self._token_file.read_text().strip() if self._token_file is not None else ""

    def tls(self) -> ssl.SSLContext:
        """Say what to trust the others by."""
        return self._trust()

    def keeper(self, tag: str) -> str:
        """Give the base URL of the replica that keeps the runs of a tag. Raises LookupError, in words."""
        keeping = [url for url in self._urls if url in self._kept and self._kept[url].tag == tag]
        answering = [url for url in keeping if url not in self.problems]
        if len({self._kept[url].instance for url in answering}) > 1:
            said = " and ".join(answering)
            raise LookupError(f"{said} both say that they keep it, so one of their journals is a copy")
        # One that did not say its status in time may answer all the same.
        for url in (*answering, *keeping):
            return url
        known = ", ".join(self._urls) or "none"
        raise LookupError(
            f"it is down, or gone with its journal; of the other replicas known here ({known}) none is it"
        )

    def budget_keeper(self) -> str:
        """Give the base URL of the replica that keeps the ledger of budgets. Raises LookupError, in words."""
        keeping = [url for url in self._urls if url in self._budgets]
        for url in (*(url for url in keeping if url not in self.problems), *keeping):
            return url
        known = ", ".join(self._urls) or "none"
        raise LookupError(f"none of the other replicas known here ({known}) keeps the ledger; it is down, or gone")

    def twin(self, kept: KeptRuns) -> str:
        """Give the URL of another replica with a journal of the same tag; empty where there is none."""
        for url, other in self._kept.items():
            if other.tag == kept.tag and other.instance != kept.instance and url not in self.problems:
                return url
        return ""

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
        for gone in {*self._kept, *self._links} - set(self._urls):
            self._kept.pop(gone, None)
            self._budgets.discard(gone)
            self._links.pop(gone, None)
            self.problems.pop(gone, None)

    async def _ask(self, session: aiohttp.ClientSession, url: str) -> None:
        try:
            status = await self._status_of(session, url)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._links.pop(url, None)
            why = str(error) or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
            self._trouble(url, f"the replica {url} does not say what is connected to it: {why}")
            return
        self.problems.pop(url, None)
        if status.runs is not None:
            self._kept[url] = status.runs
        (self._budgets.add if status.keeps_budgets else self._budgets.discard)(url)
        if status.links != self._links.get(url):
            self._links[url] = status.links
            self._changed()

    async def _status_of(self, session: aiohttp.ClientSession, url: str) -> Status:
        async with session.get(
            url + STATUS_PATH,
            headers={"Authorization": f"Bearer {self.token()}"},
            ssl=self._trust(),
            server_hostname=self.server_name,
            timeout=aiohttp.ClientTimeout(total=ASK_SECONDS),
        ) as response:
            data = await response.read()
        if response.status != 200:
            raise ValueError(f"it answered {response.status}: {data[:200].decode(errors='replace')}")
        return msgspec.json.decode(data, type=Status)

    def _trouble(self, what: str, problem: str) -> None:
        if self.problems.get(what) != problem:
            _log.warning("%s", problem)
        self.problems[what] = problem
