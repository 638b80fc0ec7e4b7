"""Setting an operating mode in the YAML that people keep: a surgical edit, checked before it is written."""

import contextlib
import copy
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from fleetward.resources import KINDS
from fleetward.resources.base import SET_BY_ANNOTATION
from fleetward.resources.document import DEFAULT_NAMESPACE, Document, Identity, ManifestError, read_documents
from fleetward.resources.explain import aliases, annotation_at, one_of
from fleetward.resources.finding import Path as FieldPath
from fleetward.resources.finding import did_you_mean
from fleetward.resources.folder import FolderError, read_folder
from fleetward.resources.manifest import parse_document
from fleetward.resources.yamledit import EditError, remove, set_text
from fleetward.resources.yamltree import Node
from fleetward.resources.yamlvalue import place_of, resolve

try:
    import fcntl
except ImportError:  # not on every system; then two edits at one moment are not kept apart
    fcntl = None  # type: ignore[assignment]

_MODE: FieldPath = ("spec", "operatingMode")
_REASON: FieldPath = ("spec", "operatingReason")
_SET_BY: FieldPath = ("metadata", "annotations", SET_BY_ANNOTATION)


class Found(NamedTuple):
    """Where a resource is written."""

    file: Path
    line: int
    identity: Identity


def set_operating_mode(
    text: str,
    *,
    kind: str,
    namespace: str | None,
    name: str,
    mode: str,
    reason: str | None,
    set_by: str,
    file: str = "",
) -> str:
    """Return the YAML text with the resource's operating mode, reason and who set it changed, and nothing else.

    Comments, quotes, layout, line endings and other documents stay. Without a reason, the one there is removed. The
    result is read back: unless its data is the old data with just this change, and valid, EditError, as also where the
    resource is not there, is there twice, has mistakes, or shares the part to be changed with others. `file` names the
    text in messages.
    """
    identity = _identity(kind, namespace, name)
    mark = "\ufeff" if text.startswith("\ufeff") else ""
    old = text.removeprefix(mark)
    before, index = _documents(old, identity, file)
    _check_valid(before[index], "has mistakes, so an edit of it would not take effect; repair it first")
    changes: list[tuple[FieldPath, str | None, str]] = [
        (_MODE, mode, ""),
        (_REASON, reason, "operatingMode"),
        (_SET_BY, f"{mode} by {set_by}", ""),
    ]
    new, expected = old, copy.deepcopy([document.data for document in before])
    for path, value, after in changes:
        root = _documents(new, identity, file)[0][index].root
        new = remove(new, root, path) if value is None else set_text(new, root, path, value, after)
        _apply(expected[index], path, value)
    _verify(new, expected, before[index], index)
    return mark + new


def edit_file(
    path: str | os.PathLike[str],
    *,
    kind: str,
    namespace: str | None,
    name: str,
    mode: str,
    reason: str | None,
    set_by: str,
) -> bool:
    """Set an operating mode in a file, as `set_operating_mode` does; tell whether the file changed.

    The file is replaced in one step (a reader sees the old text or the new), keeps its permissions and owner, and two
    such edits at once both take effect. A link is followed. EditError where that cannot be done.
    """
    real = Path(os.path.realpath(path))
    try:
        with _locked(real.parent):
            text = real.read_bytes().decode("utf-8")
            new = set_operating_mode(
                text,
                kind=kind,
                namespace=namespace,
                name=name,
                mode=mode,
                reason=reason,
                set_by=set_by,
                file=str(path),
            )
            if new != text:
                _write(real, new.encode("utf-8"))
            return new != text
    except UnicodeError as error:
        raise EditError(f"{path} is not UTF-8 text: {error.reason if hasattr(error, 'reason') else error}") from None
    except OSError as error:
        raise EditError(f"{path} cannot be edited: {error.strerror or error}") from None


