"""A sidecar speaks for the agents of its pod, and its pod is the one its token was made for.

The token is the pod's projected service-account token for the audience `fleetward`. The API server judges it
(TokenReview), so one that was revoked, or whose pod is gone, is worth nothing. The API server remembers its own
judgement for ten seconds.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from kubernetes.aio.client import ApiClient

from fleetward.registry.registry import Registry
from fleetward.resources.names import AUDIENCE, SYSTEM_NAMESPACE
from fleetward_operator.kube.events import EventPoster, about
from fleetward_operator.kube.rest import RequestError, request
from fleetward_operator.view.pods import Pod, Pods, read_pod
from fleetward_operator.view.workloads import Workloads, excluded, left_alone

AT_ONCE = 16
"""How many sidecars are authenticated at a time; after a restart all of them come at once."""

REVIEW_SECONDS = 2.0
"""How long one question to the API server may take. A sidecar's hello has five seconds, and takes two questions."""

UNSEEN_SECONDS = 30.0
"""How long a pod that was read live may be missing from the watched ones before it counts as gone."""

_USER = "system:serviceaccount:"
_POD_NAME = "authentication.kubernetes.io/pod-name"
_POD_UID = "authentication.kubernetes.io/pod-uid"
_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"


@dataclass(frozen=True, slots=True)
class _Identity:
    """Whom a token was made for."""

    namespace: str
    service_account: str
    pod: str
    uid: str


@dataclass(slots=True)
class _Known:
    """The pod of a sidecar that was let in."""

    pod: Pod
    read_at: float
    watched: bool
    """Whether the watch has shown this very pod."""


