"""Who may read the audit trail: the API server says who a token is, and what it may do.

A bearer token for the audience `fleetward` (TokenReview), and RBAC on resources that exist for this alone: the verb
`list` on `auditrecords`, the verb `get` on `hubstatus`, both of the group fleetward.dev (SubjectAccessReview).
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from kubernetes.aio.client import ApiClient

from fleetward.registry.slice import Wire
from fleetward.resources.base import GROUP
from fleetward.resources.names import AUDIENCE
from fleetward_operator.kube.rest import RequestError, request

REMEMBERED_SECONDS = 10.0
"""How long an answer of the API server counts: so long a right that was taken away may still read. A revoked token may
for twice as long, as the API server remembers tokens for ten seconds itself."""
MAX_REMEMBERED = 1000

_TOKEN_REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"  # noqa: S105 - a path
_ACCESS_REVIEWS = "/apis/authorization.k8s.io/v1/subjectaccessreviews"


class Right(NamedTuple):
    """What somebody wants to do."""

    resource: str
    verb: str


READ_RECORDS = Right("auditrecords", "list")
READ_STATUS = Right("hubstatus", "get")


class User(Wire, frozen=True):
    """Who a token is, as the API server says."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)


class AccessRefused(Exception):  # noqa: N818 - it is what happened, and the caller's doing
    """Why a request is not let in: 401 (who is that?), 403 (may not) or 503 (nobody could say)."""

    def __init__(self, status: Literal[401, 403, 503], detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Access(Protocol):
    """Lets requests in, or not."""

    async def authenticate(self, token: str | None) -> User:
        """Say who presents the bearer token. Raises AccessRefused."""

    async def authorize(self, user: User, right: Right) -> None:
        """Let a user do something. Raises AccessRefused."""


class ClusterAccess:
    """Asks the API server. Answers, also refusals, are remembered for REMEMBERED_SECONDS."""

    def __init__(self, api: ApiClient, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._api = api
        self._clock = clock
        self._known: OrderedDict[object, tuple[float, User | AccessRefused | None]] = OrderedDict()

    async def authenticate(self, token: str | None) -> User:
        """Say who presents the bearer token. Raises AccessRefused."""
        if not token:
            raise AccessRefused(401, f"found no bearer token, needed one for the audience {AUDIENCE}")
        key = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        if (known := self._remembered(key)) is None:
            known = self._remember(key, await self._review_token(token))
        if isinstance(known, AccessRefused):
            raise AccessRefused(known.status, str(known))
        return known

    async def authorize(self, user: User, right: Right) -> None:
        """Let a user do something. Raises AccessRefused."""
        key = (user.username, user.uid, user.groups, tuple(sorted(user.extra.items())), right)
        known = self._remembered(key)
        if known is None:
            known = self._remember(key, await self._review_access(user, right))
        if isinstance(known, AccessRefused):
            raise AccessRefused(known.status, str(known))

    async def _review_token(self, token: str) -> User | AccessRefused:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": [AUDIENCE]},
        }
        status = await self._ask(_TOKEN_REVIEWS, body, "check a bearer token")
        if not status.get("authenticated") or AUDIENCE not in (status.get("audiences") or ()):
            said = status.get("error") or "the API server does not know it"
            return AccessRefused(401, f"the bearer token does not count here ({said}); needed for audience {AUDIENCE}")
        user = status.get("user") or {}
        return User(
            username=user.get("username") or "",
            uid=user.get("uid") or "",
            groups=tuple(user.get("groups") or ()),
            extra={name: tuple(values) for name, values in (user.get("extra") or {}).items()},
        )

    async def _review_access(self, user: User, right: Right) -> User | AccessRefused:
        attributes = {"group": GROUP, "resource": right.resource, "verb": right.verb}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": user.username,
                "uid": user.uid,
                "groups": list(user.groups),
                "extra": {name: list(values) for name, values in user.extra.items()},
                "resourceAttributes": attributes,
            },
        }
        status = await self._ask(_ACCESS_REVIEWS, body, "ask for a right")
        if status.get("allowed") is True:
            return user
        return AccessRefused(
            403, f"{user.username} may not {right.verb} {right.resource}.{GROUP}; a ClusterRole with this verb lets it"
        )

    async def _ask(self, path: str, body: dict[str, Any], doing: str) -> dict[str, Any]:
        try:
            answer = await request(self._api, "POST", path, doing, body=body)
        except RequestError as error:
            raise AccessRefused(503, str(error)) from None
        return answer.get("status") or {}

    def _remembered(self, key: object) -> User | AccessRefused | None:
        until, known = self._known.get(key, (0.0, None))
        return known if self._clock() < until else None

    def _remember(self, key: object, known: User | AccessRefused) -> User | AccessRefused:
        self._known.pop(key, None)
        self._known[key] = (self._clock() + REMEMBERED_SECONDS, known)
        while len(self._known) > MAX_REMEMBERED:
            self._known.popitem(last=False)
        return known
