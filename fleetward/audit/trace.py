"""The causal tree of a run: which decision led to which, made of the run's records alone.

A record hangs under its cause, which Fleetward vouches for. Below that, what an agent says of its own records
(`parent`) may order them: a record hangs under the one it says it came from where both are of the same agent and were
authorised by the same cause. Anything else that is said is told, and moves nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from fleetward.audit.record import DecisionRecord, OutcomeRecord, Record, RunRecord

SAID_LEVELS = 8
"""So many levels in a row may rest on what an agent says; what is said to come after hangs beside the last."""

MAX_LEVELS = 100
"""The deepest a tree gets, whatever is recorded; Fleetward itself hands no work on as often."""

Member = DecisionRecord | OutcomeRecord | RunRecord
"""What a run's records are."""

NodeKind = Literal["Opening", "Closing", "Decision", "NotInStore", "NotAuthorised", "Circle"]

Said = Literal["NotOfThisRun", "NotAbove", "Elsewhere", "Circular"]
"""What is wrong with what a record is said to come from: it is not of this run; it is neither the agent's own nor above
it in the chain; it is, and stands elsewhere in the tree; it is said to come from this one in turn."""


@dataclass(slots=True, eq=False)
class Node:
    """A record with its outcomes and what came of it, or a place for records whose cause is not there."""

    kind: NodeKind
    id: str = ""
    """The record's id; of a record that is not in the store, the id by which others name it; else empty."""
    record: DecisionRecord | RunRecord | None = None
    outcomes: list[OutcomeRecord] = field(default_factory=list)
    children: list["Node"] = field(default_factory=list)
    said: Said | None = None
    """Why the node does not hang under the record it is said to come from; None: it does, or none is said."""
    lifted: bool = False
    """The node hangs higher than under its cause, because the tree would get too deep."""

    @property
    def cause(self) -> str | None:
        """The id of what authorised the record."""
        return self.record.cause if isinstance(self.record, DecisionRecord) else None

    @property
    def parent(self) -> str | None:
        """The id of the record that this one is said to come from."""
        return self.record.parent if self.record is not None else None

    @property
    def notes(self) -> list[str]:
        """What a reader must know of where the node hangs, in words."""
        words = {
            "NotOfThisRun": ", which is not of this run",
            "NotAbove": ", which is neither its agent's own nor above it in the chain",
            "Elsewhere": "",
            "Circular": ", which says it came from this one",
        }
        found = [] if self.said is None else [f"says it came from {self.parent}{words[self.said]}"]
        return [*found, f"its cause is {self.cause}"] if self.lifted else found


@dataclass(slots=True)
class Trace:
    """The tree of one run. What is authorised comes first in `roots`, then what lacks its cause."""

    run: str
    roots: list[Node]
    records: int
    """How many records the tree is made of."""

    def walk(self) -> Iterator[tuple[Node, int]]:
        """Give every node and its level, parents first, in the order of the tree."""
        waiting = [(root, 0) for root in reversed(self.roots)]
        while waiting:
            node, level = waiting.pop()
            yield node, level
            waiting += [(child, level + 1) for child in reversed(node.children)]

    @property
    def opening(self) -> RunRecord | None:
        """The record of the run's opening, if it is there."""
        record = self.roots[0].record if self.roots else None
        return record if isinstance(record, RunRecord) and record.state == "Opened" else None


def trace(run: str, records: Iterable[Member]) -> Trace:
    """Make the tree of a run of all its records, in whatever order. Every record is in it exactly once."""
    members = {record.id: record for record in records}
    return Trace(run, _Builder(sorted(members.values(), key=_order)).build(), len(members))


def why(record: Member, find: Callable[[str], Record | None]) -> list[tuple[str, Record | None]]:
    """Give the chain of what authorised a record, the run's opening first and the record itself last.

    A link is an id and its record; None: `find` has no such record, and the chain begins there.
    """
    chain: list[tuple[str, Record | None]] = [(record.id, record)]
    seen = {record.id}
    while (above := _authority(chain[-1][1])) is not None and above not in seen:
        seen.add(above)
        chain.append((above, find(above)))
    return chain[::-1]


def _authority(record: Record | None) -> str | None:
    if isinstance(record, OutcomeRecord):
        return record.decision_id
    return record.cause if isinstance(record, DecisionRecord) else None


def _order(record: Member) -> tuple[str, str, int]:
    return (record.time, record.writer, record.seq)


