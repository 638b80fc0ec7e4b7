"""The two servers: reviews over TLS for the API server; probes and metrics over plain HTTP."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from ssl import SSLContext

import msgspec
from aiohttp import web

from fleetward_webhook.admission import metrics
from fleetward_webhook.admission.reads import ReadError
from fleetward_webhook.admission.review import Answer, MalformedError, Request, answer_review, read_review
from fleetward_webhook.admission.settings import Endpoint

MUTATE_PODS = "/mutate/pods"
MUTATE_MODES = "/mutate/modes"
VALIDATE_RESOURCES = "/validate/resources"

ANSWER_SECONDS = 2.5
"""A review is answered within this. The webhook configurations give it 3 s."""
MAX_BYTES = 8 * 1024 * 1024
"""An object and its old version, each of at most the 3 MiB that the API server takes, and what is around them."""
STOP_SECONDS = 3.0
"""How long reviews under way may take once the process is told to stop."""

Review = Callable[[Request], Awaitable[Answer]]
_log = logging.getLogger(__name__)


class CannotListenError(Exception):
    """Why an address cannot be listened at, in words."""


def reviews(handlers: Mapping[str, Review], counts: metrics.Metrics) -> web.Application:
    """Give the application that answers reviews."""
    application = web.Application(client_max_size=MAX_BYTES)
    for path, review in handlers.items():
        application.router.add_post(path, _handler(path, review, counts))
    return application


def _handler(path: str, review: Review, counts: metrics.Metrics) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(http: web.Request) -> web.Response:
        started = time.perf_counter()
        outcome, response = await _answer(http, review)
        counts.reviewed(path, outcome, time.perf_counter() - started)
        return response

    return handle


async def _answer(http: web.Request, review: Review) -> tuple[str, web.Response]:
    """Answer a review. What cannot be decided is an HTTP error, and not a refusal.

    The API server then does what the webhook configuration says (failurePolicy). For pods that is to go on, and its
    own policy refuses those that should have been injected: governed pods wait, all others run.
    """
    try:
        request = read_review(await http.read())
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await review(request)
    except MalformedError as error:
        return "malformed", _problem(400, "The request is no review", str(error))
    except web.HTTPRequestEntityTooLarge:
        return "malformed", _problem(413, "The request is too large", f"at most {MAX_BYTES} bytes are taken")
    except ReadError as error:
        return "error", _failed(f"the API server could not be read: {error}")
    except TimeoutError:
        return "error", _failed(f"the API server could not be read within {ANSWER_SECONDS:g} s")
    except Exception:  # noqa: BLE001 - whatever fails, the API server gets an answer, and it is no yes
        _log.exception("a review failed")
        return "error", _problem(500, "The review failed", "an internal error; the admission webhook's log has it")
    return answer.outcome, web.Response(body=answer_review(request, answer), content_type="application/json")


def _failed(why: str) -> web.Response:
    _log.warning("a review failed: %s", why)
    return _problem(500, "The review failed", why)


def _problem(status: int, title: str, detail: str) -> web.Response:
    """Give problem details (RFC 9457)."""
    body = msgspec.json.encode({"type": "about:blank", "title": title, "status": status, "detail": detail})
    return web.Response(status=status, body=body, content_type="application/problem+json")


def health(not_ready: Callable[[], str], counts: metrics.Metrics) -> web.Application:
    """Give the application of probes and metrics. `not_ready` says why reviews cannot be answered, or nothing."""

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(_: web.Request) -> web.Response:
        why = not_ready()
        return web.Response(status=503 if why else 200, text=f"{why or 'ready'}\n")

    async def render(_: web.Request) -> web.Response:
        return web.Response(body=counts.render(), headers={"Content-Type": metrics.CONTENT_TYPE})

    application = web.Application()
    application.router.add_get("/healthz", healthz)
    application.router.add_get("/readyz", readyz)
    application.router.add_get("/metrics", render)
    return application


class Server:
    """Serves one application at one endpoint."""

    def __init__(self, application: web.Application, context: SSLContext | None = None) -> None:
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=STOP_SECONDS)
        self._context = context

    async def listen(self, endpoint: Endpoint) -> Endpoint:
        """Start serving; return the endpoint with the port it really got. Raises CannotListenError."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, endpoint.host, endpoint.port, ssl_context=self._context)
        try:
            await site.start()
        except OSError as error:
            await self.stop()
            raise CannotListenError(f"cannot listen on {endpoint}: {error.strerror or error}") from None
        return Endpoint(endpoint.host, self._runner.addresses[0][1])

    async def stop(self) -> None:
        """Take no new connection, answer what is under way, close."""
        await self._runner.cleanup()
