"""Gaps of several stores, against what a set of numbers says."""

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from support.make import record

from fleetward.audit.remote import GapReport
from fleetward.audit.store import Store
from fleetward_operator.records.gapmerge import merge_gaps

NUMBERS = st.sets(st.integers(1, 12))


@settings(max_examples=40)
@given(held=st.lists(st.tuples(NUMBERS, st.integers(0, 15)), min_size=1, max_size=3))
def test_a_number_is_missing_where_no_store_has_it(held: list[tuple[set[int], int]]) -> None:
    """Each store holds some numbers of a writer, and may have heard from it how far it has come."""
    reports = []
    with tempfile.TemporaryDirectory() as directory:
        for place, (numbers, reported) in enumerate(held):
            with Store.open(Path(directory) / f"{place}.db") as store:
                store.append([record("a", number) for number in sorted(numbers)])
                if reported:
                    store.report("a", "reports/pod", reported)
                reports.append(GapReport(gaps=tuple(store.gaps()), last={"a": store.last_seq("a")}))
    everything = set().union(*(numbers for numbers, _ in held))
    stored = max(everything, default=0)
    top = max([stored, *(reported for _, reported in held)])
    found = {(number, gap.state) for gap in merge_gaps(reports) for number in range(gap.first, gap.last + 1)}
    assert found == {
        (number, "Missing" if number < stored else "Awaited")
        for number in range(1, top + 1)
        if number not in everything
    }
