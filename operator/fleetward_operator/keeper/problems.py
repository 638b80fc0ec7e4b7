"""What the keeper could not put right, and why: one line each, logged once."""

import contextlib
import logging
from collections.abc import Iterator

from fleetward_operator.kube.rest import RequestError

_log = logging.getLogger(__name__)


class Problems:
    """Problems by what they are about. Between `begin` and `end` of a round, those not seen again are solved."""

    def __init__(self) -> None:
        self.current: dict[str, str] = {}
        self._seen: set[str] = set()
        self.retry_after = 0.0
        """The longest time, in seconds, that the API server asked to wait in this round."""

    def begin(self) -> None:
        """Begin a round."""
        self._seen.clear()
        self.retry_after = 0.0

    def end(self) -> None:
        """End a round: what did not go wrong in it goes well again."""
        for about in self.current.keys() - self._seen:
            del self.current[about]
            _log.info("%s: goes well again", about)

    def clear(self) -> None:
        """Forget all: they are another replica's business now."""
        self.current.clear()
        self.retry_after = 0.0

    @contextlib.contextmanager
    def about(self, what: str) -> Iterator[None]:
        """Note an RequestError in the block, and go on after it."""
        try:
            yield
        except RequestError as error:
            self.retry_after = max(self.retry_after, error.retry_after or 0.0)
            self.note(what, str(error))

    def note(self, what: str, problem: str) -> None:
        """Note a problem; it is logged when it is new or another."""
        if self.current.get(what) != problem:
            _log.warning("%s: not right, tried again soon: %s", what, problem)
        self.current[what] = problem
        self._seen.add(what)

    def keep(self) -> None:
        """Leave all problems as they are: this round could not look."""
        self._seen |= self.current.keys()
