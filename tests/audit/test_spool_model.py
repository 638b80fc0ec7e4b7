"""The spool against a model of it: a list of records, what is acknowledged, and where the reader stands."""

import json
import tempfile

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from fleetward.audit.spool import Spool, SpoolError

LIMITS = {"segment_bytes": 400, "max_bytes": 3000}


class SpoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.spool = Spool.open(self.directory.name, **LIMITS)
        self.writer = self.spool.writer
        self.records: list[bytes] = []
        self.acknowledged = 0
        self.sent = 0

    def teardown(self) -> None:
        self.spool.close()
        self.directory.cleanup()

    def waiting(self) -> int:
        return sum(len(record) + 1 for record in self.records[self.acknowledged :])

    @rule(pad=st.integers(0, 700))
    def append(self, pad: int) -> None:
        record = json.dumps({"writer": self.writer, "seq": len(self.records) + 1, "pad": "p" * pad}).encode()
        if self.waiting() + len(record) + 1 > LIMITS["max_bytes"]:
            with pytest.raises(SpoolError, match="is full"):
                self.spool.append(record)
        else:
            self.records.append(record)
            assert self.spool.append(record) == len(self.records)

    @rule(records=st.integers(1, 5), size=st.integers(1, 1500))
    def read(self, records: int, size: int) -> None:
        lines = self.spool.unacknowledged(records, size)
        assert lines == self.records[self.sent : self.sent + len(lines)]
        assert len(lines) <= records
        assert len(lines) == 1 or sum(len(line) + 1 for line in lines) <= size
        assert bool(lines) == (self.sent < len(self.records))
        self.sent += len(lines)

    @rule()
    def rewind(self) -> None:
        self.spool.rewind()
        self.sent = self.acknowledged

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        seq = data.draw(st.integers(0, len(self.records)))
        self.spool.acknowledge(seq)
        self.acknowledged = max(self.acknowledged, seq)
        self.sent = max(self.sent, seq)

    @rule()
    def sync(self) -> None:
        assert self.spool.sync() == len(self.records)

    @rule(clean=st.booleans())
    def reopen(self, *, clean: bool) -> None:
        if clean:
            self.spool.close()
        else:
            self.spool._release()
        self.spool = Spool.open(self.directory.name, **LIMITS)
        assert self.spool.writer == self.writer
        # An acknowledgement may be forgotten by a crash, never invented.
        assert self.spool.acknowledged_seq <= self.acknowledged
        if clean:
            assert self.spool.acknowledged_seq == self.acknowledged
        self.spool.acknowledge(self.acknowledged)
        self.sent = self.acknowledged

    @precondition(lambda self: self.records)
    @rule(cut=st.integers(1, 30))
    def crash_within_a_write(self, cut: int) -> None:
        self.spool._release()
        path = self.spool._segments[-1].path
        with path.open("ab") as file:
            file.write(self.records[-1][:cut])
        self.spool = Spool.open(self.directory.name, **LIMITS)
        self.spool.acknowledge(self.acknowledged)
        self.sent = self.acknowledged

    @invariant()
    def agrees(self) -> None:
        assert self.spool.next_seq == len(self.records) + 1
        assert self.spool.acknowledged_seq == self.acknowledged
        assert self.spool.pending == (len(self.records) - self.acknowledged, self.waiting())
        assert self.spool.synced_seq >= self.acknowledged


TestSpoolModel = SpoolMachine.TestCase
TestSpoolModel.settings = settings(max_examples=60, stateful_step_count=40)
