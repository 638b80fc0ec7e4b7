"""The ready rules: each decides where it should and only there, errs nowhere, and means the same in both runtimes."""

import re
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml
from decision.build import load, read_request

from fleetward.cli.folder import open_folder
from fleetward.cli.policy.testfile import Case, read_tests
from fleetward.cli.policy.testrun import run
from fleetward.decision.agent import agent_variables
from fleetward.decision.cel.runtime import ENV_VAR, Runtime, load_runtime
from fleetward.decision.engine import Engine
from fleetward.decision.situation import ALONE, Situation
from fleetward.registry.registry import Registry

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "examples" / "ready-rules"
PAGE = ROOT / "docs" / "ready-rules.md"
Document = dict[str, Any]
NO_PLAN = {"steps": 0, "agents": [], "fanOut": 0, "depth": 0, "dataClasses": [], "targets": [], "used": {}}


def documents(files: Iterable[Path]) -> list[Document]:
    return [each for file in sorted(files) for each in yaml.safe_load_all(file.read_text())]


DOCUMENTS = [each for each in documents(FOLDER.rglob("*.yaml")) if each["kind"] != "PolicyTest"]
RULES = {rule["name"]: rule for policy in documents(FOLDER.glob("*.yaml")) for rule in policy["spec"]["rules"]}


@cache
def cases() -> list[Case]:
    found, findings = read_tests(open_folder(FOLDER))
    assert findings == []
    return found


def registry_with(change: dict[str, Document | None] | None = None) -> Registry:
    """Give the registry; `change` says what becomes of a rule, None: it is taken out."""
    resources = []
    for each in DOCUMENTS:
        document = {key: value for key, value in each.items() if key != "apiVersion"}
        if change and "rules" in each["spec"]:
            rules = [change.get(rule["name"], rule) for rule in each["spec"]["rules"]]
            document["spec"] = {**each["spec"], "rules": [rule for rule in rules if rule is not None]}
        resources.append(load(document))
    return Registry.build(resources)


def engine_of(runtime: Runtime) -> Engine:
    registry = registry_with()
    return Engine(registry.cut(registry.agents), runtime)


def failures(registry: Registry) -> list[tuple[str, tuple[str, ...]]]:
    return [(result.case.name, result.failures) for result in run(cases(), registry).failed]


@pytest.fixture(params=["cel-expr", "cel-python"])
def runtime(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    monkeypatch.setenv(ENV_VAR, request.param)
    return load_runtime()


def test_they_have_no_mistakes() -> None:
    assert open_folder(FOLDER).findings == ()


def test_each_case_comes_out_as_it_says(runtime: Runtime) -> None:
    assert failures(registry_with()) == []


def test_no_rule_goes_without_a_case() -> None:
    assert run(cases(), registry_with()).unreached == []


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_is_taken_out_is_missed(name: str) -> None:
    assert failures(registry_with({name: None}))


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_always_decides_is_noticed(name: str) -> None:
    """Without its expression, or, where it has none, without what it is matched on."""
    rule = {key: value for key, value in RULES[name].items() if key not in ("when", "exclude")}
    if "when" not in RULES[name]:
        rule["match"] = {"kinds": rule["match"]["kinds"]}
    assert failures(registry_with({name: rule}))


@pytest.mark.parametrize("name", [name for name in RULES if re.search(r"[<>]=? [1-9]", RULES[name].get("when", ""))])
def test_a_number_that_is_off_by_one_is_noticed(name: str) -> None:
    when = re.sub(r"([<>]=?) ([1-9]\d*)", lambda found: f"{found[1]} {int(found[2]) + 1}", RULES[name]["when"])
    assert failures(registry_with({name: {**RULES[name], "when": when}}))


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
    full = next(case.situation.run for case in cases() if case.situation.run.get("onTarget"))
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
    engine = engine_of(runtime)
    erred = {
        (ref.rule, ref.error)
        for request, situation in everywhere(engine)
        for ref in engine.decide(read_request(request), situation).rules
        if ref.error
    }
    assert erred == set()


def test_both_runtimes_decide_alike_everywhere() -> None:
    one, other = engine_of(load_runtime("cel-expr")), engine_of(load_runtime("cel-python"))
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
