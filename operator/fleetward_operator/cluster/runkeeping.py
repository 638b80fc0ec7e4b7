"""The runs of one replica: the journal in its data directory, beside the audit store."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Protocol

from fleetward.run.journal import RunStore
from fleetward_operator.hub.own import OwnRecords
from fleetward_operator.hub.runs import Keys, Runs
from fleetward_operator.relay.desk import RunDesk, Twins
from fleetward_operator.relay.lane import Keepers, Lanes
from fleetward_operator.relay.tags import open_tag, run_ids


class Others(Keepers, Twins, Protocol):
    """The other replicas."""


@contextlib.asynccontextmanager
async def kept_runs(data: Path, keys: Keys, records: OwnRecords, others: Others) -> AsyncIterator[RunDesk]:
    """Have the desk while the block lasts. Raises JournalError, TagError."""
    tag = open_tag(data / "runs.tag")
    with contextlib.closing(RunStore.open(data / "runs.db", ids=run_ids(tag))) as store:
        async with Lanes(others) as lanes, Runs(store, keys, records) as runs:
            yield RunDesk(runs, tag, lanes, others)
