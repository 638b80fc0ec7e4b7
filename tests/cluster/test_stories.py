"""The stories on a cluster: the examples applied as they are, each agent a pod with its own decision webhook.

The checks are those of tests/stories, given agents of a cluster whose webhooks are connected to two replicas.
"""

import base64
import time
from collections.abc import Iterator
from typing import Any

import pytest
from stories import test_compromised_coordinator as rogue
from stories import test_document_review as documents
from stories.test_compromised_coordinator import (
    given,
    test_a_circle,
    test_a_cleared_label,
    test_a_deeper_chain,
    test_a_grant_of_a_closed_run,
    test_a_grant_of_another_run,
    test_a_run_of_its_own_is_not_the_chiefs,
    test_a_wider_scope,
    test_an_action_out_of_scope,
    test_an_expired_one,
    test_anothers_grant,
    test_in_another_agents_name,
    test_more_than_its_share,
    test_no_grant,
    test_one_made_by_itself,
    test_the_grant_is_valid,
)
from stories.test_document_review import (
    LEAD,
    PLANNER,
    READ,
    handed_out,
    test_at_plan_time_the_steps_out_of_scope_are_named,
    test_at_plan_time_the_total_is_named,
    test_in_flight_all_at_the_same_instant_never_get_one_step_more,
    test_in_flight_the_step_that_crosses_the_line_is_stopped,
)
from stories.test_injection_by_routing import (
    test_a_message_that_got_through_labels_its_receiver,
    test_a_result_counts_also_where_only_the_grant_says_the_run,
    test_a_worker_that_reads_the_web_itself_reads_no_customers_after_it,
    test_by_a_label_on_an_outcome,
    test_by_message,
    test_by_what_a_catalog_says_of_a_result,
    test_declaring_fewer_labels_does_not_help,
    test_it_comes_down_with_a_grant_and_is_not_shaken_off_by_handing_on,
    test_sanitizing_lets_it_through_once_it_has_succeeded,
    test_what_a_worker_read_comes_back_up_to_the_coordinator,
)
from stories.world import EXAMPLES, Agents, Answer, Line
from support.chain import PLACES as CARE
from support.chain import Chain, post, replicas
from support.chart import NAMESPACE
from support.serving import stored
from support.spine import WITHIN

from fleetward.resources.names import GRANT_KEYS_SECRET

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300), pytest.mark.xdist_group("cluster")]

__all__ = [
    "given",
    "test_a_circle",
    "test_a_cleared_label",
    "test_a_deeper_chain",
    "test_a_grant_of_a_closed_run",
    "test_a_grant_of_another_run",
    "test_a_message_that_got_through_labels_its_receiver",
    "test_a_result_counts_also_where_only_the_grant_says_the_run",
    "test_a_run_of_its_own_is_not_the_chiefs",
    "test_a_wider_scope",
    "test_a_worker_that_reads_the_web_itself_reads_no_customers_after_it",
    "test_an_action_out_of_scope",
    "test_an_expired_one",
    "test_anothers_grant",
    "test_at_plan_time_the_steps_out_of_scope_are_named",
    "test_at_plan_time_the_total_is_named",
    "test_by_a_label_on_an_outcome",
    "test_by_message",
    "test_by_what_a_catalog_says_of_a_result",
    "test_declaring_fewer_labels_does_not_help",
    "test_in_another_agents_name",
    "test_in_flight_all_at_the_same_instant_never_get_one_step_more",
    "test_in_flight_the_step_that_crosses_the_line_is_stopped",
    "test_it_comes_down_with_a_grant_and_is_not_shaken_off_by_handing_on",
    "test_more_than_its_share",
    "test_no_grant",
    "test_one_made_by_itself",
    "test_sanitizing_lets_it_through_once_it_has_succeeded",
    "test_the_grant_is_valid",
    "test_what_a_worker_read_comes_back_up_to_the_coordinator",
]

READERS = documents.READERS[:6]
REVIEW = {LEAD: "one", PLANNER: "two"} | {reader: ("one", "two")[n % 2] for n, reader in enumerate(READERS)}
OFFICE = {rogue.CHIEF: "one", rogue.ROGUE: "two", rogue.FIRST: "one", rogue.SECOND: "two"}


