"""A delegates to B, B reads the database, C's mail to a customer is held, and the trace tells it all."""

import json
from typing import Any

import pytest
from stories.world import World

DESK, READER, MAILER = "care/desk", "care/data-worker", "care/mailer"
READING = {"actions": ["db.customers.read"], "dataClasses": ["customer"], "targets": ["customer-db"], "depth": 0}


@pytest.fixture(scope="module")
def story(care: World) -> dict[str, Any]:
    """Play the story; the answers by name. `sent` is the mail that went out: an agent runs only what is allowed."""
    sent = []
    run = care.open(DESK, dataClasses=["customer"], limits={"steps": 10, "depth": 2, "agents": 3})
    reading = care.delegate(DESK, READER, run, scope=READING)
    read = care.act(READER, "db.customers.read", run, reading["grant"])
    outcome = care.ended(READER, read, actual={"records": 1}, result=[{"id": 7, "name": "Ada"}])
    mailing = care.delegate(DESK, MAILER, run, scope={"actions": ["mail.send.*"]}, parent=read["id"])
    mail = care.act(MAILER, "mail.send.customer", run, mailing["grant"], arguments={"to": "ada@example.com"})
    if mail["decision"] == "Allow":
        sent.append("ada@example.com")
    care.close(DESK, run)
    care.records(run, 7)
    return {
        "run": run,
        "reading": reading,
        "read": read,
        "outcome": outcome,
        "mailing": mailing,
        "mail": mail,
        "sent": sent,
    }


def test_the_read_is_allowed_and_the_mail_is_held(story: dict[str, Any]) -> None:
    decisions = {name: story[name]["decision"] for name in ("reading", "read", "outcome", "mailing", "mail")}
    assert decisions == {
        "reading": "Allow",
        "read": "Allow",
        "outcome": "Allow",
        "mailing": "Allow",
        "mail": "RequireApproval",
    }
    assert [(rule["rule"], rule["principal"]) for rule in story["mail"]["rules"]] == [("mail-needs-a-person", MAILER)]
    assert story["sent"] == []


def test_what_is_held_cannot_be_reported_as_done(care: World, story: dict[str, Any]) -> None:
    problem = care.ended(MAILER, story["mail"], expect=409)
    assert "was RequireApproval: the action may not be run" in problem["detail"]


def test_what_is_held_costs_nothing(care: World) -> None:
    run = care.open(DESK, limits={"steps": 2})
    grant = care.give(DESK, MAILER, run)
    held = [care.act(MAILER, "mail.send.customer", run, grant)["decision"] for _ in range(3)]
    allowed = [care.act(MAILER, "web.page.fetch", run, grant)["decision"] for _ in range(2)]
    assert (held, allowed) == (["RequireApproval"] * 3, ["Allow", "Deny"])


def test_every_record_says_run_grant_path_and_cause(care: World, story: dict[str, Any]) -> None:
    reading, read, mailing, mail = care.recorded(story["reading"], story["read"], story["mailing"], story["mail"])
    assert {record["run"] for record in (reading, read, mailing, mail)} == {story["run"]}
    assert (read["path"], read["cause"], read["grant"]) == ([DESK], reading["id"], reading["handover"]["grant"])
    assert (mail["path"], mail["cause"], mail["grant"]) == ([DESK], mailing["id"], mailing["handover"]["grant"])
    assert (mailing["parent"], mailing["handover"]["to"]) == (read["id"], MAILER)
    assert story["reading"]["grant"] not in json.dumps(care.server.records()), "grants themselves are not on record"


def test_the_trace_tells_it_all(care: World, story: dict[str, Any]) -> None:
    text = care.trace(story["run"])
    for verdict, *words in (
        ("Allow", DESK, "Delegation", READER, "care/desk/may-hand-out"),
        ("Allow", READER, "db.customers.read", "care/workers/read-customers"),
        ("Allow", DESK, "Delegation", MAILER, "care/desk/may-hand-out"),
        ("RequireApproval", MAILER, "mail.send.customer", "care/workers/mail-needs-a-person"),
    ):
        assert any(verdict in line and all(word in line for word in words) for line in text.splitlines()), (
            verdict,
            words,
        )
    assert "ana" in text
    assert "answer ticket 7" in text


def test_in_the_trace_each_call_hangs_under_the_delegation_that_authorised_it(
    care: World, story: dict[str, Any]
) -> None:
    tree = json.loads(care.trace(story["run"], "-o", "json"))
    above = dict(parents(tree))
    assert above[story["read"]["id"]] == story["reading"]["id"]
    assert above[story["mail"]["id"]] == story["mailing"]["id"]


def test_why_names_the_coordinators_decision(care: World, story: dict[str, Any]) -> None:
    text = care.trace("--why", story["mail"]["id"])
    assert story["mailing"]["id"] in text
    assert story["reading"]["id"] not in text, "the reader's delegation did not authorise the mail"
    chain = json.loads(care.trace("--why", story["read"]["id"], "-o", "json"))
    assert story["reading"]["id"] in json.dumps(chain)
    assert DESK in json.dumps(chain)


def parents(node: Any, above: str | None = None) -> list[tuple[str, str | None]]:
    """Give each record's id and that of the record it hangs under, from the JSON of a trace."""
    if isinstance(node, list):
        return [pair for each in node for pair in parents(each, above)]
    if not isinstance(node, dict):
        return []
    record = node.get("record", node)
    own = record.get("id") if isinstance(record, dict) else None
    found = [(own, above)] if isinstance(own, str) else []
    for key, value in node.items():
        if key != "record" and isinstance(value, dict | list):
            found += parents(value, own or above)
    return found
