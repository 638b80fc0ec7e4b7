"""The resources that govern: each in its last good version, while its file is being repaired.

A mistake in one resource neither loosens what it said before nor keeps a change to another from taking effect.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from fleetward.resources import Resource
from fleetward.resources.content import FolderContent, Loaded, namespace_identity
from fleetward.resources.document import Identity
from fleetward.resources.finding import Finding, Path

Check = Callable[[Resource], Iterable[tuple[Path, str]]]
"""What a schema cannot check (does the CEL compile?): each mistake's place, such as ("spec", "rules", 0, "when")."""

_UIDS = uuid.uuid5(uuid.NAMESPACE_DNS, "fleetward.dev")


class Update(NamedTuple):
    """What governs from now on: the resources in the order of their identity, and all that is wrong."""

    resources: tuple[Resource, ...]
    findings: tuple[Finding, ...]


class _Held(NamedTuple):
    resource: Resource
    file: str


class _HeldLabels(NamedTuple):
    labels: dict[str, str]
    file: str


class LastGood:
    """Merges each reading of a folder into what governs.

    A resource with a finding, or there twice, keeps its last good version; so do all of a file that is unread. A
    resource that is gone from its file is gone, unless the file holds a broken document that cannot be told apart: that
    may be it. `check` adds findings; it must say the same about the same resource each time.

    Like the API server, this sets `metadata.generation`: 1 at first, one more at each change of the spec. A resource
    without `metadata.uid` gets one that depends on its identity alone. What did not change stays the same object.
    """

    def __init__(self, check: Check | None = None) -> None:
        self._check = check
        self._held: dict[Identity, _Held] = {}
        self._labels: dict[Identity, _HeldLabels] = {}
        self._checked: dict[Loaded, tuple[Finding, ...]] = {}

    @property
    def namespaces(self) -> Mapping[str, Mapping[str, str]]:
        """The labels of the Namespaces that govern, by name."""
        return {identity.name: held.labels for identity, held in sorted(self._labels.items())}

    def update(self, content: FolderContent) -> Update:
        """Merge what the folder holds now."""
        checked = {loaded: self._findings(loaded) for file in content.files for loaded in file.loaded}
        good = {each.identity: each for each in content.resources if not checked[each]}
        labels = {
            namespace_identity(each): _HeldLabels(each.labels, file.file)
            for file in content.files
            for each in file.namespaces
            if namespace_identity(each) not in content.duplicates
        }
        keeps = _keeper(content, {each.identity for each, findings in checked.items() if findings})
        held = {identity: old for identity, old in self._held.items() if keeps(identity, old.file)}
        held |= {identity: _Held(self._version(each), each.file) for identity, each in good.items()}
        self._labels = {identity: old for identity, old in self._labels.items() if keeps(identity, old.file)} | labels
        self._held = held
        self._checked = checked
        semantic = [finding for findings in checked.values() for finding in findings]
        return Update(
            tuple(held[identity].resource for identity in sorted(held)),
            _in_order([*content.findings, *semantic], content),
        )

    def _findings(self, loaded: Loaded) -> tuple[Finding, ...]:
        if loaded in self._checked:
            return self._checked[loaded]
        if self._check is None:
            return ()
        found = self._check(loaded.resource)
        return tuple(loaded.document.finding(path, message) for path, message in found)

    def _version(self, loaded: Loaded) -> Resource:
        """Return the resource as the API server would have stored it: the object held, where nothing changed."""
        new = loaded.resource
        before = self._held.get(loaded.identity)
        old = before.resource if before else None
        generation = 1
        if old is not None:
            same = old.model_copy(update={"metadata": new.metadata}) == new
            generation = old.metadata.generation + (0 if same else 1)
        uid = new.metadata.uid or str(uuid.uuid5(_UIDS, "/".join(loaded.identity)))
        metadata = new.metadata.model_copy(update={"uid": uid, "generation": generation})
        stored = new.model_copy(update={"metadata": metadata})
        return old if old == stored else stored


def _keeper(content: FolderContent, refused: set[Identity]) -> Callable[[Identity, str], bool]:
    """Tell of a resource held from a file whether it stays, if the folder does not give it anew."""
    unread = [file.file for file in content.files if file.unread]
    unclear = {file.file for file in content.files if any(d.identity is None for d in file.broken)}
    bad = refused | content.duplicates.keys()
    bad |= {identity for file in content.files for d in file.broken if (identity := d.identity)}

    def keeps(identity: Identity, source: str) -> bool:
        below_unread = any(source == file or source.startswith(f"{file}/") for file in unread)
        return identity in bad or source in unclear or below_unread

    return keeps


def _in_order(findings: list[Finding], content: FolderContent) -> tuple[Finding, ...]:
    position = {file.file: i for i, file in enumerate(content.files)}
    return tuple(sorted(findings, key=lambda finding: (position[finding.file], finding.line)))
