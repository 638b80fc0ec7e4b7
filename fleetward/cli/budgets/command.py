"""`fleetward budgets`: how budgets stand, who spent them, what they stopped, and whether the ledger is right.

Commands read the ledger and the audit records, of a folder or of a cluster, and change nothing.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem

from fleetward.audit.query import RecordQuery
from fleetward.audit.record import DecisionRecord
from fleetward.budget.terms import named
from fleetward.cli.budgets import burn, explaintext, picture, select, show, table, words
from fleetward.cli.budgets import explain as explaining
from fleetward.cli.budgets.read import Budgets, with_untouched
from fleetward.cli.budgets.verify import verify as compared
from fleetward.cli.follow import until_stopped
from fleetward.cli.output import (
    CliError,
    Command,
    ExitCode,
    note,
    output_option,
    print_json,
    print_table,
    printable,
    say,
)
from fleetward.cli.source import Source, budgets_options, complete_agents, source_of, typed_options

WATCH_SECONDS = 2.0
"""How often a watched budget is read again."""

_EXITS = {ExitCode.OK: "shown", ExitCode.BAD_INPUT: "bad input, or no ledger or hub that can be read"}
_POT = click.option("--pot", metavar="SCOPE", help="The pot of this agent, run or RUN/GRANT.  [default: the fullest]")
_LIMIT = click.option(
    "--limit", metavar="LIMIT", help="Such as costMicroUsd or 'calls crm.**'.  [default: the fullest]"
)


def _complete_budgets(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG001
    """Propose the budgets of the source."""
    try:
        source = source_of(context)
        names = [name for kind in ("AgentBudget", "ClusterAgentBudget") for name in source.names(kind)]
    except click.ClickException:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


class _ListByDefault(click.Group):
    """A group that lists where no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put the default command first where there is none."""
        asks_for_help = bool(args) and args[0] in ctx.help_option_names
        if not asks_for_help and (not args or args[0].startswith("-")):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListByDefault)
def budgets() -> None:
    """Show budgets: what is spent, reserved, leased and left, who spent it, and how long it lasts.

    Without a command, they are listed.

    A folder's ledger is that of fleetward serve; a cluster's is asked of its hub, with a token of the service account
    fleetward-auditor.
    """


@budgets.command(
    "list",
    cls=Command,
    examples=["budgets list --dir policies", "budgets --context production -n reports", "budgets -o json"],
    exits=_EXITS,
)
@budgets_options
@output_option("table", "json")
def list_(source: Source, output: str) -> None:
    """List budgets and rules that throttle: every pot that something was taken out of, and budgets still untouched.

    Spent is what actions used, reserved what actions under way are expected to use, leased what decision webhooks hold
    and have not spent. The forecast goes by the rate of late.
    """
    with source.budgets() as found:
        report = with_untouched(found.report(), found.known)
        if output == "json":
            print_json(msgspec.to_builtins(report))
        elif report.pots:
            table.show_list(report)
        else:
            note(f"there are no budgets in {found.where}")


@budgets.command(
    "show",
    cls=Command,
    examples=["budgets show reporting-day --dir policies", "budgets show reports/reporting-day --watch"],
    exits={**_EXITS, ExitCode.BAD_INPUT: "there is no such budget, or no ledger or hub that can be read"},
)
@click.argument("name", metavar="NAME", shell_complete=_complete_budgets)
@budgets_options
@_POT
@_LIMIT
@click.option("-w", "--watch", is_flag=True, help="Show it again and again, until interrupted.")
@output_option()
def show_(name: str, source: Source, output: str, *, pot: str | None, limit: str | None, watch: bool) -> None:
    """Draw what is left of a budget over its window, with an even pace and a forecast, and say who spent it.

    NAME is a budget's name, namespace/name, or KIND/namespace/name; of a rule that throttles, with #RULE.
    """
    with source.budgets() as found:

        def view() -> show.View:
            report = with_untouched(found.report(), found.known)
            key = select.find_budget([*found.known, *(each.budget for each in report.pots)], name)
            pots = select.pots_of(report, key, pot)
            return show.View(report.at, pots[0], select.limit_of(pots[0], limit), tuple(pots[1:]))

        if not watch:
            _print(view(), output)
            return
        _watch(view, output)


def _print(view: show.View, output: str) -> None:
    if output == "json":
        print_json(msgspec.to_builtins(view.report))
    else:
        for line in show.lines(view):
            say(line)


def _watch(view: Callable[[], show.View], output: str) -> None:
    with until_stopped() as wait, show.screen() as draw:
        while True:
            seen = view()
            if output == "json":
                click.echo(json.dumps(msgspec.to_builtins(seen.report), ensure_ascii=False))
            else:
                draw(seen)
            for _ in range(show.polls(WATCH_SECONDS)):
                if not wait():
                    return


@budgets.command(
    "explain",
    cls=Command,
    examples=[
        "budgets explain k3q7xw2mza-17 --dir policies",
        "budgets explain --agent data-worker --context production",
        "budgets explain reporting-day",
    ],
    exits={
        ExitCode.OK: "shown",
        ExitCode.BAD_INPUT: "there is no such decision or budget, no budget stopped it, or nothing can be read",
    },
)
@click.argument("what", metavar="[DECISION-ID | BUDGET]", required=False, shell_complete=_complete_budgets)
@budgets_options
@click.option("--agent", metavar="NAME", shell_complete=complete_agents, help="The last action stopped of this agent.")
@output_option()
@click.pass_context
def explain_(context: click.Context, what: str | None, source: Source, agent: str | None, output: str) -> None:
    """Say which budget stopped an action, what was left, and who had spent it up to then: by agent and by run.

    DECISION-ID is the id of the action's decision; BUDGET stands for the last action that it stopped. All of this is
    from the audit records: what decisions reserved, and what their outcomes put in its place.
    """
    if (what is None) == (agent is None):
        raise click.UsageError("give either DECISION-ID, BUDGET or --agent NAME")
    with source.budgets() as found:
        its = _explained(found, what, agent)
        if output == "json":
            print_json(msgspec.to_builtins(its))
        else:
            explaintext.show(its, context.find_root().info_name or "fleetward", typed_options(context))


def _explained(found: Budgets, what: str | None, agent: str | None) -> explaining.Explained:
    if what is None:
        record = explaining.find_stop(found.records, agent, None)
        if record is None:
            raise CliError(f"no budget has stopped an action of {printable(agent or '')}, by {found.records.where}")
        return explaining.explain_stop(found, record)
    stored = found.records.select(RecordQuery(id=what)) if "/" not in what else []
    if stored:
        record_ = stored[0].record
        if not isinstance(record_, DecisionRecord):
            raise CliError(f"record {printable(what)} is no decision: `audit show` has all of it")
        return explaining.explain_stop(found, record_)
    report = found.report()
    try:
        key = select.find_budget([*found.known, *(pot.budget for pot in report.pots)], what)
    except CliError as error:
        where = f"found no decision {printable(what)} in {found.records.where}; as a budget, {error.message}"
        raise CliError(where) from None
    record = explaining.find_stop(found.records, None, key)
    if record is not None:
        return explaining.explain_stop(found, record)
    pot = select.pots_of(with_untouched(report, found.known), key, None)[0]
    return explaining.explain_use(found, key, pot.scope, select.limit_of(pot, None).limit)


@budgets.command(
    "picture",
    cls=Command,
    examples=[
        "budgets picture reporting-day --out spend.svg",
        "budgets picture reporting-day --limit records --out r.png",
    ],
    exits={
        ExitCode.OK: "written",
        ExitCode.BAD_INPUT: "there is no such budget, or the picture cannot be made: it needs fleetward[pictures]",
    },
)
@click.argument("name", metavar="NAME", shell_complete=_complete_budgets)
@budgets_options
@_POT
@_LIMIT
@click.option(
    "--out",
    metavar="FILE",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where to write it; .svg or .png.",
)
def picture_(name: str, source: Source, pot: str | None, limit: str | None, out: Path) -> None:
    """Write a picture of spend over time: each agent's part, the limit, its thresholds, and the forecast."""
    with source.budgets() as found:
        report = with_untouched(found.report(), found.known)
        key = select.find_budget([*found.known, *(each.budget for each in report.pots)], name)
        chosen = select.pots_of(report, key, pot)[0]
        known = found.known.get(key)
        thresholds = known.thresholds if known is not None else ()
        until = datetime.fromtimestamp(report.at, UTC)
        spent, _ = explaining.used(found.records, key, chosen.scope, known, until)
        series = picture.points_of(spent, burn.began_at(chosen, report.at), report.at)
        drawn = msgspec.structs.replace(chosen, series=series)
        picture.draw(drawn, select.limit_of(chosen, limit), thresholds, report.at, out)
    note(f"wrote {out}")


