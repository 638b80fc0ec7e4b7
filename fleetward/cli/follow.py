"""Records printed as they come, until the user stops it or nobody reads any more."""

import contextlib
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence

import click
from rich.cells import cell_len
from rich.text import Text

from fleetward.audit.store import StoredRecord
from fleetward.cli import recordtext
from fleetward.cli.output import say

POLL_SECONDS = 0.2
"""How often the store is looked at."""


@contextlib.contextmanager
def record_printer(output: str, find: recordtext.FindRecord) -> Iterator[Callable[[Sequence[StoredRecord]], None]]:
    """Give what prints records as they come, in the format asked for."""
    if output == "table":
        rows = GrowingTable(recordtext.COLUMNS)
        yield lambda records: rows.add([recordtext.row(stored.record, find) for stored in records])
    elif output == "jsonl":
        yield lambda records: click.echo(b"".join(stored.body + b"\n" for stored in records), nl=False)
    else:
        before = ["["]

        def show(records: Sequence[StoredRecord]) -> None:
            for stored in records:
                click.echo(before[0].encode() + stored.body, nl=False)
                before[0] = ",\n "

        yield show
        click.echo("]" if before[0] != "[" else "[]")


class GrowingTable:
    """A table whose rows come one after the other: a column is as wide as its widest cell so far."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns = columns
        self._widths: list[int] = []

    def add(self, rows: Sequence[Sequence[str | Text]]) -> None:
        """Print rows, under the headings where they are the first."""
        cells = [[value if isinstance(value, Text) else Text(value) for value in row] for row in rows]
        if not self._widths:
            self._widths = [cell_len(column) for column in self._columns]
            self._grow(cells)
            self._print([Text(column, style="bold") for column in self._columns])
        self._grow(cells)
        for row in cells:
            self._print(row)

    def _grow(self, rows: Sequence[Sequence[Text]]) -> None:
        for row in rows:
            self._widths = [max(width, cell_len(cell.plain)) for width, cell in zip(self._widths, row, strict=True)]

    def _print(self, row: Sequence[Text]) -> None:
        line = Text()
        for cell, width in zip(row, self._widths, strict=True):
            line += cell + " " * (width - cell_len(cell.plain) + 2)
        line.rstrip()
        say(line)


@contextlib.contextmanager
def until_stopped() -> Iterator[Callable[[], bool]]:
    """Give a wait of POLL_SECONDS that returns False once there is a SIGINT or SIGTERM, or nobody reads the output."""
    reader, writer = os.pipe()
    poll = select.poll()
    poll.register(reader, select.POLLIN)
    with contextlib.suppress(OSError, ValueError):
        # Asking for nothing still tells of an error: the other end of a pipe was closed.
        poll.register(sys.stdout.fileno(), 0)
    before = {}
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, lambda *_: os.write(writer, b"!"))
    try:
        yield lambda: not poll.poll(POLL_SECONDS * 1000)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
