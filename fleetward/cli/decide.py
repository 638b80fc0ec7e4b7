"""`fleetward decide`: the engine's answer to a request, by the resources of a folder or a cluster alone."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

import click
import msgspec
from rich.text import Text

from fleetward.cli.describe import is_about, obligation_in_words, obstacles
from fleetward.cli.findings import refuse
from fleetward.cli.output import (
    DECISION_EXITS,
    CliError,
    Command,
    ExitCode,
    decision_text,
    output_option,
    printable,
    say,
)
from fleetward.cli.requests import Form, Request, read_requests
from fleetward.cli.source import Source, read_file, source_options
from fleetward.decision.action import Answer, RuleRef
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.decision.request import RequestError
from fleetward.registry.registry import Registry
from fleetward.registry.slice import Agent

NEAR_MISSES = 5
"""The most rules shown that would have allowed an action, had something been different."""

Decided = tuple[Evaluation, Answer]


@click.command(
    cls=Command,
    examples=[
        "decide --dir policies -f action.json",
        "decide --dir policies -f actions.jsonl -o json",
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
@output_option()
def decide(source: Source, file: Path, output: str) -> None:
    """Decide actions offline, with the same engine and by the same rules as a decision webhook.

    A request is what POST /v1/decisions takes, such as
    {"agent": "reports/data-worker", "action": {"kind": "ToolCall", "name": "crm.customers.read"}}.

    Of a cluster it reads the resources as they are now and asks no decision webhook; nothing is recorded.

    With -o json the answer is what POST /v1/decisions gives: one object for one object, an array for an array,
    one on each line for JSON lines.
    """
    form, requests = read_requests("standard input" if str(file) == "-" else str(file), read_file(file))
    governed = source.read()
    if governed.findings:
        refuse(governed.findings, governed.texts)
    engine = _engine(governed.registry, requests)
    decided = [_decide(engine, each, number) for number, each in enumerate(requests, start=1)]
    if output == "json":
        _print_json(form, [answer for _, answer in decided])
    else:
        for number, (evaluation, answer) in enumerate(decided):
            if number:
                say()
            _show(evaluation, answer, engine)
    raise click.exceptions.Exit(max(DECISION_EXITS[answer.decision] for _, answer in decided))


def _engine(registry: Registry, requests: Sequence[Request]) -> Engine:
    """Make an engine for the agents that the requests name; for all, where one names none or an unknown one."""
    named = {each.request.agent for each in requests}
    known = {name for name in named if name is not None and name in registry.agents}
    return Engine(registry.cut(known if known == named else registry.agents))


def _decide(engine: Engine, each: Request, number: int) -> Decided:
    try:
        evaluation = engine.decide(each.request)
    except RequestError as error:
        raise CliError(f"{each.where}: {error}") from None
    return evaluation, evaluation.answer(f"offline-{number}")


def _print_json(form: Form, answers: Sequence[Answer]) -> None:
    encode = msgspec.json.encode
    for line in [answers] if form == "array" else answers:
        click.echo(encode(line))


def _show(evaluation: Evaluation, answer: Answer, engine: Engine) -> None:
    action = evaluation.request.action
    say(decision_text(answer.decision) + Text(f"  {evaluation.agent}  {action.kind} {action.name}  ({answer.id})"))
    _section("reason", [answer.reason])
    _section("rules that counted", [_rule(ref) for ref in answer.rules] or ["none"])
    _section("obligations", [obligation_in_words(each) for each in answer.obligations])
    if answer.retry_after_seconds is not None:
        _section("try again", [f"in {answer.retry_after_seconds} s"])
    _section("advice", answer.advice)
    _section("what would allow it", _remedies(evaluation, engine))


def _section(title: str, lines: Sequence[str | Text]) -> None:
    if not lines:
        return
    say(f"  {title}", style="dim")
    for line in lines:
        say(Text("    ") + (line if isinstance(line, Text) else Text(printable(line))))


def _rule(ref: RuleRef) -> Text:
    padding = " " * (len("RequireApproval") - len(ref.decision))
    enforcement = "enforced" if ref.enforcement == "Enforce" else "recorded only (enforcement: Audit)"
    error = f": {printable(ref.error)}" if ref.error else ""
    return decision_text(ref.decision) + f"{padding}  {ref.rule}  of {ref.kind} {ref.policy}, {enforcement}{error}"


def _remedies(evaluation: Evaluation, engine: Engine) -> list[str]:
    """Say what would have to change where the default decided; where a rule did, its reason says so."""
    items = engine.slice.items
    agent = items.agents.get(evaluation.agent)
    by_rule = any(ref.enforcement == "Enforce" for ref in evaluation.rules)
    if agent is None or evaluation.mode is not None or by_rule or evaluation.allowed:
        return []
    if not evaluation.reason.startswith("no rule matches"):
        return []  # Fleetward itself refused, whatever the rules say
    action = evaluation.request.action
    lines = list(islice(_near_misses(evaluation, agent, engine), NEAR_MISSES))
    match = f"{{kinds: [{action.kind}], names: [{action.name}]}}"
    lines.append(
        f"a rule with decision: Allow and match: {match} in an AgentPolicy of namespace {agent.namespace} "
        f"or a ClusterAgentPolicy"
    )
    if agent.fleets:
        fleets = " and ".join(agent.fleets)
        lines.append(f"defaultDecision: Allow on AgentFleet {fleets} (for every action that no rule matches)")
    return lines


def _near_misses(evaluation: Evaluation, agent: Agent, engine: Engine) -> Iterator[str]:
    """Tell each rule that would have allowed the action but for one thing."""
    action = evaluation.request.action
    for policy in (engine.slice.items.policies[key] for key in agent.policies):
        audit = ["is in a policy with enforcement: Audit"] if policy.enforcement == "Audit" else []
        for rule in policy.rules:
            allows = rule.decision in ("Allow", "Constrain") and rule.phase == "Before"
            if allows and is_about(rule, action.kind, action.name):
                why = [*obstacles(rule, action.kind, evaluation.trusted, agent), *audit]
                if len(why) == 1:
                    yield f"rule {rule.name} of {policy.kind} {policy.name}, but it {why[0]}"
