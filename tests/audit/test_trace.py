"""The tree of a run: every record is in it once, under what authorised it, whatever was recorded."""

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from support.runs import RUN, A, B, C, decision, large, opening, outcome, story

from fleetward.audit.record import DecisionRecord, OutcomeRecord, Record, RunRecord
from fleetward.audit.trace import MAX_LEVELS, SAID_LEVELS, Member, Node, Trace, trace, why


def shape(found: Trace) -> list[Any]:
    """Each node as its id, or its kind where it has none, followed by what hangs under it."""

    def of(node: Node) -> Any:
        name = node.id if node.kind in {"Opening", "Closing", "Decision"} else f"{node.kind} {node.id}".strip()
        name += "".join(f" {each.id}" for each in node.outcomes)
        return [name, *map(of, node.children)] if node.children else name

    return [of(root) for root in found.roots]


def nodes(found: Trace) -> dict[str, Node]:
    return {node.id: node for node, _ in found.walk()}


def test_the_chain_of_accountability() -> None:
    found = trace(RUN, reversed(story()))
    assert shape(found) == [
        ["aaaa-1", ["aaaa-2", ["aaaa-3", ["aaaa-4 aaaa-5", ["aaaa-6", "aaaa-7"]], "aaaa-8"]], "aaaa-11"],
        ["NotInStore gone-3", "aaaa-10"],
        ["NotAuthorised", "aaaa-9"],
    ]
    assert found.records == len(story())
    assert found.opening == story()[0]
    notes = {id_: node.notes for id_, node in nodes(found).items() if node.notes}
    assert notes == {"aaaa-8": ["says it came from other-1, which is not of this run"]}


BY_B: dict[str, Any] = {"agent": B, "path": (A,), "cause": "aaaa-2"}
BY_C: dict[str, Any] = {"agent": C, "path": (A,), "cause": "aaaa-3"}


@pytest.mark.parametrize(
    ("record", "under", "said"),
    [
        # Its own, by the same authority.
        (decision(9, **BY_B, parent="aaaa-4"), "aaaa-4", None),
        # The outcome of its own.
        (decision(9, **BY_B, parent="aaaa-5"), "aaaa-4", None),
        # Its cause, and what is above that: it hangs below them anyway.
        (decision(9, **BY_B, parent="aaaa-2"), "aaaa-2", None),
        (decision(9, **BY_B, parent="aaaa-1"), "aaaa-2", None),
        # Its own, by another authority: what Fleetward vouches for holds.
        (decision(9, agent=B, path=(A,), cause="aaaa-3", parent="aaaa-4"), "aaaa-3", "Elsewhere"),
        # Of an agent above it, elsewhere in the tree.
        (decision(9, **BY_B, parent="aaaa-3"), "aaaa-2", "Elsewhere"),
        # Of an agent above it, which claims the same authority.
        (decision(9, **BY_B, parent="aaaa-7"), "aaaa-2", "Elsewhere"),
        # Of an agent that is not above it.
        (decision(9, **BY_B, parent="aaaa-6"), "aaaa-2", "NotAbove"),
        (decision(9, **BY_B, parent="zzzz-1"), "aaaa-2", "NotOfThisRun"),
        (decision(9, **BY_B, parent="aaaa-9"), "aaaa-2", "Circular"),
        # Nothing authorised it, so nobody's word puts it under what was.
        (decision(9, agent=B, parent="aaaa-4"), "", "Elsewhere"),
    ],
)
def test_what_an_agent_says_only_orders_its_own(record: DecisionRecord, under: str, said: str | None) -> None:
    records: list[Member] = [
        opening(),
        decision(2, "Delegation", cause="aaaa-1"),
        decision(3, "Delegation", cause="aaaa-1"),
        decision(4, **BY_B),
        outcome(5, "aaaa-4"),
        decision(6, **BY_C),
        decision(7, agent=A, cause="aaaa-2"),
        record,
    ]
    found = trace(RUN, records)
    (above,) = (node for node, _ in found.walk() if "aaaa-9" in [child.id for child in node.children])
    assert above.id == under
    its = nodes(found)["aaaa-9"]
    assert its.said == said
    assert bool(its.notes) == (said is not None)