@budgets.command(
    "verify",
    cls=Command,
    examples=["budgets verify --dir policies", "budgets verify --context production -o json"],
    exits={
        ExitCode.OK: "the ledger holds what the records say",
        ExitCode.FINDINGS: "they differ, and it lasts",
        ExitCode.BAD_INPUT: "no ledger, audit store or hub that can be read",
    },
)
@budgets_options
@output_option()
def verify_(source: Source, output: str) -> None:
    """Compare the ledger with the audit records: what a pot holds as spent or reserved must be the sum of them.

    Leases are in no record, and so is the use of rates. Pots whose window is over are not compared. Where the two
    differ they are read again, for a few seconds: a record is stored a moment before it counts.
    """
    with source.budgets() as found:
        seen = compared(found)
    if output == "json":
        rows = [difference._asdict() for difference in seen.differences]
        print_json({"pots": seen.pots, "limits": seen.limits, "actions": seen.actions, "differences": rows})
    elif seen.differences:
        print_table(
            ["BUDGET", "POT", "WINDOW", "LIMIT", "LEDGER", "RECORDS", "DIFFERENCE"], map(_row, seen.differences)
        )
    else:
        say(f"the ledger holds what the records say: {seen.limits} limits of {seen.pots} pots, {seen.actions} actions")
    if seen.differences:
        raise click.exceptions.Exit(ExitCode.FINDINGS)


def _row(difference: Any) -> list[str]:
    limit = difference.limit
    values = (difference.ledger, difference.records, difference.ledger - difference.records)
    pot = [named(difference.budget), words.whose(difference.scope), difference.window, words.label(limit)]
    return [*map(printable, pot), *(words.amount(limit, value) for value in values)]
