"""What governs while files are edited, broken and repaired."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetward.resources import Agent, AgentPolicy, Resource
from fleetward.resources.folder import FolderReader
from fleetward.resources.lastgood import LastGood, Update


def agent(name: str, spec: str = "role: Worker") -> str:
    return (
        "apiVersion: fleetward.dev/v1alpha1\nkind: Agent\n"
        f"metadata: {{name: {name}, namespace: reports}}\nspec: {{{spec}}}\n---\n"
    )


def policy(name: str, when: str = "true") -> str:
    return (
        "apiVersion: fleetward.dev/v1alpha1\nkind: AgentPolicy\n"
        f"metadata: {{name: {name}, namespace: reports}}\nspec:\n  rules:\n"
        f"  - {{name: one, match: {{}}, decision: Deny, when: '{when}'}}\n---\n"
    )


PAUSED = "role: Worker, operatingMode: Paused"
BAD = "role: Boss"


class Served:
    """A folder and what governs from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checked: list[str] = []
        self._reader = FolderReader(path, missing_seconds=0)
        self._last_good = LastGood(self._check)

    def _check(self, resource: Resource) -> Iterator[tuple[tuple[str | int, ...], str]]:
        self.checked.append(resource.key)
        for i, rule in enumerate(resource.spec.rules if isinstance(resource, AgentPolicy) else []):
            if "bad" in str(rule.when):
                yield ("spec", "rules", i, "when"), "found bad, allowed good\n^"

    def write(self, file: str, *documents: str) -> None:
        (self.path / file).write_text("".join(documents))

    def update(self) -> Update:
        return self._last_good.update(self._reader.read())

    @property
    def namespaces(self) -> dict[str, dict[str, str]]:
        return {name: dict(labels) for name, labels in self._last_good.namespaces.items()}


@pytest.fixture
def served(tmp_path: Path) -> Served:
    return Served(tmp_path)


def modes(update: Update) -> dict[str, str]:
    return {r.metadata.name: r.spec.operating_mode for r in update.resources if isinstance(r, Agent)}


def names(update: Update) -> list[str]:
    return [r.metadata.name for r in update.resources]


def test_a_pause_gets_through_while_another_document_of_the_file_is_broken(served: Served) -> None:
    served.write("a.yaml", agent("a"), agent("b"))
    served.update()
    served.write("a.yaml", agent("a", PAUSED), agent("b", BAD))
    update = served.update()
    assert modes(update) == {"a": "Paused", "b": "Running"}
    assert [(f.line, f.field) for f in update.findings] == [(9, "spec.role")]


def test_a_broken_document_keeps_its_last_good_version_until_it_is_repaired(served: Served) -> None:
    served.write("a.yaml", agent("a", PAUSED))
    served.update()
    served.write("a.yaml", agent("a", BAD))
    assert modes(served.update()) == {"a": "Paused"}
    assert modes(served.update()) == {"a": "Paused"}
    served.write("a.yaml", agent("a"))
    update = served.update()
    assert modes(update) == {"a": "Running"}
    assert update.findings == ()


def test_a_file_with_a_mistake_in_its_syntax_keeps_all_it_gave(served: Served) -> None:
    served.write("a.yaml", agent("a"), agent("b"))
    served.write("c.yaml", agent("c"))
    served.update()
    served.write("a.yaml", agent("a", PAUSED), "x: [")
    served.write("c.yaml", agent("c", PAUSED))
    update = served.update()
    assert modes(update) == {"a": "Running", "b": "Running", "c": "Paused"}
    assert len(update.findings) == 1


def test_what_is_removed_is_gone(served: Served) -> None:
    served.write("a.yaml", agent("a"), agent("b"))
    served.write("c.yaml", agent("c"))
    served.update()
    served.write("a.yaml", agent("b"))
    (served.path / "c.yaml").unlink()
    assert names(served.update()) == ["b"]


def test_a_resource_may_move_to_another_file(served: Served) -> None:
    served.write("a.yaml", agent("a"), agent("b"))
    served.update()
    served.write("a.yaml", agent("b"))
    served.write("c.yaml", agent("a", PAUSED))
    update = served.update()
    assert modes(update) == {"a": "Paused", "b": "Running"}
    assert update.findings == ()


def test_a_document_that_can_no_longer_be_told_apart_keeps_what_its_file_held(served: Served) -> None:
    served.write("a.yaml", agent("a"), agent("b"))
    served.update()
    for broken in (
        agent("a").replace("name: a", "nmae: a"),
        agent("a").replace("kind: Agent", "kind: Agnet"),
        agent("a").replace("fleetward.dev", "fleetwrad.dev"),
        "hello\n---\n",
    ):
        served.write("a.yaml", broken, agent("b", PAUSED))
        update = served.update()
        assert modes(update) == {"a": "Running", "b": "Paused"}, broken
        assert update.findings


def test_duplicates_keep_the_last_good_one(served: Served) -> None:
    served.write("a.yaml", agent("a", PAUSED))
    served.update()
    served.write("b.yaml", agent("a"))
    update = served.update()
    assert modes(update) == {"a": "Paused"}
    assert len(update.findings) == 2
    (served.path / "a.yaml").unlink()
    assert modes(served.update()) == {"a": "Running"}


