"""The way to the API server: one configuration for our own client and for kopf's session."""

import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration


class AccessError(Exception):
    """Why the API server cannot be reached at all, in words: no configuration, or one that does not read."""


@dataclass(frozen=True, slots=True)
class Access:
    """Which API server, as whom."""

    kubeconfig: Path | None = None
    """Left out: the pod's service account or, outside a pod, KUBECONFIG and ~/.kube/config."""
    context: str | None = None

    async def configuration(self) -> Configuration:
        """Load the configuration. Raises AccessError."""
        configuration = Configuration()
        try:
            if self.kubeconfig is None and self.context is None:
                with contextlib.suppress(config.ConfigException):
                    config.load_incluster_config(client_configuration=configuration)
                    return configuration
            await config.load_kube_config(
                config_file=str(self.kubeconfig) if self.kubeconfig else None,
                context=self.context,
                client_configuration=configuration,
            )
        except (config.ConfigException, OSError, ValueError) as error:
            where = self.kubeconfig or "the default kubeconfig"
            raise AccessError(f"{where} names no cluster to go to: {error}; give --kubeconfig and --context") from None
        return configuration

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[ApiClient]:
        """Give a client that lives as long as the block. Raises AccessError."""
        configuration = await self.configuration()
        # Else aiohttp reads ~/.netrc before each request, in a thread.
        configuration.client_session_kwargs = {"trust_env": False}
        async with ApiClient(configuration) as client:
            yield client


async def session(configuration: Configuration, middleware: aiohttp.ClientMiddlewareType) -> aiohttp.ClientSession:
    """Give an HTTP session of the running loop for kopf; each request passes through `middleware`.

    A service account's token is read anew for each request, as it is replaced every hour.
    """

    async def authorize(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        token = await configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        if token:
            request.headers["Authorization"] = token
        return await handler(request)

    connector = aiohttp.TCPConnector(ssl=_ssl(configuration), limit=0)
    return aiohttp.ClientSession(connector=connector, middlewares=(authorize, middleware))


def _ssl(configuration: Configuration) -> ssl.SSLContext | bool:
    if not configuration.host.startswith("https"):
        return True
    context = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
    if configuration.cert_file:
        context.load_cert_chain(configuration.cert_file, keyfile=configuration.key_file)
    if not configuration.verify_ssl:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context