def find_resource(folder: str | os.PathLike[str], kind: str, key: str) -> Found:
    """Find where a resource is written, good or not. `key` is namespace/name, or a name that only one resource has.

    EditError where there is none or more than one; FolderError where the folder does not exist.
    """
    content = read_folder(folder)
    documents = [d for file in content.files for d in [*(loaded.document for loaded in file.loaded), *file.broken]]
    known = [(document, document.identity) for document in documents]
    there = [(document, identity) for document, identity in known if identity and identity.kind == kind]
    found = [(document, identity) for document, identity in there if key in {identity.key, identity.name}]
    if len(found) == 1:
        return Found(Path(found[0][0].file), found[0][0].line, found[0][1])
    if found:
        places = ", ".join(f"{identity.key} at {d.file}:{d.line}" for d, identity in found)
        raise EditError(f"found {len(found)} resources for {kind} {key}: {places}; give namespace/name of one")
    keys = sorted({identity.key for _, identity in there})
    allowed = f", allowed {one_of(keys)}" if keys else f"; there is no {kind} in {folder}"
    unread = "".join(f"\n{finding}" for file in content.files if file.unread for finding in file.findings)
    hint = f"\nThese could not be read, it may be there:{unread}" if unread else ""
    raise EditError(f"found no {kind} {key}{allowed}{did_you_mean(key, keys)}{hint}")


def _identity(kind: str, namespace: str | None, name: str) -> Identity:
    modes = [k for k, model in KINDS.items() if "operatingMode" in aliases(annotation_at(model, ("spec",)))]
    if kind not in modes:
        raise EditError(f"found kind {kind}, which has no operatingMode; allowed {one_of(modes)}")
    namespaced = KINDS[kind].SCOPE == "Namespaced"
    return Identity(kind, (namespace or DEFAULT_NAMESPACE) if namespaced else "", name)


def _documents(text: str, identity: Identity, file: str) -> tuple[list[Document], int]:
    """All documents of the text, and which of them is the resource."""
    try:
        documents = read_documents(file or "the text", text)
    except ManifestError as error:
        raise EditError(f"the file must be repaired first: {error.finding}") from None
    places = [i for i, document in enumerate(documents) if document.identity == identity]
    if len(places) != 1:
        lines = ", ".join(str(documents[i].line) for i in places)
        raise EditError(
            f"found {identity} twice, on lines {lines}; remove one"
            if places
            else f"found no {identity} in {file or 'the text'}"
        )
    return documents, places[0]


def _check_valid(document: Document, problem: str) -> None:
    parsed = parse_document(document)
    if isinstance(parsed, list):
        raise EditError("\n".join([f"{document.identity} {problem}:", *map(str, parsed)]))


def _apply(data: Any, path: FieldPath, value: str | None) -> None:
    for step in path[:-1]:
        data = data.setdefault(step, {}) if value is not None else data.get(step, {})
    if value is None:
        data.pop(path[-1], None)
    else:
        data[path[-1]] = value


def _verify(new: str, expected: list[object], before: Document, index: int) -> None:
    try:
        documents = read_documents(before.file, new)
    except ManifestError as error:
        raise EditError(_unsafe(before, f"the result would not be YAML ({error.finding.message})")) from None
    if not _same([document.data for document in documents], expected):
        raise EditError(_unsafe(before, "the edit would change more than the operating mode"))
    _check_valid(documents[index], "would have mistakes after the edit")


def _unsafe(document: Document, why: str) -> str:
    anchors = [f"&{node.anchor}" for node in _on_the_way(document) if node.anchor]
    hint = (
        f"the part to be changed is shared by the anchor {anchors[0]}: write it out" if anchors else "edit it by hand"
    )
    return f"{document.identity} ({document.file}:{document.line}) was left alone, since {why}; {hint}"


def _on_the_way(document: Document) -> Iterator[Node]:
    for path in (_MODE, _REASON, _SET_BY):
        for depth in range(len(path) + 1):
            node = place_of(document.root, path[:depth])[1]
            if node is not None:
                yield resolve(node)


def _same(one: object, other: object) -> bool:
    """Equal in value and type: Python holds True and 1 for equal, YAML does not."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return type(one) is type(other) and one == other


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep other edits by Fleetward out of the folder meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if hasattr(fcntl, "flock"):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    """Replace the file in one step; it is on disk when this returns."""
    status = path.stat()
    # Its name begins with a dot, so no reader of the folder takes it for a resource file.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123  an open descriptor, not a path
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), status.st_mode & 0o7777)
            if (os.geteuid(), os.getegid()) != (status.st_uid, status.st_gid):
                with contextlib.suppress(PermissionError):
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


__all__ = ["EditError", "FolderError", "Found", "edit_file", "find_resource", "set_operating_mode"]