def test_what_a_schema_cannot_see_is_checked_and_kept_in_the_same_way(served: Served) -> None:
    served.write("p.yaml", policy("p"), policy("q"))
    served.update()
    served.write("p.yaml", policy("p", "bad"), policy("q", "false"))
    update = served.update()
    assert [p.spec.rules[0].when for p in update.resources if isinstance(p, AgentPolicy)] == ["true", "false"]
    (finding,) = update.findings
    assert (finding.line, finding.field) == (6, "spec.rules[0].when")
    assert finding.resource == "AgentPolicy reports/p"
    assert served.update().findings == (finding,), "told as long as it is there"


def test_what_did_not_change_is_not_checked_again(served: Served) -> None:
    served.write("p.yaml", policy("p"))
    served.write("q.yaml", policy("q"))
    served.update()
    served.checked.clear()
    served.write("q.yaml", policy("q", "false"))
    served.update()
    assert served.checked == ["reports/q"]


def test_a_resource_that_was_never_good_does_not_govern(served: Served) -> None:
    served.write("a.yaml", agent("a", BAD), policy("p", "bad"))
    update = served.update()
    assert update.resources == ()
    assert len(update.findings) == 2


def test_the_generation_counts_changes_of_the_spec_only(served: Served) -> None:
    def generation() -> int:
        (resource,) = served.update().resources
        return resource.metadata.generation

    served.write("a.yaml", agent("a"))
    assert generation() == 1
    served.write("a.yaml", "# comment\n", agent("a"))
    assert generation() == 1
    served.write("a.yaml", agent("a").replace("name: a", "name: a, labels: {x: y}, generation: 7"))
    assert generation() == 1
    served.write("a.yaml", agent("a", PAUSED))
    assert generation() == 2
    served.write("a.yaml", agent("a", BAD))
    assert generation() == 2
    served.write("a.yaml", agent("a"))
    assert generation() == 3


def test_what_did_not_change_is_the_same_object(served: Served) -> None:
    served.write("a.yaml", agent("a"), agent("b"))
    before = served.update().resources
    served.write("a.yaml", "#\n", agent("a"), agent("b", PAUSED))
    after = served.update().resources
    assert after[0] is before[0]
    assert after[1] is not before[1]


def test_labels_change_without_a_new_generation(served: Served) -> None:
    served.write("a.yaml", agent("a"))
    served.update()
    served.write("a.yaml", agent("a").replace("name: a", "name: a, labels: {x: y}"))
    (resource,) = served.update().resources
    assert resource.metadata.labels == {"x": "y"}


def test_the_uid_depends_on_the_identity_alone_unless_it_is_given(served: Served, tmp_path: Path) -> None:
    served.write("a.yaml", agent("a"), agent("b"))
    a, b = served.update().resources
    assert a.metadata.uid != b.metadata.uid
    assert len(a.metadata.uid) == 36
    again = LastGood().update(FolderReader(tmp_path).read()).resources
    assert [r.metadata.uid for r in again] == [a.metadata.uid, b.metadata.uid]
    served.write("a.yaml", agent("a").replace("name: a", "name: a, uid: u-1"))
    assert served.update().resources[0].metadata.uid == "u-1"


def test_a_file_that_is_being_written_keeps_what_it_gave(served: Served) -> None:
    served.write("a.yaml", agent("a"), agent("b"))
    served.update()
    with (served.path / "a.yaml").open("w") as file:
        file.write(agent("a"))
        file.flush()
        assert names(served.update()) == ["a", "b"]
    assert names(served.update()) == ["a"]


def test_a_folder_that_cannot_be_listed_keeps_what_was_below_it(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    (served.path / "sub").mkdir()
    served.write("sub/a.yaml", agent("a"))
    served.write("b.yaml", agent("b"))
    served.update()
    real = os.scandir

    def refused(path: Path) -> object:
        if Path(path).name == "sub":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", refused)
    served.write("b.yaml", agent("b", PAUSED))
    update = served.update()
    assert modes(update) == {"a": "Running", "b": "Paused"}
    assert [f.message for f in update.findings] == ["cannot be read: Permission denied"]
    assert names(served.update()) == ["a", "b"]


def test_namespace_labels_stay_while_their_file_is_broken(served: Served) -> None:
    namespace = "apiVersion: v1\nkind: Namespace\nmetadata: {name: reports, labels: {team: %s}}\n"
    served.write("n.yaml", namespace % "x")
    served.update()
    assert served.namespaces == {"reports": {"team": "x"}}
    served.write("n.yaml", namespace % "1")
    served.update()
    assert served.namespaces == {"reports": {"team": "x"}}
    served.write("n.yaml", "{")
    served.update()
    assert served.namespaces == {"reports": {"team": "x"}}
    served.write("n.yaml", namespace % "y")
    served.update()
    assert served.namespaces == {"reports": {"team": "y"}}
    served.write("n.yaml", "")
    served.update()
    assert served.namespaces == {}
