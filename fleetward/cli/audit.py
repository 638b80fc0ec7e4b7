"""`fleetward audit`: the record of every decision, outcome, change of mode and refused access."""

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args

import click

from fleetward.audit.query import RecordQuery, RecordType
from fleetward.audit.record import Record
from fleetward.audit.store import Gap, StoredRecord
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
from fleetward.cli.records import Records
from fleetward.cli.source import Source, records_options
from fleetward.cli.when import When
from fleetward.registry.slice import Decision

F = TypeVar("F", bound=Callable[..., Any])

SHOWN_GAPS = 5
"""How many gaps are told one by one."""


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


def _decorated(options: Sequence[Callable[[Any], Any]]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


_EXITS = {ExitCode.OK: "shown", ExitCode.BAD_INPUT: "bad input, or no audit store or hub that can be read"}


@click.group()
def audit() -> None:
    """Read the record of decisions, outcomes, changes of mode and refused access.

    Of a folder, the records of fleetward serve; of a cluster, those of all hubs, read with a token of the service
    account fleetward-auditor. Numbers of records that are missing are told on standard error, and so is a hub that
    does not answer.
    """


@audit.command(
    "list",
    cls=Command,
    examples=[
        "audit list --dir policies --since 15m --decision Deny",
        "audit list --agent data-worker --run r-17 -o jsonl",
        "audit list --context production --since 1h",
    ],
    exits=_EXITS,
)
@records_options
@_filters(limit=100)
def list_(source: Source, output: str, limit: int, **filters: Any) -> None:
    """List records, oldest first."""
    with source.records() as trail:
        records, more = trail.newest(RecordQuery(**filters), limit)
        if output == "jsonl":
            for stored in records:
                click.echo(stored.body)
        elif output == "json":
            print_json([json.loads(stored.body) for stored in records])
        else:
            find = _finder(trail, records)
            print_table(recordtext.COLUMNS, [recordtext.row(stored.record, find) for stored in records])
        if more:
            note(f"these are the newest {limit}; --limit 0 lists all")
        _tell_gaps(trail.gaps())


@audit.command(
    cls=Command,
    examples=["audit tail --dir policies", "audit tail --decision Deny --limit 0 -o jsonl"],
    exits=_EXITS,
)
@records_options
@_filters(limit=10)
@click.option("--follow/--no-follow", default=True, show_default=True, help="Wait for more, until interrupted.")
def tail(source: Source, output: str, limit: int, *, follow: bool, **filters: Any) -> None:
    """Show the newest records, then each as it is stored. Ctrl-C ends it.

    With -o json the array is ended when the command is.
    """
    query = RecordQuery(**filters)
    with source.records() as trail, until_stopped() as wait, record_printer(output, _finder(trail)) as show:
        _tell_gaps(trail.gaps())
        if not follow:
            show(trail.newest(query, limit)[0])
            return
        with trail.follow(query, limit) as following:
            show(following.newest)
            while wait():
                for records in following.more():
                    show(records)
                _tell_gaps(following.lost())


@audit.command(
    "show",
    cls=Command,
    examples=["audit show k3q7xw2mza-17", "audit show k3q7xw2mza-17 -n reports -o json"],
    exits={
        ExitCode.OK: "shown",
        ExitCode.BAD_INPUT: "there is no such record, or no audit store or hub that can be read",
    },
)
@click.argument("record_id", metavar="ID")
@records_options
@output_option()
def show_(record_id: str, source: Source, output: str) -> None:
    """Show one record in full: who did what, on which facts, and every rule that counted, down to its version.

    ID is a record's id, as in the last column of `audit list`; a decision's id is its record's.
    """
    with source.records() as trail:
        found = trail.select(RecordQuery(id=record_id))
        if not found:
            raise CliError(f"found no record {printable(record_id)} in {trail.where}; `audit list` shows the ids")
        if output == "json":
            print_json(json.loads(found[0].body))
            return
        record = found[0].record
        decision_id = getattr(record, "decision_id", record.id)
        related = trail.select(RecordQuery(decision_id=decision_id))
        recordtext.show(record, [stored.record for stored in related])


def _finder(trail: Records, known: Sequence[StoredRecord] = ()) -> recordtext.FindRecord:
    by_id = {stored.id: stored for stored in known}

    def find(record_id: str) -> Record | None:
        found = [by_id[record_id]] if record_id in by_id else trail.select(RecordQuery(id=record_id))
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