def test_what_is_said_in_a_circle_moves_nothing() -> None:
    said = {4: "aaaa-6", 5: "aaaa-4", 6: "aaaa-5", 7: "aaaa-6"}
    records: list[Member] = [opening(), *(decision(seq, cause="aaaa-1", parent=parent) for seq, parent in said.items())]
    assert shape(trace(RUN, records)) == [["aaaa-1", "aaaa-4", "aaaa-5", ["aaaa-6", "aaaa-7"]]]


def test_causes_in_a_circle_are_shown_as_such() -> None:
    causes = {4: "aaaa-6", 5: "aaaa-4", 6: "aaaa-5", 7: "aaaa-6", 8: "aaaa-8", 9: "aaaa-1"}
    records: list[Member] = [opening(), *(decision(seq, cause=cause) for seq, cause in causes.items())]
    assert shape(trace(RUN, records)) == [
        ["aaaa-1", "aaaa-9"],
        ["Circle", "aaaa-4", "aaaa-5", ["aaaa-6", "aaaa-7"], "aaaa-8"],
    ]


def test_what_is_not_in_the_store_is_shown_in_its_place() -> None:
    closed = opening(8, state="Closed")
    records: list[Member] = [
        decision(3, cause="hub-1"),
        decision(4, agent=B, path=(A,), cause="aaaa-2"),
        outcome(6, "aaaa-5"),
        closed,
    ]
    assert shape(trace(RUN, records)) == [
        "NotInStore aaaa-5 aaaa-6",
        ["NotInStore hub-1", "aaaa-3", "aaaa-8"],
        ["NotInStore aaaa-2", "aaaa-4"],
    ]
    assert trace(RUN, records).opening is None
    assert shape(trace(RUN, [closed])) == [["NotInStore", "aaaa-8"]]
    assert trace(RUN, []).roots == []


def test_a_long_tale_does_not_make_a_deep_tree() -> None:
    records: list[Member] = [opening(), decision(2, cause="aaaa-1")]
    records += [decision(seq, cause="aaaa-1", parent=f"aaaa-{seq - (2 if seq > 20 else 1)}") for seq in range(3, 500)]
    found = trace(RUN, records)
    assert max(level for _, level in found.walk()) == SAID_LEVELS + 1
    assert nodes(found)["aaaa-400"].notes == ["says it came from aaaa-398"]
    for node, _ in found.walk():
        seqs = [child.record.seq for child in node.children if child.record]
        assert seqs == sorted(seqs)


def test_the_deepest_tree_there_is() -> None:
    records: list[Member] = [opening(), *(decision(seq, cause=f"aaaa-{seq - 1}") for seq in range(2, 5000))]
    found = trace(RUN, records)
    levels = {node.id: level for node, level in found.walk()}
    assert max(levels.values()) == MAX_LEVELS
    assert len(levels) == len(records)
    assert nodes(found)["aaaa-4000"].notes == ["its cause is aaaa-3999"]
    assert nodes(found)[f"aaaa-{MAX_LEVELS + 1}"].notes == []


ids = st.sampled_from([None, *(f"aaaa-{seq}" for seq in range(1, 13)), "gone-1", "gone-2"])
agents = st.sampled_from([A, B, C])
paths = st.lists(agents, max_size=2).map(tuple)


