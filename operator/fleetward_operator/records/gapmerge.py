"""Gaps of several stores as one: a number is missing only where no store has it.

A decision webhook that changes to another replica leaves the first part of its numbers in one store and the rest in
the other; each by itself would look as if the other part were lost.
"""

from collections.abc import Iterable, Sequence

from fleetward.audit.remote import GapReport
from fleetward.audit.store import Gap

Span = tuple[int, int]
"""First and last number."""


def merge_gaps(reports: Sequence[GapReport]) -> tuple[Gap, ...]:
    """Give the numbers that are in no store. Each report has the `last` numbers of all writers with gaps in any."""
    known = [gap for report in reports for gap in report.gaps]
    found: list[Gap] = []
    for writer in sorted({gap.writer for gap in known}):
        of_writer = [gap for gap in known if gap.writer == writer]
        stored = max(report.last.get(writer, 0) for report in reports)
        top = max([stored, *(gap.last for gap in of_writer)])
        spans: list[Span] = [(1, top)]
        for report in reports:
            spans = _common(spans, _absent(report, writer, top))
        workload = next((gap.workload for gap in of_writer if gap.workload), "")
        for first, last in spans:
            if first <= stored:
                found.append(Gap(writer, workload, first, min(last, stored), "Missing"))
            if last > stored:
                found.append(Gap(writer, workload, max(first, stored + 1), last, "Awaited"))
    return tuple(found)


def _absent(report: GapReport, writer: str, top: int) -> list[Span]:
    """Give the numbers up to `top` that a store does not have."""
    last = report.last.get(writer, 0)
    inside = sorted((gap.first, gap.last) for gap in report.gaps if gap.writer == writer and gap.last <= last)
    return [*inside, *([(last + 1, top)] if last < top else [])]


def _common(ones: Iterable[Span], others: Sequence[Span]) -> list[Span]:
    both = [(max(a, c), min(b, d)) for a, b in ones for c, d in others]
    return sorted(span for span in both if span[0] <= span[1])
