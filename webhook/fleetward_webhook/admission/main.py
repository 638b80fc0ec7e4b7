"""`fleetward-admission`: the admission webhook as a process.

Exit codes: 0 when told to stop, 2 when it cannot start (a bad argument, no way to a cluster, an address in use).
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import sys
from collections.abc import Sequence

import msgspec
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient, Configuration

from fleetward import __version__
from fleetward.logs import log_to_stderr
from fleetward.resources.names import ADMISSION_TLS_SECRET
from fleetward_webhook.admission.metrics import Metrics
from fleetward_webhook.admission.modes import review_mode
from fleetward_webhook.admission.pods import Pods
from fleetward_webhook.admission.reads import Reader, ReadError
from fleetward_webhook.admission.resources import Resources
from fleetward_webhook.admission.review import Answer, Request
from fleetward_webhook.admission.server import (
    MUTATE_MODES,
    MUTATE_PODS,
    VALIDATE_RESOURCES,
    CannotListenError,
    Server,
    health,
    reviews,
)
from fleetward_webhook.admission.settings import Endpoint, Settings, read_settings
from fleetward_webhook.admission.tls import Certificate, from_folder, from_secret

CHECK_SECONDS = 1.0
"""How often it is tried, at the start, whether the API server gives what reviews need."""

_log = logging.getLogger(__name__)


class StartError(Exception):
    """Why the webhook cannot start, in one line."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the admission webhook until it is told to stop; return the exit code."""
    settings = read_settings(arguments)
    log_to_stderr()
    try:
        asyncio.run(run(settings))
    except (StartError, CannotListenError) as error:
        sys.stderr.write(f"fleetward-admission: {error}\n")
        return 2
    return 0


async def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT. Raises StartError and CannotListenError."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    configuration = await _configuration(settings)
    # Else aiohttp reads ~/.netrc before each request, in a thread, while a pod waits.
    configuration.client_session_kwargs = {"trust_env": False}
    async with ApiClient(configuration) as client:
        client.user_agent = f"fleetward-admission/{__version__}"
        await _serve(settings, Reader(client), stopping)


async def _serve(settings: Settings, reader: Reader, stopping: asyncio.Event) -> None:
    folder = settings.tls_dir
    source = from_folder(folder) if folder else from_secret(reader, settings.namespace, ADMISSION_TLS_SECRET)
    certificate, metrics, resources = Certificate(source), Metrics(), Resources(reader)
    access = Access(reader, settings.namespace)
    pods = Pods(reader, settings.sidecar, settings.namespace)

    async def modes(request: Request) -> Answer:
        return review_mode(request)

    handlers = {MUTATE_PODS: pods.review, MUTATE_MODES: modes, VALIDATE_RESOURCES: resources.review}
    async with contextlib.AsyncExitStack() as stack:
        probed = Server(health(lambda: access.problem or ("" if certificate.loaded else certificate.problem), metrics))
        asked = Server(reviews(handlers, metrics), certificate.context)
        health_endpoint = await probed.listen(settings.health_listen)
        stack.push_async_callback(probed.stop)
        endpoint = await asked.listen(settings.listen)
        stack.push_async_callback(asked.stop)
        await resources.warm_up()
        for task in (asyncio.create_task(certificate.keep()), asyncio.create_task(access.keep())):
            stack.push_async_callback(_cancel, task)
        gc.collect()
        gc.freeze()  # later collections pass over what is imported, and pods wait less
        _announce(endpoint, health_endpoint)
        await stopping.wait()
        _log.info("stopping")


class Access:
    """Whether the API server gives what reviews of pods need. Asked at the start; reviews tell what fails later."""

    def __init__(self, reader: Reader, namespace: str) -> None:
        self._reader = reader
        self._namespace = namespace
        self.problem = "the API server was not asked yet"
        """What is not there or not allowed; empty: all is well."""

    async def keep(self) -> None:
        """Ask until all is well."""
        while self.problem:
            problem = ""
            try:
                await self._reader.check(self._namespace)
            except ReadError as error:
                problem = str(error)
            if problem and problem != self.problem:
                _log.warning("not ready: %s", problem)
            self.problem = problem
            await asyncio.sleep(CHECK_SECONDS)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def _configuration(settings: Settings) -> Configuration:
    """Find the API server: as told, else as the pod's service account, else by the default kubeconfig."""
    configuration = Configuration()
    try:
        if settings.kubeconfig is None and settings.context is None:
            with contextlib.suppress(config.ConfigException):
                config.load_incluster_config(client_configuration=configuration)
                return configuration
        await config.load_kube_config(
            config_file=str(settings.kubeconfig) if settings.kubeconfig else None,
            context=settings.context,
            client_configuration=configuration,
        )
    except (config.ConfigException, OSError, ValueError) as error:
        where = settings.kubeconfig or "the default kubeconfig"
        raise StartError(f"{where} names no cluster to go to: {error}; give --kubeconfig and --context") from None
    return configuration


def _announce(endpoint: Endpoint, health_endpoint: Endpoint) -> None:
    line = msgspec.json.encode({"address": str(endpoint), "health": str(health_endpoint), "pid": os.getpid()})
    with contextlib.suppress(OSError):  # nobody listens
        sys.stdout.write(line.decode() + "\n")
        sys.stdout.flush()
    _log.info("listening on %s, health on %s", endpoint, health_endpoint)