@st.composite
def members(draw: st.DrawFn) -> list[Member]:
    """Any records at all, as a store may have them after whatever bug, loss or lie."""
    records: list[Member] = []
    for seq in range(1, draw(st.integers(0, 12)) + 1):
        its: dict[str, Any] = {"agent": draw(agents)}
        kind = draw(st.sampled_from(["Decision", "Decision", "Decision", "Outcome", "Opened", "Closed"]))
        if kind == "Outcome":
            records.append(outcome(seq, draw(ids) or "aaaa-1", **its))
        elif kind == "Decision":
            records.append(decision(seq, **its, path=draw(paths), cause=draw(ids), parent=draw(ids)))
        else:
            records.append(opening(seq, **its, state=kind, parent=draw(ids)))
    return draw(st.permutations(records))


@given(members())
@example([decision(1, cause="aaaa-2"), outcome(2, "aaaa-1")])
def test_every_record_is_there_exactly_once(records: list[Member]) -> None:
    found = trace(RUN, records)
    seen: list[Member] = []
    for node, level in found.walk():
        assert level <= MAX_LEVELS
        assert (node.record is None) == (node.kind in {"NotInStore", "NotAuthorised", "Circle"})
        assert node.record is not None or node.children or node.outcomes, "a place for nothing"
        if node.record is not None:
            seen.append(node.record)
        seen += node.outcomes
        assert all(each.decision_id == node.id for each in node.outcomes)
    assert sorted(record.id for record in seen) == sorted(record.id for record in records)
    assert found.records == len(records)


@given(members())
def test_what_hangs_where_is_vouched_for(records: list[Member]) -> None:
    """Up from each decision stand its own agent's, by the same authority, and then what authorised it."""
    found = trace(RUN, records)
    up = {child: node for node, _ in found.walk() for child in node.children}
    outcomes = {record.id: record.decision_id for record in records if isinstance(record, OutcomeRecord)}
    for node, over in up.items():
        above = over
        if not isinstance(node.record, DecisionRecord):
            assert node.kind == "Closing"
            continue
        while isinstance(above.record, DecisionRecord) and above.cause == node.cause and above.id != node.cause:
            assert above.record.agent == node.record.agent
            above = up[above]
        if above.kind == "NotAuthorised":
            assert node.cause is None
        elif above.kind != "Circle" and node.cause is not None:
            assert above.id in {node.cause, outcomes.get(node.cause)}


@given(members(), st.randoms(use_true_random=False))
def test_the_order_they_come_in_changes_nothing(records: list[Member], random: Any) -> None:
    shuffled = list(records)
    random.shuffle(shuffled)
    assert shape(trace(RUN, shuffled)) == shape(trace(RUN, records * 2))


@given(members())
def test_a_chain_ends_whatever_is_recorded(records: list[Member]) -> None:
    by_id: dict[str, Record] = {record.id: record for record in records}
    for record in records:
        chain = why(record, by_id.get)
        assert chain[-1] == (record.id, record)
        assert len({id_ for id_, _ in chain}) == len(chain)
        first = chain[0][1]
        assert not isinstance(first, OutcomeRecord) or first.decision_id in {id_ for id_, _ in chain}
        for (above, _), (_, below) in pairwise(chain):
            assert above == (below.decision_id if isinstance(below, OutcomeRecord) else getattr(below, "cause", None))


def test_why() -> None:
    by_id: dict[str, Record] = {record.id: record for record in story()}
    chain = why(story()[6], by_id.get)
    assert [id_ for id_, _ in chain] == ["aaaa-1", "aaaa-3", "aaaa-6", "aaaa-7"]
    assert isinstance(chain[0][1], RunRecord)
    assert [id_ for id_, _ in why(story()[4], by_id.get)] == ["aaaa-1", "aaaa-3", "aaaa-4", "aaaa-5"]
    assert why(story()[9], by_id.get)[0] == ("gone-3", None)


def test_a_large_run() -> None:
    records = large(10_000)
    found = trace(RUN, records)
    kept = [node for node, _ in found.walk() if node.record is not None]
    assert len(kept) + sum(len(node.outcomes) for node in kept) == len(records)
    assert len(found.roots) == 1