class PodBinding:
    """Binds sidecars to pods, as `fleetward_operator.hub.binding.Binding` asks for.

    `pods` are those the operator watches, `registry` gives the registry in force, `system` is the namespace that
    Fleetward itself runs in; it and `excluded_namespaces` are left alone. Whatever cannot be found out refuses, and
    nothing of a refusal is kept.
    """

    def __init__(
        self,
        api: ApiClient,
        pods: Pods,
        registry: Callable[[], Registry],
        *,
        system: str = SYSTEM_NAMESPACE,
        excluded_namespaces: Iterable[str] = (),
        events: EventPoster | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._pods = pods
        self._registry = registry
        self._never = left_alone(system, excluded_namespaces)
        self._events = events
        self._clock = clock
        self._asking = asyncio.Semaphore(AT_ONCE)
        self._known: dict[str, _Known] = {}
        self._workloads = Workloads()
        self.refused = 0
        """How many sidecars were not let in."""

    async def authenticate(self, workload: str, token: str | None) -> None:
        """Let the sidecar of the pod `workload`, as `namespace/name`, in.

        Raises PermissionError with the reason, ConnectionError where the API server does not tell.
        """
        try:
            async with self._asking:
                pod, watched = await self._pod(workload, token)
            self._check_governed(pod)
        except PermissionError:
            self.refused += 1
            raise
        self._prune()
        self._known[workload] = _Known(pod, self._clock(), watched)

    def agents(self, workload: str, registry: Registry) -> Collection[str]:
        """Give the keys of the agents that the pod runs. Raises LookupError when it is gone or was replaced."""
        known = self._known.get(workload)
        if known is None:
            raise LookupError(f"no sidecar of the pod {workload} was let in")
        try:
            pod = self._now(known)
        except LookupError:
            del self._known[workload]
            raise
        if excluded(pod.namespace, registry, self._never):
            return ()
        self._workloads.follow(registry)
        return [agent.key for agent in self._workloads.agents_of(pod)]

    async def _pod(self, workload: str, token: str | None) -> tuple[Pod, bool]:
        """Give the pod that a token proves, and whether the watch has shown it. Raises as `authenticate`."""
        if not token:
            raise PermissionError("no bearer token came; mount the pod's projected token for the audience fleetward")
        identity = _identity(await self._review(token))
        own = f"{identity.namespace}/{identity.pod}"
        if workload != own:
            raise PermissionError(f"the token is the pod {own}'s, and cannot speak for {workload!r}")
        known = self._pods.get(identity.namespace, identity.pod)
        watched = known is not None and known.uid == identity.uid
        # A fresh pod may be here sooner than the watch's word of it.
        pod = known if known is not None and watched else await self._read(identity)
        if pod.uid != identity.uid:
            raise PermissionError(f"the token is for an earlier pod {own} (uid {identity.uid}), which was replaced")
        if pod.service_account != identity.service_account:
            raise PermissionError(
                f"the token is the service account {identity.service_account}'s, and the pod {own} runs as"
                f" {pod.service_account}"
            )
        return pod, watched

    async def _review(self, token: str) -> dict[str, Any]:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        try:
            review = await request(
                self._api, "POST", _REVIEWS, "review the token (create tokenreviews)", body=body, seconds=REVIEW_SECONDS
            )
        except RequestError as error:
            raise ConnectionError(str(error)) from error
        status: dict[str, Any] = review.get("status") or {}
        return status

    async def _read(self, identity: _Identity) -> Pod:
        doing = f"get the pod {identity.namespace}/{identity.pod}"
        path = f"/api/v1/namespaces/{identity.namespace}/pods/{identity.pod}"
        try:
            return read_pod(await request(self._api, "GET", path, doing, seconds=REVIEW_SECONDS))
        except RequestError as error:
            if error.status == 404:
                raise PermissionError(f"there is no pod {identity.namespace}/{identity.pod} (any more)") from None
            raise ConnectionError(str(error)) from error

    def _check_governed(self, pod: Pod) -> None:
        registry = self._registry()
        reason = excluded(pod.namespace, registry, self._never)
        self._workloads.follow(registry)
        if pod.over:
            reason = f"the pod {pod.key} is over ({pod.phase})"
        elif not reason and not self._workloads.agents_of(pod):
            reason = (
                f"no Agent selects the pod {pod.key} (service account {pod.service_account}); apply one whose"
                " spec.workload does"
            )
        if reason:
            if self._events is not None:
                self._events.post(about(pod), "Warning", "WebhookRefused", f"its decision webhook is refused: {reason}")
            raise PermissionError(reason)

    def _now(self, known: _Known) -> Pod:
        """Give the pod as it is now, as far as is known. Raises LookupError when it is gone or was replaced."""
        then = known.pod
        pod = self._pods.get(then.namespace, then.name)
        if pod is not None and pod.uid == then.uid:
            known.pod, known.watched = pod, True
            return pod
        ahead = pod is None or pod.resource_version < then.resource_version
        if ahead and not known.watched and self._clock() - known.read_at < UNSEEN_SECONDS:
            return then  # the watch has not come that far
        if pod is not None:
            raise LookupError(f"the pod {then.key} (uid {then.uid}) was replaced by another one of its name")
        raise LookupError(f"the pod {then.key} is gone")

    def _prune(self) -> None:
        """Forget pods that are gone and that nobody asks about any more."""
        if len(self._known) <= 2 * AT_ONCE or len(self._known) & (len(self._known) - 1):
            return  # looked through at powers of two, so that it costs next to nothing
        for workload, known in list(self._known.items()):
            try:
                self._now(known)
            except LookupError:
                del self._known[workload]


def _identity(status: dict[str, Any]) -> _Identity:
    """Read whom a reviewed token was made for. Raises PermissionError."""
    if not status.get("authenticated"):
        said = status.get("error") or "it is expired, revoked or for another audience"
        raise PermissionError(f"the API server does not accept the token for the audience {AUDIENCE}: {said}")
    audiences = status.get("audiences") or []
    if AUDIENCE not in audiences:
        raise PermissionError(f"the token is for {', '.join(audiences) or 'no audience'}, and not for {AUDIENCE}")
    user = status.get("user") or {}
    extra, name = user.get("extra") or {}, str(user.get("username"))
    pod, uid = extra.get(_POD_NAME) or (), extra.get(_POD_UID) or ()
    if not name.startswith(_USER) or name.count(":") != 3:
        raise PermissionError(f"the token is {name}'s; only service accounts have decision webhooks")
    if len(pod) != 1 or len(uid) != 1:
        raise PermissionError(f"the token of {name} is bound to no pod; use a projected token, not a Secret's")
    namespace, _, account = name.removeprefix(_USER).partition(":")
    return _Identity(namespace, account, next(iter(pod)), next(iter(uid)))
