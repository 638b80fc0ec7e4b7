"""`fleetward decide`: the engine's answer to a request, by the resources of a folder or a cluster alone."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import msgspec
from rich.text import Text

from fleetward.budget.amounts import in_words
from fleetward.budget.needs import hold, needs_of
from fleetward.budget.terms import named
from fleetward.cli.budgets.words import shortfall_in_words
from fleetward.cli.describe import obligation_in_words
from fleetward.cli.findings import refuse
from fleetward.cli.output import (
    DECISION_EXITS,
    CliError,
    Command,
    ExitCode,
    decision_text,
    note,
    output_option,
    printable,
    say,
)
from fleetward.cli.remedies import remedies
from fleetward.cli.requests import Form, Request, read_requests
from fleetward.cli.source import Source, complete_agents, complete_chain, read_file, source_options
from fleetward.cli.supposed import Supposed, situate
from fleetward.decision.action import Answer, RuleRef
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.decision.request import RequestError, read
from fleetward.decision.situation import ALONE
from fleetward.decision.throttles import limits_advice
from fleetward.registry.registry import Registry

Decided = tuple[Evaluation, Answer]


@click.command(
    cls=Command,
    examples=[
        "decide --dir policies -f action.json",
        "decide --dir policies -f actions.jsonl -o json",
        "decide --dir policies -f action.json --path care/desk,care/data-worker --labels untrusted",
        "decide --context production -f - < action.json",
    ],
    exits={
        ExitCode.OK: "allowed, or allowed with obligations",
        ExitCode.BAD_INPUT: "bad input: the command, the request, or findings in the resources",
        ExitCode.NEEDS_APPROVAL: "needs approval",
        ExitCode.THROTTLED: "throttled",
        ExitCode.DENIED: "denied; with several requests, the highest code of all",
    },
)
@source_options
@click.option(
    "-f",
    "--file",
    "file",
    metavar="FILE",
    type=click.Path(path_type=Path, allow_dash=True),
    required=True,
    help="The request as JSON, an array of requests, or one on each line; - for standard input.",
)
@click.option(
    "--path",
    metavar="AGENT,...",
    shell_complete=complete_chain,
    help="Who handed the work down to the agent, as namespace/name; the agent that opened the run first.",
)
@click.option("--labels", metavar="LABEL,...", help="Provenance labels that reached the agent in its run.")
@click.option("--to", metavar="AGENT", shell_complete=complete_agents, help="Of a Delegation: whom the work goes to.")
@output_option()
def decide(source: Source, file: Path, *, path: str | None, labels: str | None, to: str | None, output: str) -> None:
    """Decide actions offline, with the same engine and by the same rules as a decision webhook.

    A request is what POST /v1/decisions takes, such as
    {"agent": "reports/data-worker", "action": {"kind": "ToolCall", "name": "crm.customers.read"}}.

    A chain: with --path, the restrictions of everyone in it count, and the output names whose rule decided. To say
    more, or another chain for each request, write {"request": {...}, "path": [...], "labels": [...], "to": "...",
    "dataClasses": [...], "run": {...}, "plan": {...}}, with run and plan as expressions read them.
    Only the rules are judged: no run, mandate or grant is checked offline, and what an action takes out of budgets, or
    counts as where a rule throttles beyond a limit, is told as advice, and not counted.

    Of a cluster it reads the resources as they are now and asks no decision webhook; nothing is recorded.

    With -o json the answer is what POST /v1/decisions gives: one object for one object, an array for an array,
    one on each line for JSON lines.
    """
    given = _given({"path": path, "labels": labels, "to": to})
    form, requests = read_requests("standard input" if str(file) == "-" else str(file), read_file(file))
    requests = [_supposing(each, given) for each in requests]
    governed = source.read()
    if governed.findings:
        refuse(governed.findings, governed.texts)
    engine = _engine(governed.registry, requests)
    decided = [_decide(engine, each, number, governed.registry) for number, each in enumerate(requests, start=1)]
    _tell_unchecked(requests, [evaluation for evaluation, _ in decided])
    if output == "json":
        _print_json(form, [answer for _, answer in decided])
    else:
        for number, (evaluation, answer) in enumerate(decided):
            if number:
                say()
            _show(evaluation, answer, engine)
    raise click.exceptions.Exit(max(DECISION_EXITS[answer.decision] for _, answer in decided))


_OPTIONS = {"path": "--path", "labels": "--labels", "to": "--to"}


def _given(options: dict[str, str | None]) -> dict[str, Any]:
    """Read the options that suppose something. click.UsageError, which names the option, for what cannot be."""
    lists = {key: value.split(",") for key, value in options.items() if value is not None and key != "to"}
    given = {**lists, **({} if options["to"] is None else {"to": options["to"]})}
    for key, value in given.items():
        try:
            read({key: value}, Supposed)
        except RequestError as error:
            raise click.BadParameter(error.message, param_hint=_OPTIONS[key]) from None
    return given


def _supposing(each: Request, given: dict[str, Any]) -> Request:
    """Give the request with what the options suppose of it."""
    said = {key: value for key in _OPTIONS if (value := getattr(each.supposed, key))}
    if twice := said.keys() & given.keys():
        key = min(twice)
        raise CliError(f"{each.where}: {key}: is said here and with {_OPTIONS[key]}; leave one")
    values = {name: getattr(each.supposed, name) for name in Supposed.__struct_fields__}
    known = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    return replace(each, supposed=Supposed(**values | known))


def _engine(registry: Registry, requests: Sequence[Request]) -> Engine:
    """Make an engine for the agents that the requests name; for all, where one names none or an unknown one."""
    named = {each.request.agent for each in requests}
    known = {name for name in named if name is not None and name in registry.agents}
    principals = {key for each in requests for key in each.supposed.path}
    return Engine(registry.cut(known if known == named else registry.agents, principals))


def _decide(engine: Engine, each: Request, number: int, registry: Registry) -> Decided:
    try:
        evaluation = engine.decide(each.request, situate(each.supposed, each.request, registry))
        limited = limits_advice(engine, evaluation)
        takes = _takes(engine, evaluation) if evaluation.allowed else []
    except RequestError as error:
        raise CliError(f"{each.where}: {error}") from None
    judgement = evaluation.judgement
    evaluation.judgement = replace(judgement, advice=(*judgement.advice, *limited, *takes))
    return evaluation, evaluation.answer(f"offline-{number}")


def _takes(engine: Engine, evaluation: Evaluation) -> list[str]:
    """Hold an allowed action to what its budgets ask whatever is left of them; say what it would take out of each."""
    needs = needs_of(engine, evaluation)
    if not hold(evaluation, needs):
        return []
    return [
        f"it takes {in_words(need.amounts)} out of {named(need.budget)}; only a hub knows what is left of it"
        for need in needs.needs
        if "#" not in need.budget
    ]


def _tell_unchecked(requests: Sequence[Request], evaluations: Sequence[Evaluation]) -> None:
    """Say what a decision webhook would have asked its hub, and nobody was asked here."""
    if any(evaluation.situation is not ALONE for evaluation in evaluations):
        note("only the rules were judged: offline no run, mandate or grant is checked", style="yellow")
    for each in requests:
        named = [name for name in ("run", "grant") if getattr(each.request, name) is not None]
        if named and not each.supposed.path:
            agent = each.request.agent or "the agent"
            note(
                f"{each.where}: the {' and the '.join(named)} it names cannot be read here: judged as if {agent} had "
                "opened the run; --path says who handed the work down",
                style="yellow",
            )


def _print_json(form: Form, answers: Sequence[Answer]) -> None:
    encode = msgspec.json.encode
    for line in [answers] if form == "array" else answers:
        click.echo(encode(line))


def _show(evaluation: Evaluation, answer: Answer, engine: Engine) -> None:
    action, path = evaluation.request.action, evaluation.situation.path
    say(decision_text(answer.decision) + Text(f"  {evaluation.agent}  {action.kind} {action.name}  ({answer.id})"))
    _section("reason", [answer.reason])
    if path:
        _section("chain", [" > ".join((*path, evaluation.agent))])
        _section("whose rule decided", _deciding(answer, evaluation))
    _section("rules that counted", [_rule(ref, evaluation) for ref in answer.rules] or ["none"])
    _section("obligations", [obligation_in_words(each) for each in answer.obligations])
    _section("cleanses", [", ".join(evaluation.judgement.cleanses)] if evaluation.judgement.cleanses else [])
    if answer.retry_after_seconds is not None:
        _section("try again", [f"in {answer.retry_after_seconds} s"])
    _section("had no room", [shortfall_in_words(answer.shortfall)] if answer.shortfall is not None else [])
    _section("advice", answer.advice)
    _section("what would allow it", remedies(evaluation, engine))


def _deciding(answer: Answer, evaluation: Evaluation) -> list[str]:
    """Say whose rules brought the decision about."""
    whose = [r.principal for r in answer.rules if r.decision == answer.decision and r.enforcement == "Enforce"]
    return [_whose(key, evaluation) for key in dict.fromkeys(whose)] or ["nobody's: see the reason"]


def _whose(principal: str, evaluation: Evaluation) -> str:
    return f"{principal}, who acts" if principal == evaluation.agent else f"{principal}, who handed the work down"


def _section(title: str, lines: Sequence[str | Text]) -> None:
    if not lines:
        return
    say(f"  {title}", style="dim")
    for line in lines:
        say(Text("    ") + (line if isinstance(line, Text) else Text(printable(line))))


def _rule(ref: RuleRef, evaluation: Evaluation) -> Text:
    padding = " " * (len("RequireApproval") - len(ref.decision))
    enforcement = "enforced" if ref.enforcement == "Enforce" else "recorded only (enforcement: Audit)"
    whose = f", as a rule for {_whose(ref.principal, evaluation)}" if evaluation.situation.path else ""
    error = f": {printable(ref.error)}" if ref.error else ""
    words = f"{padding}  {ref.rule}  of {ref.kind} {ref.policy}, {enforcement}{whose}{error}"
    return decision_text(ref.decision) + words
