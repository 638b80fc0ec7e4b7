"""One document of a YAML file: its data, and where each part of it stands."""

from dataclasses import dataclass
from typing import NamedTuple

from fleetward.resources import GROUP, KINDS
from fleetward.resources.finding import Finding, Path, field_path
from fleetward.resources.yamlerror import YamlError
from fleetward.resources.yamltree import MAX_BYTES, Mapping, Node, Sequence, compose, decode
from fleetward.resources.yamlvalue import Problem, build, entries, place_of, resolve

DEFAULT_NAMESPACE = "default"
"""The namespace of a namespaced resource that names none."""


class Identity(NamedTuple):
    """What makes two documents the same resource; the namespace is empty for a cluster-scoped kind."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.key}"

    @property
    def key(self) -> str:
        """`namespace/name`, or `name` for a cluster-scoped kind."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class ManifestError(ValueError):
    """A file that cannot be read at all; its finding says why."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


@dataclass(frozen=True, eq=False)
class Document:
    """One document: `data` is plain (dict, list, str, int, float, bool, None, dates), less the `problems`."""

    file: str
    root: Node
    data: object
    problems: tuple[Problem, ...]

    @property
    def line(self) -> int:
        """The line on which the document begins."""
        return self.root.line

    @property
    def identity(self) -> Identity | None:
        """Which Fleetward resource this is or means to be; None where that cannot be read."""
        if not isinstance(self.data, dict) or not isinstance(metadata := self.data.get("metadata"), dict):
            return None
        kind, api, name = self.data.get("kind"), self.data.get("apiVersion"), metadata.get("name")
        namespace = DEFAULT_NAMESPACE if metadata.get("namespace") is None else metadata["namespace"]
        if kind not in KINDS or not isinstance(api, str) or api.partition("/")[0] != GROUP:
            return None
        if not isinstance(name, str) or not name or not isinstance(namespace, str):
            return None
        return Identity(kind, namespace if KINDS[kind].SCOPE == "Namespaced" else "", name)

    def line_of(self, path: Path) -> int:
        """Return the line of the place, or of the nearest existing place above it."""
        return place_of(self.root, path)[0].line

    def finding(self, path: Path, message: str) -> Finding:
        """Make a finding at a place of this document."""
        identity = self.identity
        return Finding(self.file, self.line_of(path), field_path(path), message, str(identity or ""))


def read_documents(file: str, data: bytes | str) -> list[Document]:
    """Read the documents of a file, empty ones left out, the items of a `kind: List` one by one.

    `file` is the name for findings; one that ends in .json may have tabs between its values. ManifestError
    where the text is not YAML, not UTF-8, or larger or deeper than allowed.
    """
    try:
        text = decode(data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data)
        roots = compose(text.replace("\t", " ") if file.endswith(".json") else text)
    except YamlError as error:
        raise ManifestError(Finding(file, error.line, "", error.message)) from None
    documents = (_document(file, root) for root in roots)
    return [each for document in documents for each in _unpacked(document) if each.data is not None or each.problems]


def _document(file: str, root: Node) -> Document:
    data, problems = build(root)
    return Document(file, root, data, tuple(problems))


def _unpacked(document: Document) -> list[Document]:
    data, root = document.data, resolve(document.root)
    if not isinstance(data, dict) or (data.get("apiVersion"), data.get("kind")) != ("v1", "List"):
        return [document]
    if not isinstance(root, Mapping):
        return [document]
    items = next((resolve(value) for name, _, value, _ in entries(root) if name == "items"), None)
    return [_document(document.file, item) for item in items.items] if isinstance(items, Sequence) else [document]


__all__ = ["DEFAULT_NAMESPACE", "MAX_BYTES", "Document", "Identity", "ManifestError", "read_documents"]
