"""A replica's hub with its store and the API of records, over TLS; several of them ask each other."""

import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
from kubernetes.aio.client import ApiClient
from support.certificates import Authority

from fleetward.audit.store import Store
from fleetward.budget.report import BudgetsReport
from fleetward_operator.hub.binding import WorkloadBinding
from fleetward_operator.hub.hub import Hub
from fleetward_operator.hub.server import HubServer
from fleetward_operator.records.access import Access, ClusterAccess
from fleetward_operator.records.routes import routes
from fleetward_operator.records.sources import Others


class Replica:
    """A running replica, and a client of it."""

    def __init__(self, store: Store, url: str, tls: ssl.SSLContext, server_name: str) -> None:
        self.store = store
        self.url = url
        self._tls = tls
        self._server_name = server_name

    @contextlib.asynccontextmanager
    async def get(
        self, path: str, token: str | None = None, **parameters: Any
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask, trusting it as a client does."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                self.url + path,
                params=[(k, v) for k, vs in parameters.items() for v in (vs if isinstance(vs, list) else [vs])],
                headers=headers,
                ssl=self._tls,
                server_hostname=self._server_name,
                timeout=aiohttp.ClientTimeout(total=60),
            ) as response,
        ):
            yield response

    async def lines(self, token: str, **parameters: Any) -> list[dict[str, Any]]:
        """Read records, with what else the answer says."""
        async with self.get("/v1/records", token, **parameters) as response:
            data = await response.read()
            assert response.status == 200, data
            return [msgspec.json.decode(line) for line in data.splitlines() if line]


@contextlib.asynccontextmanager
async def replica(
    api: ApiClient,
    authority: Authority,
    path: Path,
    server_name: str,
    *,
    urls: Callable[[], Sequence[str]] = tuple,
    token: Callable[[], str] = str,
    access: Access | None = None,
    budgets: Callable[[], BudgetsReport] = lambda: BudgetsReport(at=0.0),
) -> AsyncIterator[Replica]:
    """Run a replica; `urls` are the others, asked with `token`; `budgets` is how its pots stand."""
    tls = ssl.create_default_context(cafile=str(authority.file))
    with Store.open(path) as store:
        async with Hub(store, WorkloadBinding(lambda _: {})) as hub:
            others = Others(urls=urls, token=token, tls=lambda: tls, server_name=server_name)
            served = routes(store, hub, access or ClusterAccess(api), others, budgets)
            context = authority.context(server_name)
            async with HubServer(hub, "https://127.0.0.1:0", ssl=context, routes=served) as server:
                yield Replica(store, server.address, tls, server_name)
