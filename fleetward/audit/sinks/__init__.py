"""External targets for audit records; one file a sink."""

from pathlib import Path

from fleetward.audit.sinks.base import Sink
from fleetward.audit.sinks.cloudevents import CloudEvents
from fleetward.audit.sinks.jsonlines import JsonLines
from fleetward.resources.auditsink import AuditSinkSpec


def open_sink(spec: AuditSinkSpec, folder: Path) -> Sink:
    """Make the sink that `spec` describes; files go below `folder`. Nothing is opened before the first delivery."""
    if spec.json_lines is not None:
        return JsonLines(folder / spec.json_lines.path)
    if spec.cloud_events is not None:
        return CloudEvents(spec.cloud_events.url, spec.cloud_events.timeout_seconds)
    raise ValueError(f"no sink is known for type {spec.type}")