class _Builder:
    """Finds the node above each node (`_up`), and then lays them out."""

    def __init__(self, records: list[Member]) -> None:
        self._nodes = {record.id: _node(record) for record in records if not isinstance(record, OutcomeRecord)}
        self._missing: dict[str, Node] = {}
        self._alone, self._circle = Node("NotAuthorised"), Node("Circle")
        self._up: dict[Node, Node] = {}
        self._by_word: set[Node] = set()
        """Nodes that hang where they do because their agents say so."""
        self._holders: dict[str, Node] = {}
        for record in records:
            if isinstance(record, OutcomeRecord):
                holder = self._nodes.get(record.decision_id) or self._absent(record.decision_id)
                holder.outcomes.append(record)
                self._holders[record.id] = holder

    def build(self) -> list[Node]:
        for node in self._nodes.values():
            if node.kind == "Closing":
                self._up[node] = self._opening()
            elif node.kind == "Decision":
                self._up[node] = self._find(node.cause) or self._absent(node.cause) if node.cause else self._alone
        for node in _on_circles(self._up):
            self._up[node] = self._circle
        said = {node: above for node in self._nodes.values() if (above := self._said(node)) is not None}
        for node in _on_circles(said):
            node.said = "Circular"
            del said[node]
        self._up |= said
        self._by_word.update(said)
        return self._lay_out()

    def _find(self, id_: str) -> Node | None:
        return self._nodes.get(id_) or self._holders.get(id_)

    def _absent(self, id_: str) -> Node:
        return self._missing.setdefault(id_, Node("NotInStore", id_))

    def _opening(self) -> Node:
        """Give the node of the run's opening. Where it is not in the store, whoever opened the run may name it."""
        nodes = self._nodes.values()
        found = next((node for node in nodes if node.kind == "Opening"), None)
        if found is not None:
            return found
        by_opener = (node.cause for node in nodes if isinstance(node.record, DecisionRecord) and not node.record.path)
        named = next((cause for cause in by_opener if cause and self._find(cause) is None), "")
        return self._absent(named)

    def _said(self, node: Node) -> Node | None:
        """Give the node that this one may hang under by its agent's word; where it may not, note why."""
        record = node.record
        if not isinstance(record, DecisionRecord) or record.parent is None:
            return None
        above = self._find(record.parent)
        if above is None:
            node.said = "NotOfThisRun"
        elif above is node:
            node.said = "Circular"
        elif isinstance(above.record, DecisionRecord):
            own = above.record.agent == record.agent
            if not own and above.record.agent not in record.path:
                node.said = "NotAbove"
            elif own and record.cause and above.cause == record.cause and self._up[node] is not self._circle:
                return above
        return None

    def _lay_out(self) -> list[Node]:
        below: dict[Node, list[Node]] = {}
        for node, above in self._up.items():
            below.setdefault(above, []).append(node)
        openings = [node for node in self._nodes.values() if node.kind == "Opening"]
        rest = [node for node in (self._alone, self._circle) if node in below]
        roots = [*openings, *self._missing.values(), *rest]
        placed: dict[Node, Node | None] = dict.fromkeys(roots)
        levels, by_word = dict.fromkeys(roots, 0), dict.fromkeys(roots, 0)
        waiting = list(roots)
        while waiting:
            node = waiting.pop()
            for child in below.get(node, ()):
                said = child in self._by_word
                above, in_a_row = node, by_word[node] + 1 if said else 0
                if (in_a_row > SAID_LEVELS or levels[node] == MAX_LEVELS) and (higher := placed[node]) is not None:
                    above, in_a_row = higher, by_word[node]
                    child.lifted = not said
                placed[child], levels[child], by_word[child] = above, levels[above] + 1, in_a_row
                above.children.append(child)
                waiting.append(child)
        for node in placed:
            node.children.sort(key=_node_order)
        self._note_elsewhere(roots)
        return roots

    def _note_elsewhere(self, roots: list[Node]) -> None:
        """Note what is said to come from a record that it does not hang under."""
        begins: dict[Node, int] = {}
        ends: dict[Node, int] = {}
        waiting = [(root, False) for root in roots]
        while waiting:
            node, left = waiting.pop()
            if left:
                ends[node] = len(begins)
                continue
            begins[node] = len(begins)
            waiting.append((node, True))
            waiting += [(child, False) for child in node.children]
        for node in self._nodes.values():
            above = self._find(node.parent) if node.kind == "Decision" and node.parent and not node.said else None
            if above is not None and not begins[above] <= begins[node] < ends[above]:
                node.said = "Elsewhere"


def _node(record: DecisionRecord | RunRecord) -> Node:
    if isinstance(record, DecisionRecord):
        return Node("Decision", record.id, record)
    return Node("Opening" if record.state == "Opened" else "Closing", record.id, record)


def _node_order(node: Node) -> tuple[str, str, int]:
    return _order(node.record) if node.record is not None else ("", "", 0)


def _on_circles(up: dict[Node, Node]) -> list[Node]:
    """Give the nodes from which the way up leads back to themselves."""
    found: list[Node] = []
    done: set[Node] = set()
    for start in up:
        way: dict[Node, None] = {}
        node: Node | None = start
        while node is not None and node not in done and node not in way:
            way[node] = None
            node = up.get(node)
        if node is not None and node in way:
            circle = list(way)
            found += circle[circle.index(node) :]
        done.update(way)
    return found
