"""Routing raw user input, taking it apart, carrying it out: the same action differs by role and boundary."""

from collections.abc import Iterator

import pytest
from stories.world import EXAMPLES, Answer, World, copied, serving

DESK, PLANNER, SEARCHER, ACCOUNTS = "help/front-desk", "help/planner", "help/searcher", "help/accounts"
RAW = ["user-input"]


@pytest.fixture(scope="module")
def help_(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with serving(copied("three-layers", tmp_path_factory.mktemp("help"))) as world:
        yield world


def step(number: int, agent: str, name: str, *after: int) -> Answer:
    return {
        "id": f"s{number}",
        "agent": agent,
        "action": {"kind": "ToolCall", "name": name},
        "dependsOn": [f"s{one}" for one in after],
    }


def rules(answer: Answer) -> list[str]:
    return [rule["rule"] for rule in answer["rules"]]


def test_its_policy_tests_pass(help_: World) -> None:
    assert "none failed" in help_.fleetward("policy", "test", str(EXAMPLES / "three-layers"), "--require-coverage")


def test_routing(help_: World) -> None:
    """The coordinator passes raw input to the planner and to whom it can do no harm, and to nobody with data."""
    run = help_.open(DESK)
    assert help_.act(DESK, "manual.search", run)["rules"][0]["rule"] == "no-tools-no-plans"
    assert rules(help_.plan(DESK, run, [step(1, SEARCHER, "manual.search")])) == ["no-tools-no-plans"]
    found = {to: help_.delegate(DESK, to, run, labels=RAW) for to in (PLANNER, SEARCHER, ACCOUNTS)}
    assert {to: answer["decision"] for to, answer in found.items()} == {
        PLANNER: "Allow",
        SEARCHER: "Allow",
        ACCOUNTS: "Deny",
    }
    assert rules(found[ACCOUNTS])[0] == "not-to-those-with-data"
    assert help_.delegate(DESK, ACCOUNTS, run, labels=[])["decision"] == "Deny", "labels stay with the agent"
    assert help_.delegate(DESK, ACCOUNTS, help_.open(DESK))["decision"] == "Allow", "another run never saw the text"


def test_decomposition(help_: World) -> None:
    run = help_.open(DESK)
    grant = help_.give(DESK, PLANNER, run, labels=RAW)

    def planned(*steps: Answer) -> Answer:
        return help_.plan(PLANNER, run, list(steps), grant=grant)

    assert planned(step(1, SEARCHER, "manual.search"), step(2, SEARCHER, "manual.search", 1))["decision"] == "Allow"
    wide = planned(*(step(number, SEARCHER, "manual.search") for number in range(4)))
    assert (wide["decision"], rules(wide)[0]) == ("Deny", "small-plans")
    closing = planned(step(1, ACCOUNTS, "accounts.close"))
    assert closing["decision"] == "Allow"
    assert closing["advice"][0].startswith("step s1: RequireApproval for accounts.close by help/accounts")
    long = planned(
        step(0, ACCOUNTS, "accounts.read"), *(step(n, ACCOUNTS, "accounts.read", n - 1) for n in range(1, 5))
    )
    assert (long["decision"], rules(long)[0]) == ("RequireApproval", "plans-on-customer-data-are-read-first")
    assert help_.act(PLANNER, "manual.search", run, grant)["decision"] == "Deny", "a planner has no tools"


def test_from_raw_input_to_a_call_on_data_only_by_way_of_extracted_fields(help_: World) -> None:
    run = help_.open(DESK)
    planner = help_.give(DESK, PLANNER, run, labels=RAW)
    assert rules(help_.delegate(PLANNER, ACCOUNTS, run, grant=planner))[0] == "not-to-those-with-data"
    extracted = help_.act(PLANNER, "request.extract", run, planner, arguments={"text": "close my account!!"})
    assert extracted["decision"] == "Allow"
    denied = help_.delegate(PLANNER, ACCOUNTS, run, grant=planner)
    assert denied["decision"] == "Deny", "allowed is not done: the label goes with success"
    help_.ended(PLANNER, extracted, result={"intent": "close", "account": 7})
    accounts = help_.give(PLANNER, ACCOUNTS, run, grant=planner)
    assert help_.act(ACCOUNTS, "accounts.read", run, accounts)["decision"] == "Allow"


def test_execution(help_: World) -> None:
    run = help_.open(DESK)
    accounts = help_.give(DESK, ACCOUNTS, run)
    assert help_.act(ACCOUNTS, "accounts.read", run, accounts)["decision"] == "Allow"
    closing = help_.act(ACCOUNTS, "accounts.close", run, accounts)
    assert (closing["decision"], rules(closing)) == ("RequireApproval", ["closing-needs-a-person"])
    on_his_word = help_.act(ACCOUNTS, "accounts.read", run, accounts, labels=RAW)
    assert (on_his_word["decision"], rules(on_his_word)[0]) == ("Deny", "not-into-a-call-on-data")
    assert rules(help_.delegate(ACCOUNTS, SEARCHER, run, grant=accounts))[0] == "workers-hand-nothing-on"
    alone = help_.call(ACCOUNTS, "/v1/decisions", {"action": {"kind": "ToolCall", "name": "accounts.read"}})
    assert (alone["decision"], rules(alone)[0]) == ("Deny", "only-what-was-handed-down")
