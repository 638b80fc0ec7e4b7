"""An HTTP endpoint that takes one CloudEvent 1.0 a record, in structured mode (JSON).

The event's id is the record's, so a target that has seen it before can tell. See the CloudEvents specification 1.0.2,
its HTTP protocol binding, and its distributed tracing extension for `traceparent`.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import aiohttp
import msgspec
from cloudevents.core.bindings.http import HTTPMessage, to_structured_event
from cloudevents.core.v1.event import CloudEvent
from yarl import URL

from fleetward.audit.record import (
    AccessRefusedRecord,
    BudgetRecord,
    DecisionRecord,
    ModeChangeRecord,
    Record,
    RunRecord,
)
from fleetward.audit.sinks.base import SinkError
from fleetward.audit.store import StoredRecord

_WORTH_RETRYING = frozenset({408, 425, 429})
"""Answers of the 4xx kind that speak of the moment, not of the record (RFC 9110, RFC 8470, RFC 6585)."""

_SHOWN_CHARACTERS = 200
"""How much of an error's body the status shows."""


class CloudEvents:
    """Posts each record to `url` and waits at most `timeout_seconds` for a 2xx answer. Redirects are not followed."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        self._url = URL(url)
        self._shown = str(self._url.with_user(None).with_query(None).with_fragment(None))
        """Without what may be secret."""
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def deliver(self, records: Sequence[StoredRecord]) -> None:
        """Post the records one after the other. Raises SinkError, saying how many were taken."""
        for delivered, record in enumerate(records):
            try:
                await self._post(record, delivered)
            except TimeoutError as error:
                message = f"{self._shown} gave no answer within {self._timeout.total:g} seconds"
                raise SinkError(message, delivered=delivered) from error
            except (aiohttp.ClientError, OSError) as error:
                reason = str(error) or type(error).__name__
                raise SinkError(f"{self._shown}: {reason}", delivered=delivered) from error

    async def close(self) -> None:
        """Close the connections."""
        if self._session:
            await self._session.close()
            self._session = None

    async def _post(self, stored: StoredRecord, delivered: int) -> None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar())
        message = event_message(stored)
        async with self._session.post(
            self._url, data=message.body, headers=message.headers, allow_redirects=False
        ) as response:
            status = response.status
            if 200 <= status < 300:
                return
            said = (await response.content.read(_SHOWN_CHARACTERS)).decode(errors="replace")
        text = f"{self._shown} answered {status}"
        if 300 <= status < 400:
            raise SinkError(f"{text}: redirects are not followed, so give the final address", delivered=delivered)
        rejected = 400 <= status < 500 and status not in _WORTH_RETRYING
        if rejected:
            text += f" to record {stored.id}, which holds up this sink: the record is kept and tried again"
        raise SinkError(f"{text}: {' '.join(said.split())}".rstrip(": "), delivered=delivered, rejected=rejected)


def event_message(stored: StoredRecord) -> HTTPMessage:
    """Write a record as a CloudEvent: headers and body of the request."""
    record = stored.record
    attributes: dict[str, Any] = {
        "id": record.id,
        "source": f"fleetward/{record.writer}",
        "type": f"dev.fleetward.audit.{stored.type.lower()}.v1",
        "subject": _subject(record),
        "time": datetime.fromisoformat(record.time),
        "datacontenttype": "application/json",
    }
    if isinstance(record, DecisionRecord | RunRecord) and record.traceparent:
        attributes["traceparent"] = record.traceparent
    return to_structured_event(CloudEvent(attributes, msgspec.json.decode(stored.body)))


def _subject(record: Record) -> str:
    if isinstance(record, ModeChangeRecord):
        return record.subject
    if isinstance(record, BudgetRecord):
        return record.budget
    return record.workload if isinstance(record, AccessRefusedRecord) else record.agent
