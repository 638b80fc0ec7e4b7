"""`fleetward audit`: the record of every decision, outcome and change of mode."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

import click

from fleetward.audit.query import RecordQuery, RecordType
from fleetward.audit.record import Record
from fleetward.audit.store import Gap, Store, StoredRecord, StoreError
from fleetward.cli import recordtext
from fleetward.cli.follow import record_printer, until_stopped
from fleetward.cli.output import (
    CliError,
    Command,
    ExitCode,
    note,
    output_option,
    print_json,
    print_table,
    printable,
)
from fleetward.cli.source import dir_option
from fleetward.cli.when import When
from fleetward.registry.slice import Decision

F = TypeVar("F", bound=Callable[..., Any])

SHOWN_GAPS = 5
"""How many gaps are told one by one."""

PAGE = 1000

_EVERYTHING = 2**63 - 1


def _filters(limit: int) -> Callable[[F], F]:
    options = [
        click.option("--agent", metavar="NAME", help="namespace/name, or a bare name in any namespace."),
        click.option("--run", metavar="RUN", help="The run the action belongs to."),
        click.option("--decision", type=click.Choice(get_args(Decision), case_sensitive=False), help="The verdict."),
        click.option(
            "--type",
            "types",
            multiple=True,
            type=click.Choice(get_args(RecordType), case_sensitive=False),
            help="The type of record; may be given more than once.",
        ),
        click.option("--since", type=When(), help="From this time on: RFC 3339, or how long ago, such as 15m."),
        click.option("--until", type=When(), help="Up to this time."),
        click.option(
            "--limit",
            type=click.IntRange(min=0),
            default=limit,
            show_default=True,
            help="How many records, the newest; 0 for all.",
        ),
        output_option("table", "json", "jsonl"),
    ]
    return _decorated(options)


def _where(function: F) -> F:
    data = click.option(
        "--data",
        metavar="PATH",
        type=click.Path(path_type=Path),
        help="The data folder of fleetward serve.  [default: .fleetward in the folder served]",
    )
    return _decorated([dir_option, data])(function)


def _decorated(options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_EXITS = {ExitCode.OK: "shown", ExitCode.BAD_INPUT: "bad input, or there is no audit store that can be read"}


@click.group()
def audit() -> None:
    """Read the record of decisions, outcomes and changes of mode.

    Numbers of records that are missing from the store are told on standard error.
    """


@audit.command(
    "list",
    cls=Command,
    examples=[
        "audit list --dir policies --since 15m --decision Deny",
        "audit list --agent data-worker --run r-17 -o jsonl",
    ],
    exits=_EXITS,
)
@_where
@_filters(limit=100)
def list_(directory: Path, data: Path | None, output: str, limit: int, **filters: Any) -> None:
    """List records, oldest first."""
    with _open(directory, data) as store:
        records, more = _newest(store, filters, limit)
        if output == "jsonl":
            for stored in records:
                click.echo(stored.body)
        elif output == "json":
            print_json([json.loads(stored.body) for stored in records])
        else:
            find = _finder(store)
            print_table(recordtext.COLUMNS, [recordtext.row(stored.record, find) for stored in records])
        if more:
            note(f"these are the newest {limit}; --limit 0 lists all")
        _tell_gaps(store.gaps())


@audit.command(
    cls=Command,
    examples=["audit tail --dir policies", "audit tail --decision Deny --limit 0 -o jsonl"],
    exits=_EXITS,
)
@_where
@_filters(limit=10)
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait for more, until interrupted.")
def tail(directory: Path, data: Path | None, output: str, limit: int, *, follow: bool, **filters: Any) -> None:
    """Show the newest records, then each as it is stored. Ctrl-C ends it.

    With -o json the array is ended when the command is.
    """
    with _open(directory, data) as store, until_stopped() as wait, record_printer(output, _finder(store)) as show:
        told = store.gaps()
        _tell_gaps(told)
        position, version = store.last_position(), store.data_version()
        records, _ = _newest(store, filters, limit)
        show(records)
        position = max([position, *(stored.position for stored in records)])
        while follow and wait():
            if (now := store.data_version()) == version:
                continue
            version = now
            position = _show_more(store, RecordQuery(**filters, limit=PAGE), position, show)
            # What is awaited is on its way, most of the time.
            gaps = [gap for gap in store.gaps() if gap.state == "Missing"]
            _tell_gaps([gap for gap in gaps if gap not in told])
            told = gaps


@audit.command(
    "show",
    cls=Command,
    examples=["audit show k3q7xw2mza-17", "audit show k3q7xw2mza-17 -o json"],
    exits={ExitCode.OK: "shown", ExitCode.BAD_INPUT: "there is no such record, or no audit store that can be read"},
)
@click.argument("record_id", metavar="ID")
@_where
@output_option()
def show_(record_id: str, directory: Path, data: Path | None, output: str) -> None:
    """Show one record in full: who did what, on which facts, and every rule that counted, down to its version.

    ID is a record's id, as in the last column of `audit list`; a decision's id is its record's.
    """
    with _open(directory, data) as store:
        found = store.read(RecordQuery(id=record_id))
        if not found:
            raise CliError(f"found no record {printable(record_id)} in {store.path}; `audit list` shows the ids")
        if output == "json":
            print_json(json.loads(found[0].body))
            return
        record = found[0].record
        decision_id = getattr(record, "decision_id", record.id)
        related = store.read(RecordQuery(decision_id=decision_id, limit=_EVERYTHING))
        recordtext.show(record, [stored.record for stored in related])


@contextlib.contextmanager
def _open(directory: Path, data: Path | None) -> Iterator[Store]:
    folder = data or (directory.parent if directory.is_file() else directory) / ".fleetward"
    try:
        with Store.open(folder / "audit.db", read_only=True) as store:
            yield store
    except StoreError as error:
        raise CliError(str(error)) from None


def _newest(store: Store, filters: dict[str, Any], limit: int) -> tuple[list[StoredRecord], bool]:
    """Read the newest records, in the order of their times; say whether there are more."""
    wanted = limit + 1 if limit else _EVERYTHING
    records = store.read(RecordQuery(**filters, limit=wanted, order="NewestFirst"))
    more = bool(limit) and len(records) > limit
    # The store has them in the order in which they came in; a reader wants to see what happened in the order it did.
    newest = sorted(records[: len(records) - more], key=lambda stored: (stored.record.time, stored.position))
    return newest, more


def _show_more(store: Store, query: RecordQuery, position: int, show: Callable[[Sequence[StoredRecord]], None]) -> int:
    while records := store.read(query, position):
        show(records)
        position = records[-1].position
    return position


def _finder(store: Store) -> recordtext.FindRecord:
    def find(record_id: str) -> Record | None:
        found = store.read(RecordQuery(id=record_id))
        return found[0].record if found else None

    return find


def _tell_gaps(gaps: Sequence[Gap]) -> None:
    for gap in gaps[:SHOWN_GAPS]:
        numbers = f"number {gap.first}" if gap.count == 1 else f"numbers {gap.first} to {gap.last}"
        where = f" of {gap.workload}" if gap.workload else ""
        state = "missing" if gap.state == "Missing" else "not delivered yet"
        text = f"warning: {gap.count} record{'s' * (gap.count != 1)}, {numbers} of writer {gap.writer}{where}: {state}"
        note(printable(text), style="yellow")
    if rest := gaps[SHOWN_GAPS:]:
        note(f"warning: and {len(rest)} more gaps, of {sum(gap.count for gap in rest)} records", style="yellow")
