"""What rules about chains look like in words, and what lint says of those that can never hold."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from fleetward.cli.describe import match_in_words
from fleetward.registry.slice import Match

Run = Callable[..., Result]


@pytest.mark.parametrize(
    ("match", "words"),
    [
        ("path: [desk, care/worker, post/mailer]", None),
        ("path: [dsek]", "spec.rules[0].match.path[0]: found dsek, which is no Agent here; there are: care/desk"),
        ("path: [mailer]", None),  # of another namespace: work may come down from there
        ("path: [care/mailer]", "spec.rules[0].match.path[0]: found care/mailer, which is no Agent here"),
        ("minDepth: 2, maxDepth: 2", None),
        ("minDepth: 3, maxDepth: 2", "spec.rules[0].match.minDepth: found 3, allowed at most 2, which is maxDepth"),
        ("path: [desk], maxDepth: 0", "spec.rules[0].match.path: found with maxDepth 0"),
    ],
)
def test_a_match_that_can_never_hold_is_a_finding(run: Run, chain: Path, match: str, words: str | None) -> None:
    (chain / "more.yaml").write_text(
        "apiVersion: fleetward.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {name: more, namespace: care}\nspec:\n"
        f"  rules:\n  - name: one\n    match: {{{match}}}\n    decision: Deny\n"
    )
    result = run("policy", "lint", chain)
    assert result.exit_code == (0 if words is None else 1)
    assert f"more.yaml:7: {words}" in result.stdout if words else result.stdout == ""


@pytest.mark.parametrize(
    ("match", "words"),
    [
        (Match(path=("desk", "care/worker")), "handed down by desk or care/worker"),
        (Match(min_depth=1), "handed on at least 1 time"),
        (Match(max_depth=0), "handed on at most 0 times"),
        (Match(min_depth=2, max_depth=2), "handed on 2 times"),
        (Match(min_depth=1, max_depth=3), "handed on 1 to 3 times"),
    ],
)
def test_a_match_in_words(match: Match, words: str) -> None:
    assert match_in_words(match) == words


def test_an_agent_shows_how_delegation_and_inheritance_are_set(run: Run, chain: Path) -> None:
    agents = chain / "agents.yaml"
    agents.write_text(agents.read_text().replace("{team: care}}}}", "{team: care}}}, delegation: Intersection}", 1))
    shown = run("agents", "--dir", chain, "care/worker").stdout
    assert "  delegation        Intersection\n" in shown
    assert "named db.clean; cleanses untrusted, web" in shown
    by_rule = {line.split()[0]: line for line in shown.splitlines() if line}
    assert by_rule["read"].split()[5] == "-"  # an Allow is never inherited
    assert by_rule["again"].split()[5] == "Chain"
    assert "handed down by desk" in by_rule["read"]
    desk = json.loads(run("agents", "--dir", chain, "care/desk", "-o", "json").stdout)
    assert desk["delegation"] == "Intersection"
    assert {rule["policy"]: rule["inheritance"] for rule in desk["rules"]}["care/desk-alone"] == "Self"
    assert json.loads(run("agents", "--dir", chain, "post/mailer", "-o", "json").stdout)["delegation"] == "Inherit"
