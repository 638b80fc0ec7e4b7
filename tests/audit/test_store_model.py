"""The store against a model of it: whatever comes in, however often, each record is there once."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetward.audit.query import RecordQuery
from fleetward.audit.record import Record, encode
from fleetward.audit.store import ConflictError, Store

WRITERS = ("aaa", "bbb")
AGENTS = ("reports/planner", "reports/data-worker")

records = st.tuples(st.sampled_from(WRITERS), st.integers(1, 12), st.sampled_from(AGENTS))
batches = st.lists(st.lists(records, max_size=6), max_size=12)
reports = st.dictionaries(st.sampled_from(WRITERS), st.integers(0, 15))


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches, reports)
def test_any_batches(
    make: Callable[..., Record], given_batches: list[list[tuple[str, int, str]]], reported: dict[str, int]
) -> None:
    expected: dict[tuple[str, int], str] = {}
    with tempfile.TemporaryDirectory() as folder, Store.open(Path(folder) / "audit.db") as store:
        for batch in given_batches:
            after = dict(expected)
            for writer, seq, agent in batch:
                after.setdefault((writer, seq), agent)
            conflict = any(after[writer, seq] != agent for writer, seq, agent in batch)
            lines = [encode(make(writer, seq, agent=agent)) for writer, seq, agent in batch]
            try:
                store.append(lines)
            except ConflictError:
                assert conflict
            else:
                assert not conflict
                expected = after
        for writer, seq in reported.items():
            store.report(writer, "somewhere", seq)

        stored = store.read(RecordQuery(limit=1000))
        assert [item.id for item in stored] == [f"{writer}-{seq}" for writer, seq in expected]
        for agent in AGENTS:
            found = store.read(RecordQuery(agent=agent))
            assert [item.id for item in found] == [f"{w}-{s}" for (w, s), a in expected.items() if a == agent]
        missing = {
            (writer, seq)
            for writer in WRITERS
            for seq in range(1, max([0, reported.get(writer, 0), *(s for w, s in expected if w == writer)]) + 1)
        } - set(expected)
        gaps = [(gap.writer, seq) for gap in store.gaps() for seq in range(gap.first, gap.last + 1)]
        assert len(gaps) == len(set(gaps))
        assert set(gaps) == missing
