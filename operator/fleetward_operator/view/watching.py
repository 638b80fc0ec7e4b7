"""kopf, in a thread and on a loop of its own: it watches, and tells the main loop what it saw. It keeps nothing."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import kopf

from fleetward.resources.base import GROUP, VERSION
from fleetward_operator.kube.access import Access, session
from fleetward_operator.view.liveness import Liveness, Observer
from fleetward_operator.view.source import KIND_OF, NAMESPACES, PODS

WATCH_SECONDS = 4
"""How long one watch lasts. The end of each proves the view; see `liveness`."""

WATCH_SLACK_SECONDS = 2
"""How much longer than that kopf waits for the end before it connects anew."""

BACKOFF_SECONDS = (0.1, 0.2, 0.5, 1.0, *(2.0,) * 10_000)
"""Between attempts while the API server does not answer: for hours, as an operator that gave up would help nobody."""

BLIND_SECONDS = 20.0
"""How long a kind may go unseen before kopf is begun anew. It looks up once which kinds there are, and what an API
server that was just starting did not name then, it would never watch."""

REQUEST_SECONDS = 10.0
"""How long one request other than a watch may take."""

STOP_SECONDS = 10.0

FOLLOWED = (*KIND_OF, NAMESPACES, PODS)
"""What is watched, by plural."""

_log = logging.getLogger(__name__)

Saw = Callable[[str, str | None, Mapping[str, Any]], None]
"""Called on the main loop with plural, event type (None: it was there already) and the object."""


class Watching:
    """kopf's watches. An asynchronous context manager of the main loop.

    `saw` gets every event; `listed` the plural of what kopf listed anew, when its watch could not go on; `failed` is
    called if kopf itself ends, which only happens when something is badly wrong: the process should end then.
    """

    def __init__(
        self,
        access: Access,
        liveness: Liveness,
        *,
        saw: Saw,
        listed: Callable[[str], None],
        failed: Callable[[str], None],
    ) -> None:
        self._access = access
        self._liveness = liveness
        self._saw = saw
        self._failed = failed
        self._main = asyncio.get_running_loop()
        self._observer = Observer(liveness, lambda plural: self._tell(listed, plural))
        self._over = False
        self._began = time.monotonic()
        self._stop = threading.Event()
        """Ends the kopf that runs now."""
        self._thread = threading.Thread(target=self._run, name="kopf", daemon=True)

    async def __aenter__(self) -> Self:
        self._thread.start()
        self._overseeing = asyncio.create_task(self._oversee())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over = True
        self._overseeing.cancel()
        self._stop.set()
        await asyncio.to_thread(self._thread.join, STOP_SECONDS)

    async def _oversee(self) -> None:
        """Have kopf begin anew when it does not see what it should."""
        while True:
            await asyncio.sleep(1.0)
            blind = min(self._liveness.age_seconds(), time.monotonic() - self._began)
            if blind > BLIND_SECONDS and not self._stop.is_set():
                _log.warning("%s went unseen for %.0f s; watching begins anew", self._liveness.stalest(), blind)
                self._stop.set()

    def _tell(self, function: Callable[..., None], *arguments: object) -> None:
        """Call a function on the main loop, unless that has ended."""
        if not self._main.is_closed():
            self._main.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        problem = ""
        while not self._over and not problem:
            self._began, self._stop = time.monotonic(), threading.Event()
            try:
                asyncio.run(self._operate(self._stop))
            except Exception as error:  # noqa: BLE001 - whatever ended kopf, the process must not go on blind
                problem = f"{type(error).__name__}: {error}"
            if not self._stop.is_set():
                problem = problem or "it ended"
        if problem:
            self._tell(self._failed, f"kopf stopped watching: {problem}")

    async def _operate(self, stop: threading.Event) -> None:
        async with contextlib.AsyncExitStack() as sessions:
            await kopf.operator(
                registry=self._registry(sessions),
                settings=_settings(),
                clusterwide=True,
                standalone=True,  # the Lease decides who writes; kopf's peering is neither needed nor trusted
                stop_flag=stop,
            )

    def _registry(self, sessions: contextlib.AsyncExitStack) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: object) -> kopf.AiohttpSession:
            configuration = await self._access.configuration()
            opened = await sessions.enter_async_context(await session(configuration, self._observer))
            return kopf.AiohttpSession(server=configuration.host, aiohttp_session=opened)

        def follow(plural: str, group: str, version: str) -> None:
            @kopf.on.event(group=group, version=version, plural=plural, registry=registry, id=f"see-{plural}")
            async def see(event: kopf.RawEvent, **_: object) -> None:  # kopf has a thread for each that is not async
                self._tell(self._saw, plural, event["type"], event["object"])

        for plural in KIND_OF:
            follow(plural, GROUP, VERSION)
        follow(NAMESPACES, "", "v1")
        follow(PODS, "", "v1")
        return registry


def _settings() -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.watching.server_timeout = WATCH_SECONDS
    settings.watching.client_timeout = WATCH_SECONDS + WATCH_SLACK_SECONDS
    settings.watching.connect_timeout = WATCH_SLACK_SECONDS
    settings.watching.chunk_size = 500
    settings.networking.request_timeout = REQUEST_SECONDS
    settings.networking.connect_timeout = WATCH_SLACK_SECONDS
    settings.networking.error_backoffs = BACKOFF_SECONDS
    settings.posting.enabled = False  # Events are ours: said once, and worth reading
    settings.scanning.disabled = True  # the kinds are known; no right to watch CRDs and namespaces for them is needed
    return settings
