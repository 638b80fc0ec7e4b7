"""`fleetward trace`: what the agents of a run did, as a tree of causes, and what authorised a single record."""

from collections.abc import Sequence
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from fleetward.audit.query import RecordQuery
from fleetward.audit.record import DecisionRecord, OutcomeRecord, Record, RunRecord
from fleetward.audit.trace import Member, Trace, why
from fleetward.audit.trace import trace as tree_of
from fleetward.cli import tracehtml, tracejson, tracemermaid, tracetext
from fleetward.cli.output import CliError, Command, ExitCode, note, output_option, printable
from fleetward.cli.records import Records
from fleetward.cli.source import Source, asks_for_cluster, records_options, source_of

PROPOSED_RUNS = 100
"""So many runs, the newest, are proposed where a shell completes one."""


def _complete_runs(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Propose the runs in a folder's store. To ask a cluster's hubs takes longer than a key may."""
    from fleetward.cli.folder import FolderSource  # noqa: PLC0415 - only where a shell asks

    try:
        source = source_of(context)
        if asks_for_cluster(context) or not isinstance(source, FolderSource):
            return []
        with source.records() as trail:
            found, _ = trail.newest(RecordQuery(types=("Run",)), PROPOSED_RUNS)
    except click.ClickException:
        return []
    runs = dict.fromkeys(stored.record.run for stored in reversed(found) if isinstance(stored.record, RunRecord))
    return [CompletionItem(run) for run in runs if run.startswith(incomplete)]


@click.command(
    cls=Command,
    examples=[
        "trace r-17 --dir policies",
        "trace r-17 --context production --html run.html",
        "trace --why k3q7xw2mza-17 --dir policies",
    ],
    exits={
        ExitCode.OK: "shown",
        ExitCode.BAD_INPUT: "there is no such run or record, or no audit store or hub that can be read",
    },
)
@click.argument("run", metavar="RUN", required=False, shell_complete=_complete_runs)
@records_options
@click.option("--why", "record_id", metavar="RECORD", help="Show the chain that authorised this record, instead.")
@output_option("text", "json", "mermaid", "html")
@click.option(
    "--html",
    "html_file",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write a page with the tree drawn; it needs no network.",
)
def trace(run: str | None, source: Source, record_id: str | None, output: str, html_file: Path | None) -> None:
    """Show a run as the tree of its causes: opening, plan, delegation, call, with verdict and rule at each step.

    A record hangs under what authorised it, as Fleetward knows it. What an agent says of where its record came from
    only orders the agent's own; anything else it says is shown beside the record, and moves nothing.

    RUN is a run's id, as POST /v1/runs gave it. RECORD is the id of a decision or an outcome.
    """
    if (run is None) == (record_id is None):
        raise click.UsageError("give either RUN or --why RECORD")
    if html_file is not None and output not in {"text", "html"}:
        raise click.UsageError(f"--html writes a page into a file; leave out -o {output}")
    with source.records() as trail:
        if record_id is not None:
            if output not in {"text", "json"} or html_file is not None:
                raise click.UsageError("--why is shown as text or json")
            _show_why(trail, record_id, output)
        elif run is not None:
            found = _read(trail, run)
            _write(found, output, html_file)
            _tell_gaps(trail, found)


def _read(trail: Records, run: str) -> Trace:
    members = (stored.record for stored in trail.select(RecordQuery(run=run)))
    found = tree_of(run, (record for record in members if isinstance(record, Member)))
    if not found.records:
        raise CliError(
            f"found no run {printable(run)} in {trail.where}; `audit list --type Run` shows the runs there are"
        )
    return found


def _write(found: Trace, output: str, html_file: Path | None) -> None:
    if html_file is not None:
        try:
            with html_file.open("w", encoding="utf-8", errors="backslashreplace") as file:
                file.writelines(tracehtml.page(found))
        except OSError as error:
            raise CliError(f"cannot write {html_file}: {error.strerror}") from None
        note(f"wrote {html_file}")
    elif output == "html":
        click.echo("".join(tracehtml.page(found)), nl=False)
    elif output == "json":
        click.echo(tracejson.encode(tracejson.tree(found)))
    elif output == "mermaid":
        lines = list(tracemermaid.flowchart(found))
        click.echo("\n".join(lines))
        edges = sum(" --> " in text for text in lines)
        if edges > tracemermaid.DRAWN_EDGES:
            note(
                f"the chart has {edges} edges; Mermaid draws {tracemermaid.DRAWN_EDGES} unless maxEdges says otherwise"
            )
    else:
        tracetext.show_tree(found)


def _show_why(trail: Records, record_id: str, output: str) -> None:
    def find(id_: str) -> Record | None:
        stored = trail.select(RecordQuery(id=id_))
        return stored[0].record if stored else None

    record = find(record_id)
    if record is None:
        raise CliError(f"found no record {printable(record_id)} in {trail.where}; `audit list` shows the ids")
    if not isinstance(record, DecisionRecord | OutcomeRecord | RunRecord):
        raise CliError(f"record {printable(record_id)} is neither a decision nor an outcome: no run authorises it")
    links = why(record, find)
    if isinstance(record, RunRecord) and record.state != "Opened":
        links = [*_openings(trail, record.run), *links]
    if output == "json":
        click.echo(tracejson.encode(tracejson.chain(links)))
    else:
        tracetext.show_chain(links)


def _openings(trail: Records, run: str) -> Sequence[tuple[str, Record | None]]:
    found = (stored.record for stored in trail.select(RecordQuery(run=run, types=("Run",))))
    return [(record.id, record) for record in found if isinstance(record, RunRecord) and record.state == "Opened"]


def _tell_gaps(trail: Records, found: Trace) -> None:
    """Warn of what may be missing: numbers without a record, of the writers that wrote of this run."""
    records = (record for node, _ in found.walk() for record in (node.record, *node.outcomes) if record is not None)
    writers = {record.writer for record in records}
    gaps = [gap for gap in trail.gaps() if gap.writer in writers]
    if missing := sum(gap.count for gap in gaps):
        are = f"{missing} record{'s' * (missing != 1)} of this run's writers {'are' if missing != 1 else 'is'}"
        note(f"warning: {are} not in the store, and may belong to this run", style="yellow")
