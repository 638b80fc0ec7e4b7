"""What a folder of resources holds: file by file, and together."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from fleetward.resources import Resource
from fleetward.resources.document import Document, Identity, ManifestError, read_documents
from fleetward.resources.finding import Finding
from fleetward.resources.manifest import Foreign, PolicyTest, parse_document

_OURS = frozenset({"apiVersion", "kind", "metadata", "spec"})


@dataclass(frozen=True, eq=False)
class Loaded:
    """A resource, and the document it was read from."""

    resource: Resource
    document: Document

    @property
    def file(self) -> str:
        """The file as it was found, below the path that was given."""
        return self.document.file

    @property
    def line(self) -> int:
        """The line on which the resource begins."""
        return self.document.line

    @property
    def identity(self) -> Identity:
        """What makes it this resource and no other."""
        metadata = self.resource.metadata
        return Identity(self.resource.kind, metadata.namespace or "", metadata.name)


@dataclass(frozen=True, eq=False)
class FileContent:
    """What one file holds.

    `unread` says that nothing is known of what the file holds now (a mistake in its syntax, no permission, somebody
    writing it): whatever it held last should still count. `pending` says that a later try may know more. `file` may
    also be a folder that could not be listed.
    """

    file: str
    data: bytes = b""
    loaded: tuple[Loaded, ...] = ()
    broken: tuple[Document, ...] = ()
    namespaces: tuple[Foreign, ...] = ()
    policy_tests: tuple[PolicyTest, ...] = ()
    findings: tuple[Finding, ...] = ()
    unread: bool = False
    pending: bool = False


@dataclass(frozen=True, eq=False)
class FolderContent:
    """What a folder holds: its files in order, and from them, together, the properties."""

    files: tuple[FileContent, ...]

    @property
    def pending(self) -> tuple[str, ...]:
        """Files that somebody is just writing or replacing; read again soon."""
        return tuple(content.file for content in self.files if content.pending)

    @property
    def resources(self) -> tuple[Loaded, ...]:
        """The resources without a fault. Where two have one kind and name, neither is among them."""
        return tuple(
            loaded for content in self.files for loaded in content.loaded if loaded.identity not in self.duplicates
        )

    @property
    def namespaces(self) -> dict[str, dict[str, str]]:
        """The labels of the Kubernetes Namespaces by name."""
        return {
            namespace.name: namespace.labels
            for content in self.files
            for namespace in content.namespaces
            if namespace_identity(namespace) not in self.duplicates
        }

    @property
    def policy_tests(self) -> tuple[PolicyTest, ...]:
        """The documents of policy tests."""
        return tuple(test for content in self.files for test in content.policy_tests)

    @cached_property
    def duplicates(self) -> dict[Identity, list[Document]]:
        """The documents of each resource that is there more than once, good or not."""
        places: dict[Identity, list[Document]] = defaultdict(list)
        for content in self.files:
            for document in [*(loaded.document for loaded in content.loaded), *content.broken]:
                if identity := document.identity:
                    places[identity].append(document)
            for namespace in content.namespaces:
                places[namespace_identity(namespace)].append(namespace.document)
        return {identity: documents for identity, documents in places.items() if len(documents) > 1}

    @cached_property
    def findings(self) -> tuple[Finding, ...]:
        """All that is wrong, in the order of files and lines."""
        position = {content.file: i for i, content in enumerate(self.files)}
        found = [finding for content in self.files for finding in content.findings]
        found += [f for identity, documents in self.duplicates.items() for f in _duplicate(identity, documents)]
        return tuple(sorted(found, key=lambda finding: (position[finding.file], finding.line)))


def namespace_identity(namespace: Foreign) -> Identity:
    """Return the identity of a Kubernetes Namespace."""
    return Identity("Namespace", "", namespace.name)


def read_content(file: str, data: bytes) -> FileContent:
    """Read what a file holds; mistakes are findings in it."""
    try:
        documents = read_documents(file, data)
    except ManifestError as error:
        return FileContent(file, data, findings=(error.finding,), unread=True)
    if file.endswith(".json"):
        documents = [document for document in documents if _may_be_ours(document)]
    parsed = [(document, parse_document(document)) for document in documents]
    return FileContent(
        file,
        data,
        loaded=tuple(Loaded(each, document) for document, each in parsed if isinstance(each, Resource)),
        broken=tuple(document for document, each in parsed if isinstance(each, list)),
        namespaces=tuple(each for _, each in parsed if isinstance(each, Foreign) and each.is_namespace),
        policy_tests=tuple(each for _, each in parsed if isinstance(each, PolicyTest)),
        findings=tuple(finding for _, each in parsed if isinstance(each, list) for finding in each),
    )


def _may_be_ours(document: Document) -> bool:
    """Much JSON is no manifest (an action to decide, a tool's settings); it shares no field with one."""
    return isinstance(document.data, dict) and not _OURS.isdisjoint(document.data)


def _duplicate(identity: Identity, documents: Iterable[Document]) -> Iterable[Finding]:
    for document in documents:
        others = ", ".join(f"{o.file}:{o.line}" for o in documents if o is not document)
        message = f"found a second {identity} at {others}, allowed one; rename or remove one"
        yield Finding(
            document.file,
            document.line_of(("metadata", "name")),
            "metadata.name",
            message,
            str(identity),
        )