class Pods(Agents):
    """Agents as pods, each asking its own sidecar."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._urls: dict[str, str] = {}

    def post(self, agent: str, path: str, body: Any) -> tuple[int, Answer]:
        return post(self._url(agent) + path, body)

    def line(self, agent: str) -> Line:
        return Line(self._url(agent), Host="127.0.0.1")

    def stored(self) -> list[Answer]:
        return [record for place in ("one", "two") for record in self.stored_at(place)]

    def stored_at(self, place: str) -> list[Answer]:
        """Give what the replica holds that the webhooks of a place are connected to."""
        name = {"one": "operator", "two": "second"}[place]
        return stored(self.chain.fleetward.directory / f"{name}-audit")

    def grant_keys(self) -> bytes:
        path = f"/api/v1/namespaces/{NAMESPACE}/secrets/{GRANT_KEYS_SECRET}"
        return base64.b64decode(self.chain.plane.request("GET", path)["data"]["keys.json"])

    def until_works(self, coordinator: str, worker: str, action: str) -> None:
        """Wait until an agent may hand work to another, and that may do it."""
        deadline = time.monotonic() + WITHIN
        while (said := self._tries(coordinator, worker, action)).get("decision") != "Allow":
            assert time.monotonic() < deadline, f"{coordinator} cannot hand {action} to {worker}: {said}"
            time.sleep(0.02)

    def _tries(self, coordinator: str, worker: str, action: str) -> Answer:
        mandate = {"requester": "ana", "purpose": "whether it works"}
        _, opened = self.post(coordinator, "/v1/runs", {"agent": coordinator, "mandate": mandate})
        if "run" not in opened:
            return opened
        asked = {"agent": coordinator, "to": worker, "run": opened["run"]}
        _, handed = self.post(coordinator, "/v1/delegations", asked)
        if "grant" not in handed:
            return {**handed, "decision": "none"}
        step = {"agent": worker, "grant": handed["grant"], "action": {"kind": "ToolCall", "name": action}}
        return self.post(worker, "/v1/decisions", step)[1]

    def _url(self, agent: str) -> str:
        if agent not in self._urls:
            self._urls[agent] = self.chain.url(agent)
        return self._urls[agent]


@pytest.fixture(scope="module")
def pods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pods]:
    with replicas(tmp_path_factory.mktemp("stories")) as chain:
        for example in ("accountability-chain", "document-review"):
            chain.apply_example(EXAMPLES / example)
        chain.plane.kubectl("apply", "-f", "-", input=rogue.resources())
        chain.deploy({**CARE, **REVIEW, **OFFICE})
        yield Pods(chain)


@pytest.fixture(scope="module")
def care(pods: Pods) -> Agents:
    for worker, action in (("care/data-worker", "db.customers.read"), ("care/mailer", "web.page.fetch")):
        pods.until_works("care/desk", worker, action)
    return pods


@pytest.fixture(scope="module")
def review(pods: Pods) -> Pods:
    for coordinator, reader in ((PLANNER, READERS[0]), *((LEAD, reader) for reader in READERS)):
        pods.until_works(coordinator, reader, READ)
    return pods


@pytest.fixture(scope="module")
def office(pods: Pods) -> Agents:
    for coordinator, worker in ((rogue.CHIEF, rogue.ROGUE), (rogue.ROGUE, rogue.FIRST), (rogue.CHIEF, rogue.SECOND)):
        pods.until_works(coordinator, worker, "db.read")
    return pods


@pytest.fixture
def readers() -> list[str]:
    return READERS


def test_a_review_without_a_plan_is_told_by_both_replicas(review: Pods) -> None:
    """Each webhook reports to the replica it is connected to; that one keeps its agents' records, and no others."""
    run, grants = handed_out(review, {"records": 200}, READERS)
    answers = {reader: review.act(reader, READ, run, grant) for reader, grant in grants.items()}
    assert [answer["decision"] for answer in answers.values()] == ["Allow"] * 2 + ["Deny"] * 4
    review.recorded(*answers.values())
    for place in ("one", "two"):
        held = {record["id"]: record["agent"] for record in review.stored_at(place) if record["type"] == "Decision"}
        there = {answer["id"]: reader for reader, answer in answers.items() if REVIEW[reader] == place}
        assert {id_: held.get(id_) for id_ in there} == there
        assert {answers[reader]["id"] for reader in answers if REVIEW[reader] != place}.isdisjoint(held)
