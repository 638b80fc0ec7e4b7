"""The keys that sign grants, as every replica has them: read from their Secret, which the leader keeps right."""

import asyncio
import logging
import time
from collections.abc import Callable

from fleetward.delegation.keys import KeyRing
from fleetward.resources.names import GRANT_KEYS_SECRET
from fleetward_operator.keeper.grantkeys import GrantKeys, keep_grant_keys, read_grant_keys
from fleetward_operator.kube.events import EventPoster, Reference
from fleetward_operator.kube.objects import SECRET, Body, NotLeadingError, Objects
from fleetward_operator.kube.rest import RequestError

PERIOD_SECONDS = 2.0
"""How often the Secret is read."""

SETTLE_SECONDS = 2 * PERIOD_SECONDS + 1
"""How long a first key waits before it signs: other replicas must have read it, too."""

_log = logging.getLogger(__name__)


class ClusterKeys:
    """See `hub.runs.Keys`. `leading` says whether this replica writes, `changed` is called with other public keys.

    Where the Secret is gone, there are no keys: nothing is signed, and no grant is believed any more.
    """

    def __init__(
        self,
        objects: Objects,
        namespace: str,
        *,
        leading: Callable[[], bool],
        events: EventPoster,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._objects = objects
        self._namespace = namespace
        self._leading = leading
        self._events = events
        self._clock = clock
        self._keys: GrantKeys | None = None
        self._public: dict[str, str] = {}
        self._seen: tuple[str, float] = ("", 0.0)
        """The signing key, and since when it is known here."""
        self.found = False
        """Whether there were any since this replica started."""
        self.changed: Callable[[], None] = lambda: None
        self.problem = "the keys that sign grants were not read yet"
        """What is wrong, in one line; empty where nothing is."""

    def ring(self) -> KeyRing | None:
        """Give the keys to sign with; None while there are none, or they are too new."""
        if self._keys is None:
            return None
        kid, since = self._seen
        settled = self._clock() - self._keys.ring.since >= SETTLE_SECONDS
        known = kid == self._keys.ring.kid and time.monotonic() - since >= SETTLE_SECONDS
        return self._keys.ring if settled or known else None

    def public(self) -> dict[str, str]:
        """Give the public keys that grants may be signed with, now and soon."""
        return self._public

    def renew(self, now: int) -> bool:  # noqa: ARG002 - the leader's part of `run` does that
        """Do nothing: what is due to the keys is done in `run`, for all replicas."""
        return False

    async def run(self) -> None:
        """Read the Secret, and keep it right as leader, until cancelled."""
        while True:
            try:
                await self.look()
            except RequestError as error:
                self._complain(str(error))
            except NotLeadingError:
                pass  # another replica does, and what it makes is read next time
            # Until the leader has made the first ones, nobody is let in.
            await asyncio.sleep(PERIOD_SECONDS if self._keys is not None else min(PERIOD_SECONDS, 0.5))

    async def look(self) -> None:
        """Look at the Secret once. Raises RequestError, NotLeadingError."""
        stored, keys, why = await read_grant_keys(self._objects, self._namespace)
        due = keys is None or keys.advance(int(self._clock())) is not keys
        if keys is None:
            self._take(None)
            self._complain(f"Secret {self._namespace}/{GRANT_KEYS_SECRET}: {why}; the leader makes new keys")
        if due and self._leading():
            lost = self.found or stored is not None
            keys, made = await keep_grant_keys(self._objects, self._namespace, int(self._clock()))
            if made:
                stored = await self._objects.get(SECRET, GRANT_KEYS_SECRET, self._namespace)
                self._tell(stored, made, lost=lost)
        if keys is not None:
            self._take(keys)
            self.found = True
            self.problem = ""

    def _take(self, keys: GrantKeys | None) -> None:
        self._keys = keys
        if keys is not None and keys.ring.kid != self._seen[0]:
            self._seen = (keys.ring.kid, time.monotonic())
        public = {} if keys is None else keys.public()
        if public != self._public:
            self._public = public
            self.changed()

    def _tell(self, secret: Body | None, why: str, *, lost: bool) -> None:
        """Have people hear that all grants before are worthless, where there were any."""
        if secret is None or not lost:
            return
        metadata = secret["metadata"]
        regarding = Reference("v1", "Secret", self._namespace, GRANT_KEYS_SECRET, metadata["uid"])
        note = f"New keys for signing grants were made, as of the Secret: {why}. Grants given before are not believed."
        self._events.post(regarding, "Warning", "GrantKeysLost", note)

    def _complain(self, problem: str) -> None:
        if problem != self.problem:
            _log.warning("grant keys: %s", problem)
        self.problem = problem
