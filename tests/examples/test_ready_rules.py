"""The ready rules: each decides where it should and only there, errs nowhere, and means the same in both runtimes."""

import re
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from decision.build import load, read_request, slice_of

from fleetward.cli.folder import open_folder
from fleetward.decision.agent import agent_variables
from fleetward.decision.cel.runtime import Runtime, load_runtime
from fleetward.decision.engine import Engine
from fleetward.decision.evaluation import Evaluation
from fleetward.decision.situation import ALONE, Situation

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "ready-rules"
PAGE = ROOT / "docs" / "ready-rules.md"
Document = dict[str, Any]
NO_PLAN = {"steps": 0, "agents": [], "fanOut": 0, "depth": 0, "dataClasses": [], "targets": [], "used": {}}


def documents(folder: Path) -> list[Document]:
    return [each for file in sorted(folder.rglob("*.yaml")) for each in yaml.safe_load_all(file.read_text())]


DOCUMENTS = documents(FOLDER)
CASES = [case for each in DOCUMENTS if each["kind"] == "PolicyTest" for case in each["cases"]]
POLICIES = [each for file in sorted(FOLDER.glob("*.yaml")) for each in yaml.safe_load_all(file.read_text())]
RULES = {rule["name"]: rule for policy in POLICIES for rule in policy["spec"]["rules"]}


def engine_with(runtime: Runtime, change: dict[str, Document | None] | None = None) -> Engine:
    """Give an engine; `change` says what becomes of a rule, None: it is taken out."""
    resources = []
    for each in DOCUMENTS:
        if each["kind"] == "PolicyTest":
            continue
        document = {key: value for key, value in each.items() if key != "apiVersion"}
        if change and "rules" in each["spec"]:
            rules = [change.get(rule["name"], rule) for rule in each["spec"]["rules"]]
            document["spec"] = {**each["spec"], "rules": [rule for rule in rules if rule is not None]}
        resources.append(load(document))
    return Engine(slice_of(*resources), runtime)


def situation_of(engine: Engine, case: Document) -> Situation:
    to = engine.slice.items.agents[case["to"]] if "to" in case else None
    return Situation(
        path=tuple(case.get("path", ())),
        labels=tuple(case.get("labels", ())),
        run=case.get("run", {}),
        to={} if to is None else agent_variables(to),
        plan=NO_PLAN | case.get("plan", {}),
    )


def judged(engine: Engine, case: Document) -> Evaluation:
    return engine.decide(read_request(case["request"]), situation_of(engine, case))


def as_expected(found: Evaluation, expect: Document) -> bool:
    deciding = {ref.rule for ref in found.rules if ref.decision == found.decision}
    return (
        found.decision == expect["decision"]
        and expect.get("rule", None) in {None, *deciding}
        and sorted(expect.get("rules", [ref.rule for ref in found.rules])) == sorted(ref.rule for ref in found.rules)
    )


@pytest.fixture(params=["cel-expr", "cel-python"])
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return load_runtime(request.param)


def test_they_have_no_mistakes() -> None:
    assert open_folder(FOLDER).findings == ()


def test_each_case_comes_out_as_it_says(runtime: Runtime) -> None:
    engine = engine_with(runtime)
    wrong = [
        (case["name"], judged(engine, case).reason)
        for case in CASES
        if not as_expected(judged(engine, case), case["expect"])
    ]
    assert wrong == []


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_is_taken_out_is_missed(name: str) -> None:
    engine = engine_with(load_runtime(), {name: None})
    assert [case["name"] for case in CASES if not as_expected(judged(engine, case), case["expect"])]


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_always_decides_is_noticed(name: str) -> None:
    """Without its expression, or, where it has none, without what it is matched on."""
    rule = {key: value for key, value in RULES[name].items() if key not in ("when", "exclude")}
    if "when" not in RULES[name]:
        rule["match"] = {"kinds": rule["match"]["kinds"]}
    engine = engine_with(load_runtime(), {name: rule})
    assert [case["name"] for case in CASES if not as_expected(judged(engine, case), case["expect"])]


def everywhere(engine: Engine) -> Iterator[tuple[Document, Situation]]:
    """Requests and situations with as little in them as there can be, and with everything."""
    names = [
        "plain",
        "payments.propose",
        "payments.approve",
        "payments.execute",
        "wiki.write",
        "wiki.export",
        "mail.send",
    ]
    names += ["disk.wipe", "crm.read", "job.status", "text.sanitize"]
    full = next(case["run"] for case in CASES if "onTarget" in case.get("run", {}))
    many = {
        "id": "run-1",
        "repeats": 1000,
        "idleSteps": 1000,
        "exchanges": 1000,
        "steps": 1000,
        "used": {"records": 5000},
    }
    to = agent_variables(engine.slice.items.agents["team/vault"])
    situations = [ALONE, Situation(run={"id": "run-1"}), Situation(run=full, to=to)]
    situations.append(Situation(path=("team/lead",) * 5, labels=("untrusted", "web"), run={**full, **many}))
    situations.append(Situation(plan=NO_PLAN | {"steps": 500, "used": {"records": 9999}}, to=to, labels=("web",)))
    asks: list[Document] = [{}, {"arguments": {}}, {"estimate": {"records": 1}}, {"target": "elsewhere"}]
    for kind, name, more, situation in product(
        ["ToolCall", "ModelCall", "Delegation", "Plan", "Message"], names, asks, situations
    ):
        yield {"agent": "team/one", "action": {"kind": kind, "name": name, **more}}, situation


def test_they_err_nowhere(runtime: Runtime) -> None:
    engine = engine_with(runtime)
    erred = {
        (ref.rule, ref.error)
        for request, situation in everywhere(engine)
        for ref in engine.decide(read_request(request), situation).rules
        if ref.error
    }
    assert erred == set()


def test_both_runtimes_decide_alike_everywhere() -> None:
    one, other = engine_with(load_runtime("cel-expr")), engine_with(load_runtime("cel-python"))
    for request, situation in everywhere(one):
        asked = read_request(request)
        assert one.decide(asked, situation).rules == other.decide(asked, situation).rules, (request, situation)


def test_every_rule_that_refuses_says_what_to_do() -> None:
    assert [
        name for name, rule in RULES.items() if rule["decision"] != "Allow" and len(rule.get("message", "")) < 30
    ] == []


def test_the_page_lists_each_rule_with_its_numbers() -> None:
    rows = dict(re.findall(r"^\| `([a-z-]+)` \|(.*)$", PAGE.read_text(), re.MULTILINE))
    assert sorted(rows) == sorted(RULES)
    for name, rule in RULES.items():
        for number in re.findall(r"[<>]=? (\d+)", rule.get("when", "")):
            if int(number) > 0:
                assert number in rows[name], (name, number)
        assert rule["decision"] in rows[name], name
